//! What all connections share: the virtual hosts and the metrics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use frontend::Context;
use prometheus::IntCounter;
use record::Namespace;

use crate::vhost::{VhostError, VirtualHost};

pub struct Metrics {
    pub published: IntCounter,
    pub delivered: IntCounter,
    pub returned: IntCounter,
}

pub struct Broker {
    pub context: Context,
    pub metrics: Metrics,
    default: Arc<VirtualHost>,
    next_holder: AtomicU64,
}

impl Broker {
    pub async fn open(context: Context) -> Result<Broker, VhostError> {
        let counter = |name: &str, help: &str| {
            let (counter, registered) = match IntCounter::new(name, help) {
                Ok(counter) => (
                    counter.clone(),
                    context.registry.register(Box::new(counter)),
                ),
                Err(error) => return Err(VhostError::Metric(error)),
            };
            registered.map_err(VhostError::Metric)?;
            Ok(counter)
        };
        let metrics = Metrics {
            published: counter(
                "towline_amqp_published_total",
                "Messages published by AMQP clients",
            )?,
            delivered: counter(
                "towline_amqp_delivered_total",
                "Messages handed to AMQP clients, redeliveries included",
            )?,
            returned: counter(
                "towline_amqp_returned_total",
                "Mandatory messages that reached no queue",
            )?,
        };
        let default = VirtualHost::open(context.clone(), Namespace::default()).await?;
        Ok(Broker {
            context,
            metrics,
            default,
            next_holder: AtomicU64::new(1 << 62),
        })
    }

    /// `/` (what every client asks for) and `default` are the default namespace.
    pub fn vhost(&self, name: &str) -> Option<Arc<VirtualHost>> {
        matches!(name, "/" | "default").then(|| self.default.clone())
    }

    /// Numbers for whoever takes messages; far from those that other front ends count from 1, although queues are not shared.
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    pub fn new_holder(&self) -> u64 {
        self.next_holder.fetch_add(1, Ordering::Relaxed)
    }

    /// Streams may come into being through any protocol; queues that read them must look at them.
    pub async fn watch_streams(self: Arc<Self>) {
        let mut generation = self.context.kernel.watch_streams();
        while generation.changed().await.is_ok() {
            if let Err(error) = self.default.refresh_sources().await {
                tracing::warn!(%error, "queues do not read the newest streams; the next change of a stream or binding tries again");
            }
        }
    }
}
