//! Messages that wait for their time: rows of the ledger. Memory has only when each is due.
//!
//! When one is published, its frame carries its key, and what the frame means for the ledger is that the row goes: so it is published once,
//! whenever the power goes.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::boots::Boots;
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::limits;
use crate::wire::{Reader, Short};

/// Names a message that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelayedKey {
    /// By the clock that it was stored by.
    pub(crate) due_ms: i64,
    /// Tells those of one moment apart.
    pub(crate) number: u64,
}

/// A message whose time has come.
#[derive(Debug, Clone)]
pub struct Delayed {
    pub key: DelayedKey,
    /// What the clock of its start was off by: to be added to every time in it.
    pub add_ms: i64,
    /// As it was given.
    pub value: Bytes,
}

impl Delayed {
    /// When it was due, by the clock as it is now.
    pub fn due_ms(&self) -> i64 {
        self.key.due_ms.saturating_add(self.add_ms)
    }
}

/// Those that are due, and when the next one is.
#[derive(Debug, Clone, Default)]
pub struct DelayedDue {
    pub messages: Vec<Delayed>,
    pub next_ms: Option<i64>,
}

const VERSION: u8 = 1;
/// Before the value: version and boot.
const HEAD: usize = 9;

impl DelayedKey {
    pub(crate) const LEN: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; DelayedKey::LEN] {
        let mut bytes = [0; DelayedKey::LEN];
        bytes[..8].copy_from_slice(&self.due_ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    pub(crate) fn read(r: &mut Reader) -> Result<DelayedKey, Short> {
        Ok(DelayedKey {
            due_ms: r.get_i64()?,
            number: r.get_u64()?,
        })
    }

    /// The change that takes the message away.
    pub(crate) fn delete(self) -> Change {
        Change::Delete {
            table: Table::Delayed,
            key: self.to_bytes().to_vec(),
        }
    }
}

struct Row {
    /// The start that stored it without knowing the time; 0 = it did.
    boot: u64,
    cost: u64,
    /// When it is published, as far as is known, or tried again.
    at: i64,
}

#[derive(Default)]
struct Rows {
    by_key: HashMap<DelayedKey, Row>,
    order: BTreeSet<(i64, DelayedKey)>,
    cost: u64,
    next_number: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct DelayedMessages {
    rows: Mutex<Rows>,
    pub changed: Notify,
}

/// The boot in a row, and what was given.
fn decode(value: Bytes) -> Result<(u64, Bytes), Short> {
    let mut r = Reader(value);
    if r.get_u8()? != VERSION {
        return Err(Short);
    }
    Ok((r.get_u64()?, r.0))
}

fn add_ms(boots: &Boots, boot: u64) -> i64 {
    boots.of(boot).unwrap_or(0)
}

impl Rows {
    fn insert(&mut self, key: DelayedKey, row: Row) {
        self.next_number = self.next_number.max(key.number.saturating_add(1));
        self.cost += row.cost;
        self.order.insert((row.at, key));
        self.by_key.insert(key, row);
    }

    fn remove(&mut self, key: DelayedKey) {
        if let Some(row) = self.by_key.remove(&key) {
            self.order.remove(&(row.at, key));
            self.cost -= row.cost;
        }
    }

    fn move_to(&mut self, key: DelayedKey, at: i64) {
        if let Some(row) = self.by_key.get_mut(&key) {
            self.order.remove(&(row.at, key));
            self.order.insert((at, key));
            row.at = at;
        }
    }
}

fn cost(value: usize) -> u64 {
    (value + HEAD + DelayedKey::LEN) as u64
}

impl DelayedMessages {
    pub fn load(ledger: &dyn Ledger, boots: &Boots) -> Result<DelayedMessages, LedgerError> {
        let mut rows = Rows::default();
        ledger.scan(Table::Delayed, b"", &mut |key, value| {
            let stored = DelayedKey::read(&mut Reader(Bytes::copy_from_slice(key)));
            let stored = stored.and_then(|key| Ok((key, decode(value)?)));
            let Ok((key, (boot, value))) = stored else {
                tracing::error!(
                    "a message that waits for its time can not be read and is left out"
                );
                return true;
            };
            let at = key.due_ms.saturating_add(add_ms(boots, boot));
            let cost = cost(value.len());
            rows.insert(key, Row { boot, cost, at });
            true
        })?;
        Ok(DelayedMessages {
            rows: Mutex::new(rows),
            changed: Notify::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.rows.lock().by_key.len()
    }

    /// Would it be more than may wait?
    pub fn has_room(&self, bytes: usize) -> bool {
        self.rows.lock().cost + cost(bytes) <= limits::MAX_DELAYED
    }

    /// Adds one by what `apply` does with its row. Durable after the ledger's next flush.
    pub fn add<E>(
        &self,
        boots: &Boots,
        due_ms: i64,
        boot: Option<u64>,
        value: &[u8],
        apply: impl FnOnce(Change) -> Result<(), E>,
    ) -> Result<(), E> {
        let boot = boot.unwrap_or(0);
        let mut rows = self.rows.lock();
        let key = DelayedKey {
            due_ms,
            number: rows.next_number,
        };
        apply(Change::Put {
            table: Table::Delayed,
            key: key.to_bytes().to_vec(),
            value: [&[VERSION][..], &boot.to_be_bytes(), value].concat(),
        })?;
        let cost = cost(value.len());
        let at = due_ms.saturating_add(add_ms(boots, boot));
        rows.insert(key, Row { boot, cost, at });
        drop(rows);
        self.changed.notify_one();
        Ok(())
    }

    /// The first ones, in the order of their times.
    pub fn due(
        &self,
        ledger: &dyn Ledger,
        boots: &Boots,
        now_ms: i64,
        most: usize,
    ) -> Result<DelayedDue, LedgerError> {
        let mut due = DelayedDue::default();
        let mut keys = Vec::new();
        {
            let rows = self.rows.lock();
            let mut cost = 0;
            for (at, key) in &rows.order {
                let Some(row) = rows.by_key.get(key) else {
                    continue;
                };
                if *at > now_ms {
                    due.next_ms = Some(*at);
                    break;
                }
                cost += row.cost;
                if keys.len() == most || !keys.is_empty() && cost > limits::DELAYED_READ {
                    break;
                }
                keys.push(*key);
            }
        }
        for key in keys {
            let value = ledger.get(Table::Delayed, &key.to_bytes())?;
            let Some(Ok((boot, value))) = value.map(decode) else {
                // It was published while the row still counted.
                self.remove(key);
                continue;
            };
            let add_ms = add_ms(boots, boot);
            due.messages.push(Delayed { key, add_ms, value });
        }
        Ok(due)
    }

    /// Its row is gone, or goes.
    pub fn remove(&self, key: DelayedKey) {
        self.rows.lock().remove(key);
    }

    /// It is due later.
    pub fn put_off(&self, key: DelayedKey, at_ms: i64) {
        self.rows.lock().move_to(key, at_ms);
    }

    /// It is known what the clock of a start was off by.
    pub fn clock_was_set(&self, boot: u64, add_ms: i64) {
        if boot == 0 {
            return;
        }
        let mut rows = self.rows.lock();
        let of_boot = rows.by_key.iter().filter(|(_, row)| row.boot == boot);
        let keys: Vec<_> = of_boot.map(|(key, _)| *key).collect();
        for key in keys {
            rows.move_to(key, key.due_ms.saturating_add(add_ms));
        }
    }
}
