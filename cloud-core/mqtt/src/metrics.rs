//! Metrics of the storage side of MQTT.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

#[derive(Clone)]
pub struct Metrics {
    /// By QoS: 0, 1, 2.
    pub published: [IntCounter; 3],
    pub refused: IntCounter,
    pub writes: IntCounter,
    pub unreadable: IntCounter,
}

impl Metrics {
    /// Fails only when one of the names is already taken in `registry`.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let published = IntCounterVec::new(
            Opts::new(
                "towline_mqtt_published_total",
                "Messages stored for MQTT publishers.",
            ),
            &["qos"],
        )?;
        registry.register(Box::new(published.clone()))?;
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Metrics {
            published: ["0", "1", "2"].map(|qos| published.with_label_values(&[qos])),
            refused: counter(
                "towline_mqtt_publish_refused_total",
                "Messages of MQTT publishers that were not stored.",
            )?,
            writes: counter(
                "towline_mqtt_writes_total",
                "Writes that carried MQTT messages; each may carry many.",
            )?,
            unreadable: counter(
                "towline_mqtt_unreadable_total",
                "Records left out for MQTT readers because they are damaged.",
            )?,
        })
    }
}
