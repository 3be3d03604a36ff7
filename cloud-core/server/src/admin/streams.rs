use std::sync::Arc;

use admin_api::{AlterStream, CreateStream, Stream, Streams, codes};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use kernel::{
    AlterStreamError, CreateStreamError, DeleteStreamError, Kernel, STREAM_SETTINGS, StreamSetting,
    StreamSpec,
};
use record::{Namespace, StreamAddress, StreamName};

use super::Admin;
use admin_http::Refusal;

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
    known(request.config.keys())?;
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
        None => Err(unknown(&name)),
    }
}

pub async fn alter(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Result<Json<AlterStream>, JsonRejection>,
) -> Result<Json<Stream>, Refusal> {
    let Json(request) = body?;
    known(request.config.keys())?;
    let address = address(&name)?;
    let kernel = &admin.ctx.kernel;
    let stream = kernel.stream(&address).ok_or_else(|| unknown(&name))?;
    let mut config = stream.config.clone();
    for (key, value) in request.config {
        match value {
            Some(value) => config.insert(key, value),
            None => config.remove(&key),
        };
    }
    match kernel.alter_stream_config(&address, config).await {
        Ok(stream) => Ok(Json(reply(kernel, &stream))),
        Err(AlterStreamError::Unknown(_)) => Err(unknown(&name)),
        Err(AlterStreamError::Write(error)) => Err(Refusal::not_written(error)),
        Err(error) => Err(Refusal::invalid(error.to_string(), "")),
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

fn unknown(name: &str) -> Refusal {
    Refusal::not_found(
        format!("there is no stream {name:?}"),
        "`towline get streams` lists them",
    )
}

/// Settings that nothing would enforce are refused.
fn known<'a>(mut keys: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    let Some(key) = keys.find(|key| StreamSetting::find(key).is_none()) else {
        return Ok(());
    };
    let known: Vec<_> = STREAM_SETTINGS.iter().map(|s| s.name).collect();
    let known = known.join(", ");
    Err(Refusal::invalid(
        format!("configuration {key} is not known"),
        format!("known are {known}"),
    ))
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
