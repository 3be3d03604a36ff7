use std::sync::Arc;

use admin_api::{Edge, EdgeState, Edges, Selector};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use cloud_sync::{EdgeLane, EdgeStatus, FencingEvent, SyncFrontend};
use serde::Deserialize;

use super::Admin;
use admin_http::Refusal;

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
    Ok(Json(reply(find(sync(&admin)?, &name)?)))
}

/// An edge that has enrolled.
pub fn find(sync: &SyncFrontend, name: &str) -> Result<EdgeStatus, Refusal> {
    sync.edge(name).ok_or_else(|| {
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

fn lane(lane: EdgeLane) -> admin_api::EdgeLane {
    admin_api::EdgeLane {
        number: lane.number,
        name: lane.name,
        priority: lane.priority,
        link_compression: lane.link_compression,
        last_frame: lane.last_frame,
    }
}

fn fenced(event: FencingEvent) -> admin_api::FencingEvent {
    admin_api::FencingEvent {
        first_ms: event.first_ms,
        last_ms: event.last_ms,
        times: event.times,
        remote: event.remote.to_string(),
        other: event.other.map(|address| address.to_string()),
        producer_id: event.producer_id,
        incarnation: event.incarnation,
        reason: event.reason,
    }
}

pub fn reply(edge: EdgeStatus) -> Edge {
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
        incarnation: edge.incarnation,
        lanes: edge.lanes.into_iter().map(lane).collect(),
        fenced: edge.fenced.into_iter().map(fenced).collect(),
        time_known: edge.time_known,
        version: edge.software,
    }
}
