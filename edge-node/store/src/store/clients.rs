//! What is kept of the local clients: their sessions.

use super::Store;
use crate::apply::{client_prefix, packet_prefix};
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::sessions::{Checkpoint, Session, SessionError, Sessions};
use crate::wills::{self, WillRef, WillRest};

/// What takes away the packet ids whose keys begin with this.
fn forget_packets(
    ledger: &dyn Ledger,
    prefix: &[u8],
    rows: &mut Vec<Change>,
) -> Result<(), LedgerError> {
    let table = Table::Unreleased;
    ledger.scan(table, prefix, &mut |key, _| {
        let key = key.to_vec();
        rows.push(Change::Delete { table, key });
        true
    })
}

/// What takes away a session, the packet ids of its client, and that its will was published.
fn deletion(ledger: &dyn Ledger, client: &str) -> Result<Vec<Change>, LedgerError> {
    let mut rows = vec![Change::Delete {
        table: Table::Session,
        key: client.as_bytes().to_vec(),
    }];
    forget_packets(ledger, &client_prefix(client), &mut rows)?;
    forget_packets(ledger, &wills::prefix(client), &mut rows)?;
    Ok(rows)
}

/// Where the ledger is lost or older than the segments, they tell of wills whose sessions are gone, or will have that connection once more.
pub(super) fn forget_wills_of_nobody(
    sessions: &Sessions,
    ledger: &dyn Ledger,
) -> Result<(), LedgerError> {
    forget_unreleased(ledger, wills::ALL.as_bytes(), |key| {
        let of = wills::of_key(key);
        of.is_none_or(|(client, connection)| sessions.epoch(client) != Some(connection))
    })
}

/// Packet ids of clients that have no stored session. A crash leaves those of sessions that end with their connections.
pub(super) fn forget_packets_of_nobody(
    sessions: &Sessions,
    ledger: &dyn Ledger,
) -> Result<(), LedgerError> {
    forget_unreleased(ledger, b"", |key| {
        let client = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let client = std::str::from_utf8(client).unwrap_or_default();
        // Without a name: a will, see above.
        !client.is_empty() && sessions.epoch(client).is_none()
    })
}

fn forget_unreleased(
    ledger: &dyn Ledger,
    prefix: &[u8],
    is_of_nobody: impl Fn(&[u8]) -> bool,
) -> Result<(), LedgerError> {
    let mut rows = Vec::new();
    let table = Table::Unreleased;
    ledger.scan(table, prefix, &mut |key, _| {
        if is_of_nobody(key) {
            let key = key.to_vec();
            rows.push(Change::Delete { table, key });
        }
        true
    })?;
    if rows.is_empty() {
        return Ok(());
    }
    ledger.apply(rows)
}

impl Store {
    pub fn load_session(&self, client: &str) -> Result<Option<Session>, LedgerError> {
        self.inner.sessions.load(&*self.inner.ledger, client)
    }

    /// Resolves when durable.
    pub async fn save_session(&self, client: &str, session: Session) -> Result<(), SessionError> {
        let ledger = &*self.inner.ledger;
        let sessions = &self.inner.sessions;
        sessions.save(ledger, client, session, Vec::new())?;
        Ok(self.keeper.flush().await?)
    }

    /// Was this will stored ([`WillRef::packet`]), and its session not told yet?
    pub fn has_published(&self, will: &WillRef<'_>) -> Result<bool, LedgerError> {
        let Some(packet) = will.packet() else {
            return Ok(false);
        };
        let mut found = false;
        let prefix = packet_prefix(&packet);
        let ledger = &self.inner.ledger;
        ledger.scan(Table::Unreleased, &prefix, &mut |_, _| {
            found = true;
            false
        })?;
        Ok(found)
    }

    /// [`Store::save_session`] of one whose will was published: what was stored with the will goes in the same step.
    pub async fn save_without_will(
        &self,
        client: &str,
        session: Session,
    ) -> Result<(), SessionError> {
        let ledger = &*self.inner.ledger;
        let mut rows = Vec::new();
        forget_packets(ledger, &wills::prefix(client), &mut rows)?;
        self.inner.sessions.save(ledger, client, session, rows)?;
        Ok(self.keeper.flush().await?)
    }

    /// Saves a session, or deletes it, without waiting: soon durable, and before any session that is saved after this.
    pub fn note_session(&self, client: &str, session: Option<Session>) -> Result<(), SessionError> {
        let (sessions, ledger) = (&self.inner.sessions, &*self.inner.ledger);
        match session {
            Some(session) => sessions.save(ledger, client, session, Vec::new())?,
            None => sessions.unsave(ledger, client)?,
        }
        self.keeper.touch();
        Ok(())
    }

    /// Resolves when the sessions that were saved or noted before are durable.
    pub async fn flush_sessions(&self) -> Result<(), LedgerError> {
        self.keeper.flush().await
    }

    /// Forgets a session, the unreleased packet ids of the client, and that its will was published, in one step; resolves when that is durable.
    pub async fn delete_session(&self, client: &str) -> Result<(), LedgerError> {
        let ledger = &*self.inner.ledger;
        let existed = ledger.get(Table::Session, client.as_bytes())?.is_some();
        let rows = deletion(ledger, client)?;
        self.inner.sessions.forget(client);
        if !existed && rows.len() == 1 {
            return Ok(());
        }
        ledger.apply(rows)?;
        self.keeper.flush().await
    }

    /// Applies `row` with what becomes of a session that has its will no more.
    pub(super) fn settle_with(
        &self,
        row: Change,
        client: &str,
        rest: WillRest,
    ) -> Result<(), SessionError> {
        let (sessions, ledger) = (&self.inner.sessions, &*self.inner.ledger);
        let mut rows = vec![row];
        match rest {
            WillRest::Nothing => ledger.apply(rows)?,
            WillRest::Save(session) => {
                forget_packets(ledger, &wills::prefix(client), &mut rows)?;
                sessions.save(ledger, client, session, rows)?;
            }
            WillRest::Delete => {
                rows.extend(deletion(ledger, client)?);
                ledger.apply(rows)?;
                sessions.forget(client);
            }
        }
        Ok(())
    }

    pub fn sessions(&self) -> Result<Vec<(String, Session)>, LedgerError> {
        self.inner.sessions.all(&*self.inner.ledger)
    }

    /// What a connected client may still read. Empty = it is gone.
    pub fn progress(&self, client: &str, positions: Vec<Checkpoint>) {
        self.inner.sessions.progress(client, positions);
        self.keeper.touch();
    }
}
