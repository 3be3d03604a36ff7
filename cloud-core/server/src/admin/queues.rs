//! What edges say of themselves when they are asked: their queues, and the fleet at a glance.

use std::sync::Arc;

use admin_api::{
    Fleet, FleetEdge, Gap, GapTotals, Gaps, GapsPage, Peek, Peeked, Queue, QueueStatus, Selector,
    SetAside,
};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use cloud_sync::{GapsError, QueryError, SyncFrontend};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::edges::{find, reply, sync};
use admin_http::Refusal;

/// Edges that are asked at once for the fleet.
const ASKED_AT_ONCE: usize = 64;
/// Edges that are asked for the fleet at most.
const MOST_ASKED: usize = 500;
/// An answer of so long ago is good enough for the fleet, in milliseconds.
const FRESH_MS: i64 = 1500;

/// `GET /v1/edges/{name}/gaps`
pub async fn gaps(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Gaps>, Refusal> {
    let sync = sync(&admin)?;
    find(sync, &name)?;
    let totals = sync.edge_gap_totals(&name);
    Ok(Json(Gaps {
        gaps: sync.edge_gaps(&name).into_iter().map(gap).collect(),
        totals: GapTotals {
            ranges: totals.ranges,
            records: totals.records,
            bytes: totals.bytes,
        },
        set_aside: sync.edge_set_aside(&name).map(|all| SetAside {
            ledgers: all.counts.ledgers,
            values: all.counts.values,
            segments: all.counts.segments,
            identities: all.counts.identities,
            last_ms: all.last_ms,
        }),
    }))
}

fn gap(gap: cloud_sync::Gap) -> Gap {
    Gap {
        lane: gap.lane,
        name: gap.name,
        producer_id: gap.producer_id,
        first: gap.first,
        last: gap.last,
        received_ms: gap.received_ms,
        report: gap.report,
    }
}

#[derive(Deserialize)]
pub struct GapsQuery {
    after: Option<String>,
}

/// `GET /v1/edges/{name}/gaps/all`
pub async fn all_gaps(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    query: Result<Query<GapsQuery>, QueryRejection>,
) -> Result<Json<GapsPage>, Refusal> {
    let Query(GapsQuery { after }) = query?;
    let sync = sync(&admin)?;
    find(sync, &name)?;
    let page = sync.edge_gaps_page(&name, after.as_deref()).await;
    let page = page.map_err(|error| match &error {
        GapsError::Place => Refusal::invalid(error.to_string(), "begin again without `after`"),
        GapsError::Read(_) => Refusal::unavailable(error.to_string(), "try again"),
    })?;
    Ok(Json(GapsPage {
        gaps: page.gaps.into_iter().map(gap).collect(),
        next: page.next,
        gone: page.gone,
        damaged: page.damaged,
    }))
}

/// `GET /v1/edges/{name}/queue`
pub async fn queue(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Queue>, Refusal> {
    let sync = sync(&admin)?;
    find(sync, &name)?;
    let asked = sync.edge_status(&name).await;
    let stale = match &asked {
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    let last = sync.edge_last_status(&name);
    let status = last.as_ref().and_then(|(_, json)| parse(json));
    Ok(Json(Queue {
        edge: reply(find(sync, &name)?),
        asked_ms: status.is_some().then(|| last.map(|(at, _)| at)).flatten(),
        status,
        stale,
    }))
}

#[derive(Deserialize, Serialize)]
pub struct PeekQuery {
    lane: Option<String>,
    count: Option<u32>,
}

/// `GET /v1/edges/{name}/queue/peek`
pub async fn peek(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    query: Result<Query<PeekQuery>, QueryRejection>,
) -> Result<Json<Peeked>, Refusal> {
    let Query(PeekQuery { lane, count }) = query?;
    let sync = sync(&admin)?;
    find(sync, &name)?;
    let arguments = serde_json::to_vec(&Peek { lane, count })
        .map_err(|error| Refusal::invalid(error.to_string(), ""))?;
    let answer = sync.edge_query(&name, "peek", arguments.into()).await;
    let answer = answer.map_err(|error| refusal(&name, &error))?;
    let peeked = serde_json::from_slice(&answer).map_err(|error| {
        Refusal::unavailable(
            format!("edge {name:?} gave an answer that this core does not understand: {error}"),
            "its software may be of another version",
        )
    })?;
    Ok(Json(peeked))
}

fn refusal(name: &str, error: &QueryError) -> Refusal {
    match error {
        QueryError::Refused { status, reason } => {
            Refusal::invalid(format!("edge {name:?}: {status}: {reason}"), "")
        }
        QueryError::TooLong => Refusal::invalid(error.to_string(), ""),
        QueryError::NotConnected => Refusal::unavailable(
            format!("edge {name:?} is not connected, and its messages are on its own disk"),
            "try again when `towline get edges` shows it as connected; `towline queue status` has what is known of it",
        ),
        QueryError::Timeout | QueryError::Busy => {
            Refusal::unavailable(format!("edge {name:?}: {error}"), "try again")
        }
    }
}

#[derive(Deserialize)]
pub struct FleetQuery {
    #[serde(default)]
    selector: String,
    /// How many edges are asked; none: all, up to [`MOST_ASKED`].
    live: Option<usize>,
}

/// `GET /v1/fleet`
pub async fn fleet(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<FleetQuery>, QueryRejection>,
) -> Result<Json<Fleet>, Refusal> {
    let Query(FleetQuery { selector, live }) = query?;
    let selector: Selector = selector
        .parse()
        .map_err(|error: admin_api::SelectorError| Refusal::invalid(error.to_string(), ""))?;
    let sync = sync(&admin)?;
    let mut edges = sync.edges();
    edges.retain(|edge| selector.matches(&edge.labels));
    let now = admin.ctx.now_ms();
    let asked: Vec<String> = edges
        .iter()
        .filter(|edge| edge.connected_since_ms.is_some())
        .take(live.unwrap_or(MOST_ASKED).min(MOST_ASKED))
        .filter(|edge| {
            let last = sync.edge_last_status(&edge.name);
            last.is_none_or(|(at, _)| now - at > FRESH_MS)
        })
        .map(|edge| edge.name.clone())
        .collect();
    futures_util::stream::iter(asked)
        .for_each_concurrent(ASKED_AT_ONCE, |name| async move {
            // One that does not answer is shown with what it said last.
            if let Err(error) = sync.edge_status(&name).await {
                tracing::debug!(edge = name, %error, "an edge did not say how it is");
            }
        })
        .await;
    let edges = edges.into_iter().map(|edge| FleetEdge {
        records: edge.came.records,
        bytes: edge.came.bytes,
        status: last_status(sync, &edge.name),
        edge: reply(edge),
    });
    Ok(Json(Fleet {
        time_ms: admin.ctx.now_ms(),
        edges: edges.collect(),
    }))
}

fn last_status(sync: &SyncFrontend, name: &str) -> Option<QueueStatus> {
    parse(&sync.edge_last_status(name)?.1)
}

/// An answer of an edge of another version may be one that is not understood: it is as none.
fn parse(json: &[u8]) -> Option<QueueStatus> {
    serde_json::from_slice(json).ok()
}
