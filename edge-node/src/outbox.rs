//! Where in the store a message goes: which lane, under which stream and key, and what local readers see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_broker::backend::{ClientId, Message, Publish, PublishError};
use mqtt_broker::convert;
use record::NewRecord;
use settings::Size;
use store::{Lane, LaneConfig, LogId, NewMessage, PacketRef, Store, View};

use crate::clock::Clock;
use crate::lanes;
use crate::limits;
use crate::link::Link;
use crate::rules::{Forward, Output, Retain, Rules};

/// The logs of a lane of the configuration.
struct Logs {
    live: Lane,
    /// Of a fresh-first lane.
    backfill: Option<Lane>,
    /// The revival of the link that was seen last, and where the live log ended then: what is before that was live in another time,
    /// and is no reason to call new messages old.
    revival: AtomicU64,
    live_since: AtomicU64,
}

pub struct Outbox {
    pub store: Arc<Store>,
    rules: Arc<Rules>,
    lanes: Vec<Logs>,
    /// Of what only local readers get. `None`: there is no such thing under these rules.
    local: Option<Lane>,
    link: Arc<Link>,
    pub clock: Arc<Clock>,
}

/// The logs that the store is to have for these lanes and rules.
pub fn logs(lanes: &[lanes::Lane], rules: &Rules, session_backlog: Size) -> Vec<LaneConfig> {
    let mut logs = Vec::new();
    for lane in lanes {
        let live = LaneConfig {
            name: lane.name.clone(),
            max_bytes: lane.size,
            shares: None,
            max_age: lane.age,
            eviction: lane.evict.into(),
            compression: lane.compression.into(),
            linger: lane.linger,
        };
        if lane.fresh_first {
            logs.push(LaneConfig {
                name: format!("{}{}", lane.name, lanes::BACKFILL),
                shares: Some(lane.name.clone()),
                ..live.clone()
            });
        }
        logs.push(live);
    }
    if rules.need_local() {
        // It holds what sessions need, which has its own bound, and what was written since the last look. More than that is only there
        // when the ledger has failed.
        let max_bytes = session_backlog.bytes().saturating_mul(2);
        logs.push(LaneConfig {
            max_bytes: max_bytes.saturating_add(limits::LOCAL_ROOM),
            ..LaneConfig::new(store::LOCAL)
        });
    }
    logs
}

impl Outbox {
    /// The store has the logs that [`logs`] asked for.
    pub fn new(
        store: Arc<Store>,
        rules: Arc<Rules>,
        lanes: &[lanes::Lane],
        link: Arc<Link>,
        clock: Arc<Clock>,
    ) -> anyhow::Result<Outbox> {
        let log = |name: &str| {
            let found = store.lane(name);
            found.ok_or_else(|| anyhow::anyhow!("the store has no log {name}"))
        };
        let mut logs = Vec::new();
        for lane in lanes {
            let backfill = lane
                .fresh_first
                .then(|| format!("{}{}", lane.name, lanes::BACKFILL));
            logs.push(Logs {
                live: log(&lane.name)?,
                backfill: backfill.map(|name| log(&name)).transpose()?,
                revival: AtomicU64::new(0),
                live_since: AtomicU64::new(0),
            });
        }
        let local = rules.need_local().then(|| log(store::LOCAL)).transpose()?;
        Ok(Outbox {
            lanes: logs,
            local,
            store,
            rules,
            link,
            clock,
        })
    }

    pub fn local(&self) -> Option<Lane> {
        self.local
    }

    /// What is to be stored for a publish that comes now.
    pub fn message(
        &self,
        publish: &Publish,
        exactly_once: Option<(ClientId, mqtt_codec::PacketId)>,
    ) -> Result<NewMessage, PublishError> {
        let now = self.clock.stamp();
        let packet = exactly_once.map(|(client, packet_id)| PacketRef {
            client: client.as_str().to_owned(),
            packet_id: packet_id.get(),
        });
        let topic = &publish.message.topic;
        let forward = self
            .rules
            .forward(topic)
            .filter(|forward| !forward.is_reduced());
        let message = match (forward, self.local) {
            (Some(forward), _) => {
                let mut upstream = publish.clone();
                upstream.message.retain &= forward.retain == Retain::Keep;
                let record = convert::new_record(&upstream, now.ms);
                let view = (!forward.is_plain()).then(|| View::Key(topic.as_str().to_owned()));
                self.placed(forward, &publish.message, record, view)?
            }
            (None, Some(local)) => NewMessage {
                lane: local,
                stream: record::stream_for_topic(topic.as_str()),
                record: convert::new_record(publish, now.ms),
                retained: false,
                packet: None,
                blind: None,
                view: None,
                delayed: None,
            },
            // The rules that say so are those for which the log was made.
            (None, None) => {
                return Err(PublishError::Unavailable("there is no local log".into()));
            }
        };
        let mut message = NewMessage {
            retained: publish.message.retain,
            packet,
            blind: now.blind,
            ..message
        };
        if message.blind.is_some() {
            record::expire_after_timestamp(&mut message.record);
        }
        Ok(message)
    }

    /// What is to be stored for the core alone, `blind` the start that stamped it without knowing the time. `None`: the rules do not
    /// forward this topic any more.
    pub fn reduced(&self, output: Output, blind: Option<u64>) -> Option<NewMessage> {
        let Output { mut message, time } = output;
        let forward = self.rules.forward(&message.topic)?;
        message.retain &= forward.retain == Retain::Keep;
        message.origin = None;
        message.number = None;
        let publish = Publish {
            message,
            publisher: ClientId::new(""),
        };
        let mut record = convert::new_record(&publish, time);
        if blind.is_some() {
            record::expire_after_timestamp(&mut record);
        }
        let placed = self.placed(forward, &publish.message, record, Some(View::Hidden));
        placed.ok().map(|message| NewMessage { blind, ..message })
    }

    fn placed(
        &self,
        forward: &Forward,
        message: &Message,
        record: NewRecord,
        view: Option<View>,
    ) -> Result<NewMessage, PublishError> {
        let topic = &message.topic;
        let address = forward.address(topic).ok_or_else(|| {
            PublishError::TopicNameInvalid(format!("the rule for {topic} makes no topic of it"))
        })?;
        let record = NewRecord {
            key: Some(address.key.into_bytes().into()),
            ..record
        };
        Ok(NewMessage {
            lane: self.log_of(forward.lane),
            stream: address.stream,
            record,
            retained: false,
            packet: None,
            blind: None,
            view,
            delayed: None,
        })
    }

    fn log_of(&self, lane: usize) -> Lane {
        let Some(logs) = self.lanes.get(lane) else {
            return Lane::DEFAULT;
        };
        match logs.backfill {
            Some(backfill) if !self.link.carries() || self.fresh(logs) > limits::FRESH => backfill,
            _ => logs.live,
        }
    }

    /// Messages of a live log that were written since the link carries again and that the core has not got.
    fn fresh(&self, logs: &Logs) -> u64 {
        let end = self.store.end(LogId::Outbox(logs.live)).position;
        let revival = self.link.revivals();
        if logs.revival.swap(revival, Ordering::Relaxed) != revival {
            logs.live_since.store(end, Ordering::Relaxed);
        }
        let since = logs.live_since.load(Ordering::Relaxed);
        end.saturating_sub(self.store.uplink(logs.live).position.max(since))
    }
}
