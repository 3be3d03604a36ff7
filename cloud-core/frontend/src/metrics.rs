//! Metrics of the accept loop, one label `protocol`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The families, registered once in [`crate::Context::new`].
#[derive(Clone)]
pub struct ListenerMetrics {
    open: IntGaugeVec,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    panics: IntCounterVec,
    handshakes: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
}

/// The children of one protocol: no label lookup on the data path.
#[derive(Clone)]
pub struct ProtocolMetrics {
    pub open: IntGauge,
    pub accepted: IntCounter,
    pub refused: IntCounter,
    pub panics: IntCounter,
    protocol: &'static str,
    handshakes: IntCounterVec,
    pub received: IntCounter,
    pub sent: IntCounter,
}

impl ListenerMetrics {
    /// Fails only when one of the names is already taken in `registry`.
    pub fn register(registry: &Registry) -> Result<ListenerMetrics, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(name, help), &["protocol"])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let open = IntGaugeVec::new(
            Opts::new("towline_connections", "Connections open now."),
            &["protocol"],
        )?;
        registry.register(Box::new(open.clone()))?;
        Ok(ListenerMetrics {
            open,
            handshakes: {
                let name = "towline_connection_handshakes_failed_total";
                let help = "Connections whose PROXY header, TLS, WebSocket or QUIC failed.";
                let family = IntCounterVec::new(Opts::new(name, help), &["protocol", "layer"])?;
                registry.register(Box::new(family.clone()))?;
                family
            },
            accepted: counter(
                "towline_connections_accepted_total",
                "Connections accepted.",
            )?,
            refused: counter(
                "towline_connections_refused_total",
                "Connections closed at once: over the limit.",
            )?,
            panics: counter(
                "towline_connection_panics_total",
                "Connections that ended by a bug of ours.",
            )?,
            received: counter("towline_received_bytes_total", "Bytes read from clients.")?,
            sent: counter("towline_sent_bytes_total", "Bytes written to clients.")?,
        })
    }

    /// `protocol` is `mqtt`, `kafka`, `amqp`, `sync`.
    pub fn protocol(&self, protocol: &'static str) -> ProtocolMetrics {
        ProtocolMetrics {
            open: self.open.with_label_values(&[protocol]),
            accepted: self.accepted.with_label_values(&[protocol]),
            refused: self.refused.with_label_values(&[protocol]),
            panics: self.panics.with_label_values(&[protocol]),
            protocol,
            handshakes: self.handshakes.clone(),
            received: self.received.with_label_values(&[protocol]),
            sent: self.sent.with_label_values(&[protocol]),
        }
    }
}

impl ProtocolMetrics {
    /// `layer`: see [`transport::HandshakeError::layer`].
    pub(crate) fn handshake_failed(&self, layer: &str) {
        self.handshakes
            .with_label_values(&[self.protocol, layer])
            .inc();
    }
}
