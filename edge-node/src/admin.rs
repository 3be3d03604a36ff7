//! The admin listener: `GET /healthz`, `/readyz`, `/metrics`, and what `towline mqtt` asks. `docs/reference/metrics.md` explains the metrics.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use admin_api::codes;
use admin_http::{Guard, Refusal, SecretHash, require_secret};
use axum::Router;
use axum::extract;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mqtt_broker::Broker;
use quota::Quotas;
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::backend::EdgeBackend;
use crate::link::Link;

#[derive(Clone)]
pub struct State {
    pub store: Arc<Store>,
    pub broker: Arc<Broker<EdgeBackend>>,
    pub link: Arc<Link>,
    pub quotas: Arc<Quotas>,
}

pub async fn serve(
    listener: TcpListener,
    state: State,
    secret: Option<SecretHash>,
    shutdown: CancellationToken,
) {
    let protected = secret.map(|secret| {
        let broker = state.broker.clone();
        let guard = Guard { secret, of: "edge" };
        admin_http::mqtt::routes(move || Some(broker.clone()))
            .route_layer(from_fn_with_state(guard, require_secret))
    });
    let app = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(protected.unwrap_or_default())
        .fallback(no_such_path)
        .with_state(state);
    let stopped = shutdown.cancelled_owned();
    if let Err(error) = axum::serve(listener, app)
        .with_graceful_shutdown(stopped)
        .await
    {
        tracing::error!(%error, "the admin listener ended");
    }
}

async fn no_such_path() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        codes::NOT_FOUND,
        "there is no such path",
        "this is an edge: it answers `towline mqtt`, and its core everything else",
    )
}

/// Whether what is published can be stored.
async fn healthz(extract::State(state): extract::State<State>) -> Response {
    if state.store.failed() {
        let words = "the disk failed: restart, and see the log\n";
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    }
    "ok\n".into_response()
}

/// Ready does not need the core: that is what the outbox is for. The state of the link is in the text.
async fn readyz(state: extract::State<State>) -> Response {
    let link = state.link.state();
    let health = healthz(state).await;
    if health.status() != StatusCode::OK {
        return health;
    }
    let link = if link.is_empty() { "none" } else { &link };
    format!("ok\nlink: {link}\n").into_response()
}

async fn metrics(extract::State(state): extract::State<State>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, render(&state)).into_response()
}

fn render(state: &State) -> String {
    let store = state.store.stats();
    let broker = state.broker.metrics();
    let quotas = state.quotas.counts();
    let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let sum = |values: &[AtomicU64]| values.iter().map(count).sum::<u64>();
    let (gauge, counter) = ("gauge", "counter");
    let rows = [
        (
            "messages_in_total",
            counter,
            store.messages_in,
            "Messages from local clients that are in the outbox or have been",
        ),
        (
            "messages_down_total",
            counter,
            store.messages_down,
            "Messages from the core that are stored",
        ),
        (
            "outbox_messages",
            gauge,
            store.outbox_messages,
            "Messages that the core has not acknowledged",
        ),
        (
            "outbox_bytes",
            gauge,
            store.outbox_bytes,
            "Bytes of the segments that hold them",
        ),
        (
            "disk_bytes",
            gauge,
            store.disk_bytes,
            "Bytes of all segments on disk",
        ),
        (
            "messages_delivered_total",
            counter,
            count(&state.link.delivered),
            "Messages that the core has committed",
        ),
        (
            "core_refused_total",
            counter,
            count(&state.link.refused),
            "Messages that the core refused for good and that are in the quarantine",
        ),
        (
            "link_up",
            gauge,
            state.link.is_up().into(),
            "1 while connected to the core",
        ),
        (
            "link_connections_total",
            counter,
            count(&state.link.connections),
            "Connections to the core so far",
        ),
        (
            "fsyncs_total",
            counter,
            store.syncs,
            "Syncs of the segment logs",
        ),
        (
            "written_bytes_total",
            counter,
            store.bytes_written,
            "Bytes written to the segment logs",
        ),
        (
            "device_bytes_total",
            counter,
            store.worn_bytes(),
            "Bytes that the edge had its system write to disks: divided by payload_bytes_total, what a message costs the flash",
        ),
        (
            "gaps",
            gauge,
            store.gaps,
            "Ranges of messages that are missing and of which the core does not know yet",
        ),
        (
            "disk_full",
            gauge,
            store.disk_full.into(),
            "1 while the file system is full: messages are refused until there is room",
        ),
        (
            "payload_bytes_total",
            counter,
            store.payload_bytes,
            "Topic and payload bytes in them: what writing would cost without any overhead",
        ),
        (
            "refused_total",
            counter,
            store.refused,
            "Writes that were refused: full, too large, too fast",
        ),
        (
            "damaged_segments_total",
            counter,
            store.damaged,
            "Segments found damaged while they were read",
        ),
        (
            "cut_bytes",
            gauge,
            store.cut,
            "Bytes of an incomplete write cut off at the start",
        ),
        (
            "set_aside_segments",
            gauge,
            store.set_aside,
            "Segments, the ledger, and values of it, set aside at the start since they could not be read",
        ),
        (
            "damaged_values_total",
            counter,
            store.damaged_values,
            "Values of the ledger found damaged, and passed over, while they were read",
        ),
        (
            "lagging_sessions_total",
            counter,
            store.sessions_lagging,
            "Times that a session lost messages since it lagged too far behind",
        ),
        (
            "mqtt_connections",
            gauge,
            count(&broker.connections),
            "MQTT clients connected",
        ),
        (
            "mqtt_connections_refused_total",
            counter,
            count(&broker.connections_refused),
            "Connections refused in CONNACK, or closed before CONNECT was complete",
        ),
        (
            "mqtt_refused_total",
            counter,
            count(&broker.refused),
            "PUBLISH packets refused: not allowed, or not to be stored",
        ),
        (
            "mqtt_sessions",
            gauge,
            count(&broker.persistent_sessions),
            "Persistent MQTT sessions, connected or not",
        ),
        (
            "mqtt_retained",
            gauge,
            state.store.retained_sum().rows as u64,
            "Retained messages that are stored",
        ),
        (
            "mqtt_delayed",
            gauge,
            state.store.delayed_len() as u64,
            "Messages that wait to be published later",
        ),
        (
            "quota_refused_total",
            counter,
            quotas.refused,
            "Connections refused because a quota was used up",
        ),
        (
            "quota_delayed_total",
            counter,
            quotas.delayed,
            "Times that a client was read later because of a quota",
        ),
        (
            "mqtt_messages_in_total",
            counter,
            sum(&broker.messages_in),
            "PUBLISH packets from clients",
        ),
        (
            "mqtt_messages_out_total",
            counter,
            sum(&broker.messages_out),
            "PUBLISH packets to clients",
        ),
        (
            "mqtt_dropped_total",
            counter,
            count(&broker.dropped),
            "Messages that a client could not get: gone before it read them, or too large for it",
        ),
        (
            "mqtt_unstored_dropped_total",
            counter,
            count(&broker.unstored_dropped),
            "Messages of topics that are not stored, for clients that had no room",
        ),
        (
            "mqtt_early_total",
            counter,
            count(&broker.early),
            "Messages of QoS 0 given to clients before they were stored",
        ),
    ];
    let mut text = String::new();
    for (name, kind, value, help) in rows {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "# HELP towline_edge_{name} {help}\n# TYPE towline_edge_{name} {kind}\ntowline_edge_{name} {value}\n"
        );
    }
    text
}
