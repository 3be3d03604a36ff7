//! Persistent sessions in the ledger, and what they hold back in the logs.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::frame::Lane;
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::log::LogId;
use crate::wire::{Reader, Short};

/// A session reads this log again from this position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub log: LogId,
    pub position: u64,
}

/// A session as it is kept. `bytes` belongs to the broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    pub epoch: u64,
    pub checkpoints: Vec<Checkpoint>,
    pub bytes: Bytes,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    #[error(
        "the session was taken over by a newer connection (epoch {stored}, this one has {given})"
    )]
    TakenOver { stored: u64, given: u64 },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

#[derive(Debug, Default, Clone)]
struct Hold {
    epoch: Option<u64>,
    saved: Vec<Checkpoint>,
    /// While connected: counts instead of `saved`.
    live: Vec<Checkpoint>,
}

impl Hold {
    fn position(&self, log: LogId) -> Option<u64> {
        let in_force = if self.live.is_empty() {
            &self.saved
        } else {
            &self.live
        };
        in_force
            .iter()
            .filter(|checkpoint| checkpoint.log == log)
            .map(|checkpoint| checkpoint.position)
            .min()
    }
}

#[derive(Default)]
pub(crate) struct Sessions {
    holds: Mutex<HashMap<String, Hold>>,
}

const SESSION_VERSION: u8 = 2;

fn encode(session: &Session) -> Vec<u8> {
    let mut out = vec![SESSION_VERSION];
    out.extend_from_slice(&session.epoch.to_be_bytes());
    out.extend_from_slice(&(session.checkpoints.len() as u32).to_be_bytes());
    for checkpoint in &session.checkpoints {
        out.push(checkpoint.log.kind());
        out.push(match checkpoint.log {
            LogId::Outbox(lane) => lane.0,
            LogId::Inbox => 0,
        });
        out.extend_from_slice(&checkpoint.position.to_be_bytes());
    }
    out.extend_from_slice(&session.bytes);
    out
}

fn decode(value: Bytes) -> Result<Session, Short> {
    let mut r = Reader(value);
    if r.get_u8()? != SESSION_VERSION {
        return Err(Short);
    }
    let epoch = r.get_u64()?;
    let mut checkpoints = Vec::new();
    for _ in 0..r.get_u32()? {
        let log = match (r.get_u8()?, r.get_u8()?) {
            (1, lane) => LogId::Outbox(Lane(lane)),
            (2, _) => LogId::Inbox,
            _ => return Err(Short),
        };
        let position = r.get_u64()?;
        checkpoints.push(Checkpoint { log, position });
    }
    Ok(Session {
        epoch,
        checkpoints,
        bytes: r.0,
    })
}

impl Sessions {
    pub fn load_all(ledger: &dyn Ledger) -> Result<Sessions, LedgerError> {
        let sessions = Sessions::default();
        for (client, session) in sessions.all(ledger)? {
            let hold = Hold {
                epoch: Some(session.epoch),
                saved: session.checkpoints,
                live: Vec::new(),
            };
            sessions.holds.lock().insert(client, hold);
        }
        Ok(sessions)
    }

    pub fn all(&self, ledger: &dyn Ledger) -> Result<Vec<(String, Session)>, LedgerError> {
        let mut found = Vec::new();
        ledger.scan(Table::Session, b"", &mut |key, value| {
            match (String::from_utf8(key.to_vec()), decode(value)) {
                (Ok(client), Ok(session)) => found.push((client, session)),
                _ => tracing::warn!("a stored session can not be read and is left out"),
            }
            true
        })?;
        Ok(found)
    }

    /// One that can not be read is there and empty.
    pub fn load(&self, ledger: &dyn Ledger, client: &str) -> Result<Option<Session>, LedgerError> {
        let value = ledger.get(Table::Session, client.as_bytes())?;
        Ok(value.map(|value| {
            decode(value).unwrap_or_else(|Short| {
                tracing::error!(
                    client,
                    "a stored session can not be read: written by a newer version, or damaged"
                );
                Session::default()
            })
        }))
    }

    /// Of what is saved.
    pub fn epoch(&self, client: &str) -> Option<u64> {
        self.holds.lock().get(client).and_then(|hold| hold.epoch)
    }

    /// `with`: changed in the same step.
    pub fn save(
        &self,
        ledger: &dyn Ledger,
        client: &str,
        session: Session,
        mut with: Vec<Change>,
    ) -> Result<(), SessionError> {
        let mut holds = self.holds.lock();
        let hold = holds.entry(client.to_owned()).or_default();
        if let Some(stored) = hold.epoch.filter(|stored| *stored > session.epoch) {
            return Err(SessionError::TakenOver {
                stored,
                given: session.epoch,
            });
        }
        with.push(Change::Put {
            table: Table::Session,
            key: client.as_bytes().to_vec(),
            value: encode(&session),
        });
        ledger.apply(with)?;
        hold.epoch = Some(session.epoch);
        hold.saved = session.checkpoints;
        Ok(())
    }

    /// Deletes what is saved, if something is. What is held while it is there stays.
    pub fn unsave(&self, ledger: &dyn Ledger, client: &str) -> Result<(), LedgerError> {
        let mut holds = self.holds.lock();
        let Some(hold) = holds.get_mut(client) else {
            return Ok(());
        };
        if hold.epoch.take().is_some() {
            hold.saved.clear();
            if hold.live.is_empty() {
                holds.remove(client);
            }
            ledger.apply(vec![Change::Delete {
                table: Table::Session,
                key: client.as_bytes().to_vec(),
            }])?;
        }
        Ok(())
    }

    /// The ledger's part is the caller's: the packet ids go in the same step.
    pub fn forget(&self, client: &str) {
        self.holds.lock().remove(client);
    }

    pub fn progress(&self, client: &str, positions: Vec<Checkpoint>) {
        let mut holds = self.holds.lock();
        if positions.is_empty() {
            if let Some(hold) = holds.get_mut(client) {
                hold.live = positions;
                if hold.epoch.is_none() {
                    holds.remove(client);
                }
            }
        } else {
            holds.entry(client.to_owned()).or_default().live = positions;
        }
    }

    /// The lowest position that a session still needs. Sessions that are before `oldest` hold nothing any more; their names are
    /// returned once.
    pub fn lowest(&self, log: LogId, oldest: u64) -> (Option<u64>, Vec<String>) {
        let mut lagging = Vec::new();
        let mut lowest: Option<u64> = None;
        for (client, hold) in self.holds.lock().iter_mut() {
            let Some(position) = hold.position(log) else {
                continue;
            };
            if position < oldest {
                lagging.push(client.clone());
                for checkpoint in hold.saved.iter_mut().chain(&mut hold.live) {
                    if checkpoint.log == log {
                        checkpoint.position = checkpoint.position.max(oldest);
                    }
                }
            }
            let position = position.max(oldest);
            lowest = Some(lowest.map_or(position, |lowest| lowest.min(position)));
        }
        (lowest, lagging)
    }
}
