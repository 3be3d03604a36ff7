//! Messages that wait in the store for their time, and are published once.

use rand::RngExt;
use record::{Header, NewRecord};
use store::{NewDelayed, NewMessage, Store, WriteError};

use super::Edge;
use super::life::{Life, number, stream};
use super::model::{Fate, Message, Model, NAME};

/// One that waits, or has.
#[derive(Debug, Default)]
pub struct Delayed {
    /// It was acknowledged.
    kept: bool,
    refused: bool,
    /// The messages as which it was published, by their names. One that was refused is followed by another.
    tries: Vec<u64>,
    /// The last of them was not answered.
    flying: bool,
}

fn waiting(store: &Store) -> Result<Vec<(store::DelayedKey, u64)>, String> {
    let due = store.delayed_due(i64::MAX, usize::MAX);
    let due = due.map_err(|error| error.to_string())?;
    let named = due.messages.into_iter().map(|message| {
        let name = message
            .value
            .first_chunk()
            .ok_or("one that nobody delayed")?;
        Ok((message.key, u64::from_be_bytes(*name)))
    });
    named.collect()
}

impl Edge {
    /// A device publishes something for later.
    pub fn delay(&mut self, life: &mut Life) {
        self.named += 1;
        let name = self.named;
        let mut value = name.to_be_bytes().to_vec();
        value.resize(8 + self.rng.random_range(0..self.plan.value), b'x');
        let message = NewDelayed {
            due_ms: self.now + self.rng.random_range(0..100),
            blind: None,
            value,
            packet: None,
        };
        let delayed = Delayed::default();
        self.model.borrow_mut().delayed.insert(name, delayed);
        let (store, model) = (life.store.clone(), self.model.clone());
        let task = life.tasks.spawn("delay", async move {
            let answer = store.delay(message).await;
            let mut model = model.borrow_mut();
            match answer {
                Err(error @ (WriteError::Failed(_) | WriteError::Closed)) => {
                    model.failure = Some(error.to_string());
                }
                answer => {
                    if let Some(delayed) = model.delayed.get_mut(&name) {
                        delayed.kept = answer.is_ok();
                        delayed.refused = answer.is_err();
                    }
                }
            }
        });
        life.tasks.poll(task);
    }

    /// One of them is published.
    pub fn publish_delayed(&mut self, life: &mut Life, lane: usize) -> Result<(), String> {
        let waiting = waiting(&life.store)?;
        if waiting.is_empty() {
            return Ok(());
        }
        let (key, name) = waiting[self.rng.random_range(0..waiting.len())];
        self.named += 1;
        let published = self.named;
        let mut model = self.model.borrow_mut();
        let delayed = model.delayed.get_mut(&name);
        let delayed = delayed.ok_or("one waits that nobody delayed")?;
        if delayed.flying {
            return Ok(());
        }
        delayed.flying = true;
        delayed.tries.push(published);
        let message = Message {
            lane,
            fate: Fate::Unknown,
            at: None,
            poison: false,
        };
        model.messages.insert(published, message);
        drop(model);
        let message = NewMessage {
            lane: number(lane),
            stream: stream(self.rng.random_range(0..self.plan.streams)),
            record: NewRecord {
                timestamp: self.now,
                key: Some("k".into()),
                value: Some("delayed".into()),
                headers: vec![Header {
                    name: NAME.into(),
                    value: Some(published.to_string().into()),
                }],
            },
            retained: false,
            packet: None,
            blind: None,
            view: None,
            delayed: Some(key),
        };
        let (store, model) = (life.store.clone(), self.model.clone());
        let task = life.tasks.spawn("publish delayed", async move {
            let answer = store.publish(message).await;
            model.borrow_mut().answered(published, true, &answer);
            match answer {
                Ok(()) => store.delayed_published(key),
                Err(WriteError::Dropped(_)) if store.forget_delayed(key).await.is_err() => return,
                // Nobody knows.
                Err(WriteError::Failed(_) | WriteError::Closed) => return,
                Err(_) => {}
            }
            if let Some(delayed) = model.borrow_mut().delayed.get_mut(&name) {
                delayed.flying = false;
            }
        });
        life.tasks.poll(task);
        Ok(())
    }
}

impl Model {
    /// Compares what waits in a store that was opened, after its messages were looked at.
    pub fn check_delayed(&mut self, store: &Store) -> Result<(), String> {
        let unseen = self.have_unseen(&store.gaps());
        let found: Vec<u64> = waiting(store)?.into_iter().map(|(_, name)| name).collect();
        let unknown = found.iter().find(|name| !self.delayed.contains_key(name));
        if let Some(name) = unknown {
            return Err(format!("message {name} waits, and nobody delayed it"));
        }
        for (name, delayed) in &mut self.delayed {
            let waits = found.contains(name);
            let tries = delayed
                .tries
                .iter()
                .filter_map(|name| self.messages.get(name));
            let stored = |one: &&Message| matches!(one.fate, Fate::Stored | Fate::Evicted);
            let stored = tries.clone().filter(stored).count();
            let dropped = tries.clone().any(|one| one.fate == Fate::Dropped);
            // Published, and gone from its lane for room, before anybody was answered or had read it.
            let last = tries.clone().next_back().filter(|_| delayed.flying);
            let evicted = last.is_some_and(|one| one.fate == Fate::Gone && unseen[one.lane]);
            // What only the ledger or only the segments have may be gone.
            let excused = self.ledger_lost || tries.clone().any(|one| self.lanes[one.lane].damaged);
            delayed.flying = false;
            if excused {
                delayed.kept &= waits;
                continue;
            }
            if stored > 1 {
                return Err(format!(
                    "delayed message {name} was published {stored} times"
                ));
            }
            if waits && (stored > 0 || delayed.refused) {
                return Err(format!(
                    "delayed message {name} was published or refused, and waits: {delayed:?}"
                ));
            }
            if !waits && delayed.kept && stored == 0 && !dropped && !evicted {
                return Err(format!("delayed message {name} is lost: {delayed:?}"));
            }
            // One that was not acknowledged may be there, or never comes.
            delayed.kept = waits || delayed.kept && !evicted;
            delayed.refused |= !delayed.kept;
        }
        Ok(())
    }
}
