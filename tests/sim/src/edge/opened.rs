//! What a store that was just opened is compared with.

use std::collections::{BTreeMap, BTreeSet};

use store::{From, LogId, Store};

use super::Edge;
use super::life::{CLIENT, GROUP, Life, SESSION, Stop};
use super::model::{self, NAME};

impl Edge {
    /// Reads everything and compares it.
    pub fn look(&mut self, life: &Life) -> Result<(), Stop> {
        let store = &life.store;
        let mut model = self.model.borrow_mut();
        let producer = store.producer();
        let same =
            |start: &&store::Producer| (start.id, start.epoch) == (producer.id, producer.epoch);
        if model.starts.iter().find(same).is_some() {
            return Err(Stop::Wrong(format!("{producer:?} was used before")));
        }
        model.starts.push(producer);

        let mut read = Vec::new();
        for lane in 0..self.plan.lanes.len() {
            let log = model::log(lane);
            let mut found = BTreeSet::new();
            let mut newest = BTreeMap::new();
            let mut from = store.oldest(log).number;
            loop {
                let frames = self
                    .runtime
                    .block_on(store.read(log, From::Number(from), 2_000));
                let frames = frames
                    .map_err(|error| Stop::Wrong(format!("a log can not be read: {error}")))?;
                if frames.frames.is_empty() {
                    break;
                }
                from = frames.next.number;
                for frame in &frames.frames {
                    for name in model.see(lane, frame).map_err(Stop::Wrong)? {
                        let before = newest.insert(frame.stream.clone(), name);
                        if before.is_some_and(|before| before >= name) {
                            return Err(Stop::Wrong(format!("message {name} is not in its place")));
                        }
                        found.insert(name);
                    }
                }
            }
            read.push(found);
        }
        model
            .check_opened(&read, &store.gaps())
            .map_err(Stop::Wrong)?;
        model.check_delayed(store).map_err(Stop::Wrong)?;
        let (retained, packets) = (retained(store)?, store.unreleased(CLIENT));
        model.check_retained(&retained).map_err(Stop::Wrong)?;
        let packets = packets.map_err(|error| Stop::Wrong(error.to_string()))?;
        model.check_packets(&packets).map_err(Stop::Wrong)?;

        let session = |name: &str| {
            let session = store.load_session(name);
            session.map_err(|error| Stop::Wrong(error.to_string()))
        };
        let is_there = session(CLIENT)?.is_some();
        if model.connected && !is_there && !model.ledger_lost {
            return Err(Stop::Wrong("the session of the client is gone".into()));
        }
        model.connected = is_there;
        let saved = |name: &str| -> Result<Option<u64>, Stop> {
            Ok(session(name)?.and_then(|session| Some(session.checkpoints.first()?.position)))
        };
        let (at, group) = (saved(SESSION)?, saved(GROUP)?);
        if !model.session.contains(&at) && !model.ledger_lost {
            let may = &model.session;
            return Err(Stop::Wrong(format!(
                "the session is at {at:?}, it should be at {may:?}"
            )));
        }
        if (group < at || group > Some(model.group)) && !model.ledger_lost {
            let may = model.group;
            return Err(Stop::Wrong(format!(
                "the group is at {group:?}, it should be at {at:?} to {may}"
            )));
        }
        model.session = vec![at];
        drop(model);
        self.look_at_commands(life, at.or(group))
    }

    /// Commands are there once, in order, from where the session is.
    fn look_at_commands(&mut self, life: &Life, session: Option<u64>) -> Result<(), Stop> {
        let store = &life.store;
        let mut commands = Vec::new();
        let mut from = store.oldest(LogId::Inbox).number;
        loop {
            let frames = store.read(LogId::Inbox, From::Number(from), 2_000);
            let frames = self.runtime.block_on(frames);
            let frames = frames
                .map_err(|error| Stop::Wrong(format!("the inbox can not be read: {error}")))?;
            if frames.frames.is_empty() {
                break;
            }
            from = frames.next.number;
            for frame in &frames.frames {
                let origin = frame
                    .origin
                    .ok_or_else(|| Stop::Wrong("a command of nobody".into()))?;
                commands.push(u64::try_from(origin.next).unwrap_or(0) - 1);
            }
        }
        let mut model = self.model.borrow_mut();
        if model.ledger_lost {
            return Ok(());
        }
        if commands.windows(2).any(|pair| pair[0] + 1 != pair[1]) {
            return Err(Stop::Wrong(format!("the commands are {commands:?}")));
        }
        let next = commands.last().map(|last| last + 1);
        let next = next.unwrap_or(model.commands);
        let first = commands.first().copied().unwrap_or(next);
        if next < model.commands || session.is_some_and(|session| session < first) {
            let acknowledged = model.commands;
            return Err(Stop::Wrong(format!(
                "commands {first} to {next} are there; {acknowledged} were acknowledged, the session is at {session:?}"
            )));
        }
        // One more may be there that was not acknowledged.
        model.commands = next;
        Ok(())
    }
}

fn retained(store: &Store) -> Result<BTreeMap<String, u64>, Stop> {
    let mut found = BTreeMap::new();
    let visited = store.retained("", &mut |retained| {
        let headers = retained.record.headers.iter();
        let mut named = headers.filter(|header| header.name == NAME);
        let value = named.next().and_then(|header| header.value.clone());
        let name = value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
        found.insert(retained.key, name.unwrap_or(0));
        true
    });
    visited.map_err(|error| Stop::Wrong(error.to_string()))?;
    Ok(found)
}
