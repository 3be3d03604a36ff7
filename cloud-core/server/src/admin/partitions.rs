use std::sync::Arc;

use admin_api::{Partition, Partitions};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use record::Namespace;
use serde::Deserialize;

use super::{Admin, nodes, streams};
use admin_http::Refusal;

#[derive(Deserialize)]
pub struct Selection {
    stream: Option<String>,
}

pub async fn list(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<Selection>, QueryRejection>,
) -> Result<Json<Partitions>, Refusal> {
    let Query(selection) = query?;
    let kernel = &admin.ctx.kernel;
    let streams = match selection.stream {
        None => kernel.streams(&Namespace::default()),
        Some(name) => match kernel.stream(&streams::address(&name)?) {
            Some(stream) => vec![stream],
            None => {
                return Err(Refusal::not_found(
                    format!("there is no stream {name:?}"),
                    "`towline get streams` lists them",
                ));
            }
        },
    };
    let mut partitions = Vec::new();
    for stream in streams {
        for id in stream.partition_ids() {
            // Absent: deleted in this very moment.
            let Some(marks) = kernel.watermarks(id) else {
                continue;
            };
            let bytes = kernel.tier_bytes(id).unwrap_or_default();
            partitions.push(Partition {
                namespace: stream.address.namespace.to_string(),
                stream: stream.address.name.to_string(),
                partition: id.partition,
                log_start: marks.log_start,
                high_watermark: marks.high_watermark,
                last_stable_offset: marks.last_stable,
                end: marks.end,
                hot_bytes: bytes.hot,
                cold_bytes: bytes.cold,
                node: nodes::THIS_NODE,
            });
        }
    }
    Ok(Json(Partitions { partitions }))
}
