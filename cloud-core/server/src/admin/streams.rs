use std::sync::Arc;

use admin_api::{CreateStream, Stream, Streams, codes};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use kernel::{
    CreateStreamError, DeleteStreamError, Kernel, STREAM_SETTINGS, StreamSetting, StreamSpec,
};
use record::{Namespace, StreamAddress, StreamName};

use super::Admin;
use super::refusal::Refusal;

pub async fn list(State(admin): State<Arc<Admin>>) -> Json<Streams> {
    let kernel = &admin.ctx.kernel;
    let streams = kernel.streams(&Namespace::default());
    Json(Streams {
        streams: streams.iter().map(|stream| reply(kernel, stream)).collect(),
    })
}

pub async fn create(
    State(admin): State<Arc<Admin>>,
    body: Result<Json<CreateStream>, JsonRejection>,
) -> Result<(StatusCode, Json<Stream>), Refusal> {
    let Json(request) = body?;
    let address = address(&request.name)?;
    if request.partitions == Some(0) {
        return Err(Refusal::invalid(
            "a stream needs at least one partition",
            "",
        ));
    }
    if let Some(key) = request
        .config
        .keys()
        .find(|key| StreamSetting::find(key).is_none())
    {
        // Everything else is refused, since nothing would enforce it.
        let known: Vec<_> = STREAM_SETTINGS.iter().map(|s| s.name).collect();
        let known = known.join(", ");
        return Err(Refusal::invalid(
            format!("configuration {key} is not known"),
            format!("known are {known}"),
        ));
    }
    let partitions = request.partitions.unwrap_or(admin.ctx.streams.partitions);
    let spec = StreamSpec {
        partitions,
        config: request.config,
    };
    let kernel = &admin.ctx.kernel;
    match kernel.create_stream(&address, spec).await {
        Ok(stream) => Ok((StatusCode::CREATED, Json(reply(kernel, &stream)))),
        Err(error @ CreateStreamError::Exists(_)) => Err(Refusal::new(
            StatusCode::CONFLICT,
            codes::ALREADY_EXISTS,
            error.to_string(),
            "`towline get streams` lists them",
        )),
        Err(CreateStreamError::Write(error)) => Err(Refusal::not_written(error)),
        Err(error) => Err(Refusal::invalid(error.to_string(), "")),
    }
}

pub async fn get(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Stream>, Refusal> {
    let kernel = &admin.ctx.kernel;
    match kernel.stream(&address(&name)?) {
        Some(stream) => Ok(Json(reply(kernel, &stream))),
        None => Err(Refusal::not_found(
            format!("there is no stream {name:?}"),
            "`towline get streams` lists them",
        )),
    }
}

pub async fn delete(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let address = address(&name)?;
    match admin.ctx.kernel.delete_stream(&address).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error @ DeleteStreamError::Unknown(_)) => Err(Refusal::not_found(
            error.to_string(),
            "`towline get streams` lists those that exist",
        )),
        Err(DeleteStreamError::Write(error)) => Err(Refusal::not_written(error)),
    }
}

pub fn address(name: &str) -> Result<StreamAddress, Refusal> {
    let hint = "a name has 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'";
    let name = StreamName::new(name)
        .map_err(|error| Refusal::invalid(format!("{name:?}: {error}"), hint))?;
    Ok(StreamAddress::new(Namespace::default(), name))
}

fn reply(kernel: &Kernel, stream: &kernel::Stream) -> Stream {
    let marks = stream
        .partition_ids()
        .filter_map(|partition| kernel.watermarks(partition));
    Stream {
        namespace: stream.address.namespace.to_string(),
        name: stream.address.name.to_string(),
        id: stream.uuid.to_string(),
        partitions: stream.partitions,
        config: stream.config.clone(),
        settings: kernel::STREAM_SETTINGS
            .iter()
            .map(|setting| {
                let set = stream.config.get(setting.name).map(String::as_str);
                let value = set.unwrap_or(setting.default);
                (setting.name.to_owned(), value.to_owned())
            })
            .collect(),
        created_ms: stream.created_at,
        records: marks.map(|marks| marks.end.abs_diff(marks.log_start)).sum(),
    }
}
