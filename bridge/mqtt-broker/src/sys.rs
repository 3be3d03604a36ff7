//! `$SYS`: what the broker says of itself, in mosquitto's words. Live only: it goes to who subscribes to it and is never stored.

use crate::backend::{Backend, Message, MessageProperties, SharedMessage};
use crate::broker::Broker;
use bytes::Bytes;
use mqtt_codec::{QoS, TopicFilter, TopicName};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Can a subscription with this filter want any of it? Wildcards at the first level do not match it [MQTT-4.7.2-1].
pub(crate) fn wants_sys(filter: &TopicFilter) -> bool {
    filter.levels().next() == Some("$SYS")
}

/// A topic that is the broker's own: no client may publish to it.
pub(crate) fn is_sys(topic: &TopicName) -> bool {
    let text = topic.as_str();
    text == "$SYS" || text.starts_with("$SYS/")
}

pub(crate) type Values = Arc<Vec<Arc<SharedMessage>>>;

#[derive(Debug)]
pub(crate) struct Sys {
    values: watch::Sender<Values>,
    started: Instant,
}

impl Default for Sys {
    fn default() -> Sys {
        Sys {
            values: watch::Sender::new(Arc::default()),
            started: Instant::now(),
        }
    }
}

/// Of counters that only grow: how many a minute, as an average over the last 1, 5 and 15 minutes.
struct Load {
    last: u64,
    averages: [f64; 3],
}

const MINUTES: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

impl Load {
    fn new(now: u64) -> Load {
        Load {
            last: now,
            averages: [0.0; 3],
        }
    }

    fn update(&mut self, now: u64, seconds: f64) {
        let per_minute = now.saturating_sub(self.last) as f64 * 60.0 / seconds.max(0.001);
        self.last = now;
        for (average, (_, window)) in self.averages.iter_mut().zip(MINUTES) {
            let weight = (-seconds / window).exp();
            *average = *average * weight + per_minute * (1.0 - weight);
        }
    }
}

fn message(topic: &str, value: String) -> Option<Arc<SharedMessage>> {
    let message = Message {
        topic: TopicName::new(topic).ok()?,
        payload: Bytes::from(value),
        qos: QoS::AtMostOnce,
        retain: true,
        expires_at: None,
        origin: None,
        number: None,
        properties: MessageProperties::default(),
    };
    Some(Arc::new(message.into()))
}

/// The counters that have a load: name below `$SYS/broker/load`, and their value.
fn loaded<B: Backend>(broker: &Broker<B>) -> [(&'static str, u64); 7] {
    let metrics = &broker.metrics;
    let sum = |counters: &[std::sync::atomic::AtomicU64; 3]| {
        counters.iter().map(|counter| counter.load(Relaxed)).sum()
    };
    [
        ("messages/received", metrics.packets_in.load(Relaxed)),
        ("messages/sent", metrics.packets_out.load(Relaxed)),
        ("publish/received", sum(&metrics.messages_in)),
        ("publish/sent", sum(&metrics.messages_out)),
        ("bytes/received", metrics.bytes_in.load(Relaxed)),
        ("bytes/sent", metrics.bytes_out.load(Relaxed)),
        ("connections", metrics.connections_total.load(Relaxed)),
    ]
}

impl Sys {
    pub fn subscribe(&self) -> watch::Receiver<Values> {
        self.values.subscribe()
    }

    /// What is known now and matches: for a new subscription, as retained messages.
    pub fn matching(&self, filter: &TopicFilter) -> Vec<Arc<SharedMessage>> {
        let values = self.values.borrow();
        let matching = values.iter().filter(|value| filter.matches(&value.topic));
        matching.cloned().collect()
    }

    fn update<B: Backend>(&self, broker: &Broker<B>, loads: &[(&str, Load)]) {
        let metrics = &broker.metrics;
        let connected = metrics.connections.load(Relaxed);
        let sessions = metrics.persistent_sessions.load(Relaxed);
        let (subscriptions, shared, here) = broker.clients.subscriptions();
        // Those of sessions whose client is away are not counted: they are on the disk.
        let away = sessions.saturating_sub(here);
        let loaded = loaded(broker);
        let value = |name: &str| {
            let found = loaded.iter().find(|(other, _)| *other == name);
            found.map_or(0, |(_, value)| *value)
        };
        let mut all = vec![
            message(
                "$SYS/broker/version",
                format!("towline version {}", env!("CARGO_PKG_VERSION")),
            ),
            message(
                "$SYS/broker/uptime",
                format!("{} seconds", self.started.elapsed().as_secs()),
            ),
        ];
        let mut number = |topic: &str, value: u64| {
            all.push(message(&format!("$SYS/broker/{topic}"), value.to_string()));
        };
        number("clients/connected", connected);
        number("clients/disconnected", away);
        number("clients/total", connected + away);
        number("messages/received", value("messages/received"));
        number("messages/sent", value("messages/sent"));
        number("publish/messages/received", value("publish/received"));
        number("publish/messages/sent", value("publish/sent"));
        let dropped = metrics.dropped.load(Relaxed) + metrics.unstored_dropped.load(Relaxed);
        number("publish/messages/dropped", dropped);
        number("bytes/received", value("bytes/received"));
        number("bytes/sent", value("bytes/sent"));
        number("subscriptions/count", subscriptions);
        number("shared_subscriptions/count", shared);
        if let Some(retained) = broker.backend.retained_count() {
            let unstored = broker.hub.unstored.retained.len() as u64;
            number("retained messages/count", retained + unstored);
        }
        for (name, load) in loads {
            for ((window, _), average) in MINUTES.iter().zip(load.averages) {
                let topic = format!("$SYS/broker/load/{name}/{window}");
                all.push(message(&topic, format!("{average:.2}")));
            }
        }
        let all: Vec<Arc<SharedMessage>> = all.into_iter().flatten().collect();
        self.values.send_replace(Arc::new(all));
    }
}

/// Until shutdown.
pub(crate) async fn run<B: Backend>(broker: Arc<Broker<B>>, every: Duration) {
    let mut ticks = interval(every.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut loads = loaded(&broker).map(|(name, value)| (name, Load::new(value)));
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = broker.shutdown.cancelled() => return,
            now = ticks.tick() => {
                let seconds = now.saturating_duration_since(last).as_secs_f64();
                last = now;
                for ((_, load), (_, value)) in loads.iter_mut().zip(loaded(&broker)) {
                    load.update(value, seconds);
                }
                broker.sys.update(&broker, &loads);
            }
        }
    }
}
