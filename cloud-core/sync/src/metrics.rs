//! What sync counts.

use frontend::figures::{self, Figure};
use prometheus::{IntCounter, IntGauge, Registry};
use sync_quic::{AtTheDoor, Listener};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) connected: IntGauge,
    pub(crate) enrolled: IntCounter,
    pub(crate) batches: IntCounter,
    pub(crate) records: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) gaps: IntCounter,
    pub(crate) hellos_refused: IntCounter,
    pub(crate) down: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let connected = IntGauge::new("towline_sync_edges_connected", "Edges connected now.")?;
        registry.register(Box::new(connected.clone()))?;
        Ok(Metrics {
            connected,
            enrolled: counter(
                "towline_sync_enrolments_total",
                "Certificates given to edges.",
            )?,
            batches: counter("towline_sync_batches_total", "Batches of edges appended.")?,
            records: counter("towline_sync_records_total", "Records of edges appended.")?,
            duplicates: counter(
                "towline_sync_duplicates_total",
                "Batches of edges that were in the log already.",
            )?,
            refused: counter(
                "towline_sync_refused_total",
                "Frames of edges that were refused.",
            )?,
            gaps: counter(
                "towline_sync_gaps_total",
                "Gaps that edges reported: entries that will never come.",
            )?,
            hellos_refused: counter(
                "towline_sync_hellos_refused_total",
                "Edges that were not let in: copies, old certificates, or too many at once.",
            )?,
            down: counter(
                "towline_sync_down_records_total",
                "Commands and configuration sent to edges.",
            )?,
        })
    }
}

static DOOR: [Figure<AtTheDoor>; 5] = [
    Figure::gauge(
        "towline_sync_handshakes",
        "Handshakes in progress: edges that connect, and enrolments.",
        |door| door.in_progress as u64,
    ),
    Figure::gauge(
        "towline_sync_handshakes_most",
        "The most handshakes that were in progress at a time since the start.",
        |door| door.most as u64,
    ),
    Figure::gauge(
        "towline_sync_handshakes_waiting",
        "Clients that wait until their handshakes may begin.",
        |door| door.waiting as u64,
    ),
    Figure::counter(
        "towline_sync_handshakes_total",
        "Handshakes that were begun.",
        |door| door.begun,
    ),
    Figure::counter(
        "towline_sync_handshakes_refused_total",
        "Clients that were sent away before their handshakes, since too many waited.",
        |door| door.refused,
    ),
];

/// What goes on at the listener.
pub(crate) fn register_door(
    registry: &Registry,
    listener: Listener,
) -> Result<(), prometheus::Error> {
    figures::register(registry, &DOOR, move || listener.at_the_door())
}
