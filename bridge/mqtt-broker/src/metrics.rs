//! Counters the host exports. Plain atomics: they are read now and then and order nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Metrics {
    /// Now connected (CONNACK sent).
    pub connections: AtomicU64,
    pub connections_total: AtomicU64,
    /// Refused with an error in CONNACK, or closed before CONNECT was complete.
    pub connections_refused: AtomicU64,
    /// Closed for malformed packets and protocol errors.
    pub protocol_errors: AtomicU64,
    /// Sessions taken over by another connection with the same client id.
    pub takeovers: AtomicU64,
    /// Persistent sessions, connected or not.
    pub persistent_sessions: AtomicU64,
    /// Packets of every kind, from and to clients.
    pub packets_in: AtomicU64,
    pub packets_out: AtomicU64,
    /// By QoS.
    pub messages_in: [AtomicU64; 3],
    /// By QoS; sent again counts again.
    pub messages_out: [AtomicU64; 3],
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// From clients, not stored: refused by the backend.
    pub refused: AtomicU64,
    /// To clients: gone by retention before they were read, larger than the client takes, or over while they waited to be sent.
    pub dropped: AtomicU64,
    /// To clients, of topics that are not stored: there was no room for them.
    pub unstored_dropped: AtomicU64,
    /// To clients, of QoS 0, before they were stored.
    pub early: AtomicU64,
    pub wills_published: AtomicU64,
}

impl Metrics {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    pub(crate) fn sub(counter: &AtomicU64, n: u64) {
        // Saturating: a session that was not counted can not make the gauge wrap.
        let _ = counter.fetch_update(Relaxed, Relaxed, |value| Some(value.saturating_sub(n)));
    }

    pub(crate) fn add_by_qos(counters: &[AtomicU64; 3], counts: [u64; 3]) {
        for (counter, count) in counters.iter().zip(counts) {
            if count > 0 {
                counter.fetch_add(count, Relaxed);
            }
        }
    }
}
