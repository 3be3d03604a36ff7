use std::sync::Arc;

use admin_api::{Node, Nodes};
use axum::Json;
use axum::extract::State;

use super::Admin;

/// There is one node as yet.
pub const THIS_NODE: u32 = 0;

pub async fn list(State(admin): State<Arc<Admin>>) -> Json<Nodes> {
    let node = Node {
        id: THIS_NODE,
        cluster_id: admin.ctx.cluster_id.to_string(),
        roles: ["meta", "store", "serve"].map(str::to_owned).to_vec(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: admin.started_ms,
        uptime_seconds: admin.started.elapsed().as_secs(),
        listeners: admin.listeners.clone(),
        data_dir: admin.ctx.data_dir.display().to_string(),
        wal_bytes: admin.ctx.kernel.stats().wal_bytes_on_disk,
    };
    Json(Nodes { nodes: vec![node] })
}
