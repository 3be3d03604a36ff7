//! The broker's own counters, and those of its storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use frontend::figures::{self, Figure, Kind, Read};
use mqtt_broker::Broker;
use prometheus::{IntCounter, Registry};

use crate::CoreBackend;

/// Counters of the storage side.
#[derive(Clone)]
pub struct Metrics {
    pub writes: IntCounter,
    pub unreadable: IntCounter,
}

impl Metrics {
    /// Fails only when one of the names is already taken in `registry`.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Metrics {
            writes: counter(
                "towline_mqtt_writes_total",
                "Writes that carried MQTT messages; each may carry many.",
            )?,
            unreadable: counter(
                "towline_mqtt_unreadable_total",
                "Batches left out for MQTT readers because they are damaged.",
            )?,
        })
    }
}

type Source = Arc<Broker<CoreBackend>>;

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn by_qos(counters: &[AtomicU64; 3]) -> Vec<(String, u64)> {
    counters
        .iter()
        .enumerate()
        .map(|(qos, counter)| (qos.to_string(), value(counter)))
        .collect()
}

static FIGURES: [Figure<Source>; 12] = [
    Figure::gauge(
        "towline_mqtt_clients",
        "Clients connected (CONNACK sent).",
        |b| value(&b.metrics().connections),
    ),
    Figure::gauge(
        "towline_mqtt_persistent_sessions",
        "Persistent sessions, connected or not.",
        |b| value(&b.metrics().persistent_sessions),
    ),
    Figure::counter(
        "towline_mqtt_connections_refused_total",
        "Refused in CONNACK, or closed before CONNECT.",
        |b| value(&b.metrics().connections_refused),
    ),
    Figure::counter(
        "towline_mqtt_protocol_errors_total",
        "Closed for malformed packets and protocol errors.",
        |b| value(&b.metrics().protocol_errors),
    ),
    Figure::counter(
        "towline_mqtt_takeovers_total",
        "Sessions taken over by a new connection.",
        |b| value(&b.metrics().takeovers),
    ),
    Figure::counter(
        "towline_mqtt_refused_total",
        "Messages from clients that were not stored.",
        |b| value(&b.metrics().refused),
    ),
    Figure::counter(
        "towline_mqtt_dropped_total",
        "Messages for clients that retention removed, or too large for them.",
        |b| value(&b.metrics().dropped),
    ),
    Figure::counter(
        "towline_mqtt_unstored_dropped_total",
        "Messages of topics that are not stored, for clients that had no room.",
        |b| value(&b.metrics().unstored_dropped),
    ),
    Figure::counter(
        "towline_mqtt_early_total",
        "Messages of QoS 0 given to clients before they were stored.",
        |b| value(&b.metrics().early),
    ),
    Figure::counter(
        "towline_mqtt_wills_total",
        "Will messages published.",
        |b| value(&b.metrics().wills_published),
    ),
    Figure {
        name: "towline_mqtt_messages_received_total",
        help: "PUBLISH packets from clients, by QoS.",
        kind: Kind::Counter,
        read: Read::Labelled("qos", |b| by_qos(&b.metrics().messages_in)),
    },
    Figure {
        name: "towline_mqtt_messages_sent_total",
        help: "PUBLISH packets to clients, by QoS; sent again counts again.",
        kind: Kind::Counter,
        read: Read::Labelled("qos", |b| by_qos(&b.metrics().messages_out)),
    },
];

/// Fails only when one of the names is taken.
pub fn register(registry: &Registry, broker: Source) -> Result<(), prometheus::Error> {
    figures::register(registry, &FIGURES, move || broker.clone())
}
