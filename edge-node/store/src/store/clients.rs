//! What is kept of the local clients: their sessions.

use super::Store;
use crate::apply::client_prefix;
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::sessions::{Checkpoint, Session, SessionError};

impl Store {
    pub fn load_session(&self, client: &str) -> Result<Option<Session>, LedgerError> {
        self.inner.sessions.load(&*self.inner.ledger, client)
    }

    /// Resolves when durable.
    pub async fn save_session(&self, client: &str, session: Session) -> Result<(), SessionError> {
        let ledger = &*self.inner.ledger;
        self.inner.sessions.save(ledger, client, session)?;
        Ok(self.keeper.flush().await?)
    }

    /// Saves a session, or deletes it, without waiting: soon durable, and before any session that is saved after this.
    pub fn note_session(&self, client: &str, session: Option<Session>) -> Result<(), SessionError> {
        let (sessions, ledger) = (&self.inner.sessions, &*self.inner.ledger);
        match session {
            Some(session) => sessions.save(ledger, client, session)?,
            None => sessions.unsave(ledger, client)?,
        }
        self.keeper.touch();
        Ok(())
    }

    /// Resolves when the sessions that were saved or noted before are durable.
    pub async fn flush_sessions(&self) -> Result<(), LedgerError> {
        self.keeper.flush().await
    }

    /// Forgets a session and the unreleased packet ids of the client; resolves when that is durable.
    pub async fn delete_session(&self, client: &str) -> Result<(), LedgerError> {
        let mut rows = vec![Change::Delete {
            table: Table::Session,
            key: client.as_bytes().to_vec(),
        }];
        let ledger = &self.inner.ledger;
        let existed = ledger.get(Table::Session, client.as_bytes())?.is_some();
        ledger.scan(Table::Unreleased, &client_prefix(client), &mut |key, _| {
            rows.push(Change::Delete {
                table: Table::Unreleased,
                key: key.to_vec(),
            });
            true
        })?;
        self.inner.sessions.forget(client);
        if !existed && rows.len() == 1 {
            return Ok(());
        }
        ledger.apply(rows)?;
        self.keeper.flush().await
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
