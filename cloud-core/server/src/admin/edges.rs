use std::sync::Arc;

use admin_api::{Edge, EdgeState, Edges, Selector};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use cloud_sync::{EdgeStatus, SyncFrontend};
use serde::Deserialize;

use super::Admin;
use super::refusal::Refusal;

#[derive(Deserialize)]
pub struct Selection {
    #[serde(default)]
    selector: String,
}

pub async fn list(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<Selection>, QueryRejection>,
) -> Result<Json<Edges>, Refusal> {
    let Query(Selection { selector }) = query?;
    let selector: Selector = selector
        .parse()
        .map_err(|error: admin_api::SelectorError| Refusal::invalid(error.to_string(), ""))?;
    let edges = sync(&admin)?
        .edges()
        .into_iter()
        .filter(|edge| selector.matches(&edge.labels));
    Ok(Json(Edges {
        edges: edges.map(reply).collect(),
    }))
}

pub async fn get(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Edge>, Refusal> {
    let edge = sync(&admin)?.edge(&name);
    edge.map(|edge| Json(reply(edge))).ok_or_else(|| {
        Refusal::not_found(
            format!("there is no edge {name:?}"),
            "`towline get edges` lists those that have enrolled",
        )
    })
}

/// What knows the edges.
pub fn sync(admin: &Admin) -> Result<&SyncFrontend, Refusal> {
    admin.sync.as_ref().ok_or_else(|| {
        Refusal::unavailable(
            "the sync listener is off on this core",
            "start towline-core with --listen-sync ADDR",
        )
    })
}

fn reply(edge: EdgeStatus) -> Edge {
    Edge {
        name: edge.name,
        labels: edge.labels,
        state: match edge.connected_since_ms {
            Some(_) => EdgeState::Connected,
            None => EdgeState::Disconnected,
        },
        remote: edge.remote.map(|address| address.to_string()),
        connected_since_ms: edge.connected_since_ms,
        last_seen_ms: edge.last_seen_ms,
        enrolled_ms: Some(edge.enrolled_ms),
        certificate_serial: edge.certificate_serial,
        certificate_expires_ms: Some(edge.certificate_expires_ms),
        producer_id: edge.producer_id,
        producer_epoch: edge.epoch,
        last_frame: edge.last_frame,
        version: edge.software,
    }
}
