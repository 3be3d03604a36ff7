//! One life of the process: devices publish, the core takes, and everything in between, in an order that chance decides.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rand::RngExt;
use record::{BatchBuilder, Header, NewRecord, StreamName};
use store::{
    Checkpoint, End, Eviction, From, Lane, LogId, NewMessage, Origin, OutboxRead, PacketRef,
    Session, Store,
};

use super::model::{self, Fate, Message, NAME, Packet};
use super::{ENOUGH, Edge};
use crate::tasks::Tasks;

/// The client that publishes with packet ids.
pub const CLIENT: &str = "client";
/// The one that reads commands.
pub const SESSION: &str = "session";
/// Kept as one of them, and before what is saved of that: as where a shared group is whose member it is.
pub const GROUP: &str = "\0group";
/// Bytes of the headers that the two logs of a bound may have beyond it.
const HEADERS: u64 = 1_000;
/// The core's stream of commands.
const COMMANDS: u64 = 9;

/// Why a life ends early.
#[derive(Debug)]
pub enum Stop {
    /// The power is off, or the disk failed.
    Over,
    Wrong(String),
}

/// How far the core is with a lane.
#[derive(Default)]
struct Uplink {
    cursor: End,
    /// What the core has and has not acknowledged.
    waiting: VecDeque<End>,
}

/// See the module.
pub struct Life {
    pub tasks: Tasks,
    pub store: Arc<Store>,
    uplinks: Vec<Uplink>,
    /// Where a local reader of each lane is.
    feeds: Vec<u64>,
    inbox: End,
    receiving: Rc<Cell<bool>>,
    saving: Rc<Cell<bool>>,
    connecting: Rc<Cell<bool>>,
}

impl Life {
    pub fn new(store: Arc<Store>) -> Life {
        Life {
            tasks: Tasks::default(),
            store,
            uplinks: Vec::new(),
            feeds: Vec::new(),
            inbox: End::default(),
            receiving: Rc::default(),
            saving: Rc::default(),
            connecting: Rc::default(),
        }
    }

    /// Everybody begins where the store says.
    pub fn begin(&mut self, lanes: usize) {
        self.feeds = (0..lanes)
            .map(|lane| self.store.oldest(model::log(lane)).number)
            .collect();
        self.inbox = self.store.end(LogId::Inbox);
        self.uplinks = (0..lanes).map(|_| Uplink::default()).collect();
        for lane in 0..lanes {
            self.reconnect(lane);
        }
    }

    /// The core asks where the lane goes on.
    fn reconnect(&mut self, lane: usize) {
        self.uplinks[lane] = Uplink {
            cursor: self.store.uplink(number(lane)),
            waiting: VecDeque::new(),
        };
    }
}

pub fn number(lane: usize) -> Lane {
    Lane(u8::try_from(lane).unwrap_or(u8::MAX))
}

pub fn stream(number: u8) -> StreamName {
    StreamName::new(&format!("s{number}")).expect("a valid name")
}

impl Edge {
    /// Until the power goes, or it is enough.
    pub fn work(&mut self, life: &mut Life) -> Result<(), Stop> {
        let steps = self.rng.random_range(0..=self.plan.steps);
        for _ in 0..steps {
            self.step(life)?;
            self.rest(life)?;
        }
        Ok(())
    }

    /// What follows every step: whoever was woken goes on, and local readers read.
    fn rest(&mut self, life: &mut Life) -> Result<(), Stop> {
        while life.tasks.poll_any(&mut self.rng).is_some() {}
        self.feed(life)?;
        self.check_bounds(life)?;
        let mut model = self.model.borrow_mut();
        if let Some(why) = model.wrong.take() {
            return Err(Stop::Wrong(why));
        }
        let failure = model.failure.take();
        if self.disk.is_off() {
            return Err(Stop::Over);
        }
        match failure {
            Some(why) if !self.faulty && !self.is_starved() => Err(Stop::Wrong(why)),
            _ if life.store.failed() && (self.faulty || self.is_starved()) => Err(Stop::Over),
            _ if life.store.failed() => Err(Stop::Wrong("the store failed".into())),
            _ => Ok(()),
        }
    }

    /// Two lanes that share a bound keep it together. Where the disk fails, what was to go may stay.
    fn check_bounds(&self, life: &Life) -> Result<(), Stop> {
        let mut lanes = self.plan.lanes.iter();
        let shares = lanes.find(|lane| lane.shares.is_some());
        let Some(shares) = shares.filter(|lane| lane.eviction == Eviction::Oldest) else {
            return Ok(());
        };
        let stats = life.store.lane_stats();
        let both = || stats.iter().take(2).map(|(_, lane)| lane);
        let bytes: u64 = both().map(|lane| lane.disk_bytes).sum();
        // Segments that were removed just before the power cut may be there again, until something is written.
        let has_written = both().any(|lane| lane.messages_in > 0);
        let is_exact = !self.plan.faults && !self.plan.full && !self.plan.damage;
        if is_exact && has_written && bytes > shares.max_bytes + HEADERS {
            return Err(Stop::Wrong(format!(
                "{bytes} bytes of two lanes that may have {}",
                shares.max_bytes
            )));
        }
        Ok(())
    }

    fn step(&mut self, life: &mut Life) -> Result<(), Stop> {
        let lane = self.rng.random_range(0..self.plan.lanes.len());
        match self.rng.random_range(0..100) {
            0..2 => self.delay(life),
            2..5 => self.publish_delayed(life, lane).map_err(Stop::Wrong)?,
            5..35 => self.publish(life, lane),
            35..65 => {
                let writers = life.store.writers().len();
                life.store.step(self.rng.random_range(0..writers));
            }
            65..80 if self.rng.random_bool(self.plan.drains) => {
                self.drain(life, lane)?;
            }
            80..88 => self.acknowledge(life, lane),
            88 => life.reconnect(lane),
            89 => {
                let store = life.store.clone();
                life.tasks.spawn("checkpoint", async move {
                    let _ = store.checkpoint().await;
                });
            }
            90 => {
                let (store, now) = (life.store.clone(), self.now);
                life.tasks.spawn("expire", async move {
                    let _ = store.expire(now).await;
                });
            }
            91 | 92 => self.command(life),
            93 => self.count(life, lane),
            94 => self.save_session(life),
            95 | 96 => self.release(life),
            97 => {
                let boot = self.model.borrow().starts.len() as u64;
                let (store, add) = (life.store.clone(), self.rng.random_range(0..1000));
                life.tasks.spawn("boot", async move {
                    let _ = store.set_boot_offset(boot, add).await;
                });
            }
            98 if self.plan.full => {
                // Nobody else takes the room of a reserve that was given up.
                let least = if self.has_reserve() { 0 } else { ENOUGH };
                let room = least + self.rng.random_range(0..4_000);
                let full = self.rng.random_bool(0.5);
                self.disk.limit(full.then(|| self.disk.used() + room));
            }
            99 if self.plan.enrols && self.rng.random_bool(0.1) => self.enrol(life)?,
            _ => {}
        }
        Ok(())
    }

    fn publish(&mut self, life: &mut Life, lane: usize) {
        self.now += self.rng.random_range(0..20);
        self.named += 1;
        let name = self.named;
        let waited = !self.rng.random_bool(self.plan.unacknowledged);
        let retained = self.rng.random_bool(0.1);
        let clears = retained && self.rng.random_bool(0.3);
        let poison = self.rng.random_bool(self.plan.poison);
        let size = if clears {
            0
        } else {
            self.rng.random_range(1..=self.plan.value)
        };
        let key = if retained {
            format!("r{lane}")
        } else {
            "k".into()
        };
        let mut model = self.model.borrow_mut();
        let packet = match self.rng.random_range(0..20_u16) {
            id @ 1..=3 if waited => Some(id),
            _ => None,
        };
        if packet.is_some() && !model.connected {
            self.connect(life);
        }
        let packet = packet.filter(|_| model.connected);
        let packet = packet.filter(|id| {
            let known = model.packets.entry(*id).or_insert(Packet::Free);
            let is_free = *known == Packet::Free;
            if is_free {
                *known = Packet::Unknown;
            }
            is_free
        });
        let fate = Fate::Unknown;
        if retained {
            let set = model.retained.entry(key.clone()).or_default();
            set.push((name, clears, fate));
        }
        let message = Message {
            lane,
            fate,
            at: None,
            poison,
        };
        model.messages.insert(name, message);
        let message = NewMessage {
            lane: number(lane),
            // Retained messages of a key come from one stream, in their order.
            stream: stream(if retained {
                0
            } else {
                self.rng.random_range(0..self.plan.streams)
            }),
            record: NewRecord {
                timestamp: self.now,
                key: Some(key.into()),
                value: Some(vec![b'x'; size].into()),
                headers: vec![Header {
                    name: NAME.into(),
                    value: Some(name.to_string().into()),
                }],
            },
            retained,
            packet: packet.map(|packet_id| PacketRef {
                client: CLIENT.into(),
                packet_id,
            }),
            blind: (self.plan.blind && self.rng.random_bool(0.5))
                .then_some(model.starts.len() as u64),
            view: None,
            delayed: None,
        };
        drop(model);
        let (store, model) = (life.store.clone(), self.model.clone());
        let task = life.tasks.spawn("publish", async move {
            let answer = if waited {
                store.publish(message).await
            } else {
                store.publish_unacknowledged(message).await
            };
            let mut model = model.borrow_mut();
            model.answered(name, waited, &answer);
            let fate = model.messages.get(&name).map(|message| message.fate);
            if let Some(known) = packet.and_then(|id| model.packets.get_mut(&id)) {
                *known = match fate {
                    Some(Fate::Stored) => Packet::Held,
                    Some(Fate::Refused | Fate::Dropped) => Packet::Free,
                    _ => Packet::Unknown,
                };
            }
        });
        life.tasks.poll(task);
    }

    /// The client has a session before it has packet ids: a start forgets those of nobody.
    fn connect(&self, life: &mut Life) {
        if life.connecting.replace(true) {
            return;
        }
        let session = Session {
            epoch: 1,
            checkpoints: Vec::new(),
            bytes: Bytes::from_static(b"c"),
        };
        let (store, model) = (life.store.clone(), self.model.clone());
        let connecting = life.connecting.clone();
        life.tasks.spawn("connect", async move {
            if store.save_session(CLIENT, session).await.is_ok() {
                model.borrow_mut().connected = true;
            }
            connecting.set(false);
        });
    }

    fn release(&mut self, life: &mut Life) {
        let mut model = self.model.borrow_mut();
        let mut held = model.packets.iter_mut();
        let Some((id, packet)) = held.find(|(_, packet)| **packet == Packet::Held) else {
            return;
        };
        *packet = Packet::Unknown;
        let packet_id = *id;
        drop(model);
        let (store, model) = (life.store.clone(), self.model.clone());
        life.tasks.spawn("release", async move {
            let client = CLIENT.into();
            if store.release(PacketRef { client, packet_id }).await.is_ok() {
                model.borrow_mut().packets.insert(packet_id, Packet::Free);
            }
        });
    }

    /// The core sends a command, or one that it has sent before.
    fn command(&mut self, life: &mut Life) {
        if life.receiving.replace(true) {
            return;
        }
        let next = self.model.borrow().commands;
        let at = if self.rng.random_bool(0.3) {
            next.saturating_sub(self.rng.random_range(0..3))
        } else {
            next
        };
        let mut builder = BatchBuilder::new();
        let record = NewRecord {
            timestamp: self.now,
            key: None,
            value: Some(at.to_string().into()),
            headers: Vec::new(),
        };
        builder.push(&record).expect("a small record");
        let batch = builder.build().expect("a batch with a record");
        let origin = Origin {
            stream: COMMANDS,
            partition: 0,
            next: i64::try_from(at).unwrap_or(0) + 1,
        };
        let (store, model, receiving) = (
            life.store.clone(),
            self.model.clone(),
            life.receiving.clone(),
        );
        life.tasks.spawn("command", async move {
            if store
                .receive(stream(0), batch, origin, Vec::new())
                .await
                .is_ok()
            {
                let mut model = model.borrow_mut();
                model.commands = model.commands.max(at + 1);
            }
            receiving.set(false);
        });
    }

    /// The session has read the commands up to here.
    fn save_session(&mut self, life: &mut Life) {
        if life.saving.replace(true) {
            return;
        }
        let position = life.inbox.position;
        let session = Session {
            epoch: 1,
            checkpoints: vec![Checkpoint {
                log: LogId::Inbox,
                position,
            }],
            bytes: Bytes::from_static(b"s"),
        };
        let group = position.max(self.model.borrow().group);
        self.model.borrow_mut().group = group;
        let mut noted = session.clone();
        noted.checkpoints[0].position = group;
        if life.store.note_session(GROUP, Some(noted)).is_err() || self.rng.random_bool(0.3) {
            life.saving.set(false);
            return;
        }
        self.model.borrow_mut().session.push(Some(position));
        let (store, model, saving) = (life.store.clone(), self.model.clone(), life.saving.clone());
        life.tasks.spawn("session", async move {
            if store.save_session(SESSION, session).await.is_ok() {
                model.borrow_mut().session = vec![Some(position)];
            }
            saving.set(false);
        });
    }

    /// The edge was fenced, and is enrolled again.
    fn enrol(&mut self, life: &mut Life) -> Result<(), Stop> {
        let fresh = life.store.fresh_identity(self.rng.random());
        let producer = life.store.producer();
        let mut model = self.model.borrow_mut();
        if !model.starts.contains(&producer) {
            model.starts.push(producer);
        }
        for lane in 0..self.plan.lanes.len() {
            life.reconnect(lane);
        }
        match fresh {
            Ok(_) => Ok(()),
            Err(_) if self.disk.is_off() || self.faulty || self.plan.full => Ok(()),
            Err(error) => Err(Stop::Wrong(format!("no fresh identity: {error}"))),
        }
    }

    /// Local readers read what there is.
    fn feed(&mut self, life: &mut Life) -> Result<(), Stop> {
        for lane in 0..life.feeds.len() {
            loop {
                let read = life
                    .store
                    .read(model::log(lane), From::Number(life.feeds[lane]), 4_000);
                let read = match self.runtime.block_on(read) {
                    Ok(read) => read,
                    Err(error) => {
                        self.excuse(&error.to_string())?;
                        break;
                    }
                };
                if read.frames.is_empty() {
                    break;
                }
                life.feeds[lane] = read.next.number;
                for frame in &read.frames {
                    let mut model = self.model.borrow_mut();
                    model.see(lane, frame).map_err(Stop::Wrong)?;
                }
            }
        }
        life.inbox = life.store.end(LogId::Inbox);
        Ok(())
    }

    /// An error of the disk where there may be one.
    fn excuse(&self, error: &str) -> Result<(), Stop> {
        if self.disk.is_off() || self.faulty || self.is_starved() {
            return Ok(());
        }
        Err(Stop::Wrong(format!("it can not be read: {error}")))
    }

    /// The core takes something of a lane. False: there is nothing.
    fn drain(&mut self, life: &mut Life, lane: usize) -> Result<bool, Stop> {
        let from = life.uplinks[lane].cursor;
        let most = self.rng.random_range(1..4_000);
        let read = life.store.read_outbox(number(lane), from, most);
        let OutboxRead { gap, frames, next } = match self.runtime.block_on(read) {
            Ok(read) => read,
            Err(error) => {
                self.excuse(&error.to_string())?;
                return Ok(false);
            }
        };
        if gap.is_none() && frames.is_empty() {
            return Ok(false);
        }
        if next.number <= from.number {
            return Err(Stop::Wrong(format!(
                "reading lane {lane} does not go on from {from:?}"
            )));
        }
        let mut model = self.model.borrow_mut();
        if let Some(gap) = &gap {
            model.check_gap(lane, gap).map_err(Stop::Wrong)?;
            model.lanes[lane].core.hear(gap);
            self.trace.note(format_args!(
                "lane {lane}: gap {} to {} ({}, {})",
                gap.first,
                gap.next.number,
                gap.reason.as_str(),
                gap.records
            ));
        }
        for frame in &frames {
            let names = model.see(lane, frame).map_err(Stop::Wrong)?;
            let is_poison = |name| model.messages.get(name).is_some_and(|m| m.poison);
            if names.iter().any(is_poison) {
                drop(model);
                let at = End {
                    number: frame.number,
                    position: frame.position,
                };
                self.trace
                    .note(format_args!("lane {lane}: the core refuses {}", at.number));
                life.uplinks[lane].cursor = at;
                if let Err(error) = life.store.quarantine(frame)
                    && !self.plan.full
                {
                    self.excuse(&error.to_string())?;
                }
                return Ok(true);
            }
            let taken = model.lanes[lane].core.take(frame, &names);
            taken.map_err(Stop::Wrong)?;
        }
        self.trace.note(format_args!(
            "lane {lane}: the core has {} to {}",
            from.number, next.number
        ));
        life.uplinks[lane].cursor = next;
        life.uplinks[lane].waiting.push_back(next);
        Ok(true)
    }

    /// The edge hears that the core has something.
    fn acknowledge(&mut self, life: &mut Life, lane: usize) {
        let waiting = &mut life.uplinks[lane].waiting;
        let many = self.rng.random_range(0..=waiting.len());
        let last = waiting.drain(..many).next_back();
        if let Some(end) = last {
            self.trace
                .note(format_args!("lane {lane}: acknowledged to {}", end.number));
            life.store.advance_uplink(number(lane), end);
        }
    }

    /// Has the messages counted that a lane has dropped, as soon as there are any.
    pub fn count(&mut self, life: &mut Life, lane: usize) {
        let store = life.store.clone();
        let task = life.tasks.spawn("count", async move {
            let _ = store.count_dropped(number(lane)).await;
        });
        life.tasks.poll(task);
    }

    /// The core takes all there is of a lane, and says so.
    pub fn drain_all(&mut self, life: &mut Life, lane: usize) -> Result<(), Stop> {
        while self.drain(life, lane)? {
            if let Some(end) = life.uplinks[lane].waiting.drain(..).next_back() {
                life.store.advance_uplink(number(lane), end);
            }
        }
        let store = life.store.clone();
        let task = life.tasks.spawn("checkpoint", async move {
            let _ = store.checkpoint().await;
        });
        self.settle(life, task)
    }

    /// The store takes a message.
    pub fn must_take(&mut self, life: &mut Life, lane: usize) -> Result<(), String> {
        let before = self.named;
        self.publish(life, lane);
        self.settle(life, 0).map_err(|stop| format!("{stop:?}"))?;
        let model = self.model.borrow();
        let fate = model
            .messages
            .get(&(before + 1))
            .map(|message| message.fate);
        if fate == Some(Fate::Stored) {
            return Ok(());
        }
        Err(format!("lane {lane} takes nothing: {fate:?}"))
    }

    /// Everybody gets on until nothing is left to do.
    pub fn settle(&mut self, life: &mut Life, task: u64) -> Result<(), Stop> {
        for _ in 0..1000 {
            let writers = life.store.writers().len();
            let worked = (0..writers)
                .filter(|writer| life.store.step(*writer))
                .count();
            self.rest(life)?;
            if worked == 0 && !life.tasks.is_running(task) {
                return Ok(());
            }
        }
        Err(Stop::Wrong("it never ends".into()))
    }
}
