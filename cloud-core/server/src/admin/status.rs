use std::sync::Arc;

use admin_api::{EdgeCounts, Status};
use axum::Json;
use axum::extract::State;
use record::Namespace;

use super::Admin;

pub async fn get(State(admin): State<Arc<Admin>>) -> Json<Status> {
    let kernel = &admin.ctx.kernel;
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: admin.ctx.cluster_id.to_string(),
        uptime_seconds: admin.started.elapsed().as_secs(),
        listeners: admin.listeners.clone(),
        ..Status::default()
    };
    for protocol in ["mqtt", "kafka", "amqp", "sync"]
        .into_iter()
        .filter(|name| admin.listeners.contains_key(*name))
    {
        let open = admin.ctx.metrics.protocol(protocol).open.get();
        status
            .connections
            .insert(protocol.to_owned(), u64::try_from(open).unwrap_or(0));
    }
    for stream in kernel.streams(&Namespace::default()) {
        status.streams += 1;
        for marks in stream
            .partition_ids()
            .filter_map(|partition| kernel.watermarks(partition))
        {
            status.partitions += 1;
            status.records += marks.end.abs_diff(marks.log_start);
            status.records_appended += marks.end.unsigned_abs();
        }
    }
    if let Some(sync) = &admin.sync {
        let edges = sync.edges();
        let connected = edges
            .iter()
            .filter(|edge| edge.connected_since_ms.is_some())
            .count();
        status.edges = EdgeCounts {
            connected: connected as u64,
            enrolled: edges.len() as u64,
        };
    }
    Json(status)
}
