//! Persistent sessions and QoS 2 packet ids in the kernel's tables.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use kernel::{Command, Entry, Kernel};
use mqtt_broker::backend::{ClientId, SavedSession, StorageError};
use mqtt_codec::PacketId;
use record::Namespace;
use tokio::sync::{Mutex, MutexGuard};

use crate::{limits, tables, walk};

const UNREADABLE: &str = "a stored session cannot be read: written by a newer version, or damaged";

pub struct Sessions {
    kernel: Kernel,
    namespace: Namespace,
    /// A save compares the epoch with the stored one and then writes. The lock of the client makes that one step.
    locks: Vec<Mutex<()>>,
}

impl Sessions {
    pub fn new(kernel: Kernel, namespace: Namespace) -> Sessions {
        let locks = (0..limits::SESSION_LOCKS).map(|_| Mutex::new(())).collect();
        Sessions {
            kernel,
            namespace,
            locks,
        }
    }

    fn lock(&self, client: &ClientId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        // The remainder is below the length, which is not zero.
        &self.locks[(hasher.finish() % self.locks.len() as u64) as usize]
    }

    /// One that cannot be read is there and empty.
    pub fn load(&self, client: &ClientId) -> Option<SavedSession> {
        let key = tables::session_key(&self.namespace, client);
        let value = self.kernel.table_get(tables::SESSIONS, &key)?;
        let session = tables::decode_session(value);
        if session.is_none() {
            tracing::error!(%client, "{UNREADABLE}");
        }
        Some(session.unwrap_or_default())
    }

    pub async fn save(
        &self,
        client: &ClientId,
        session: &SavedSession,
    ) -> Result<(), StorageError> {
        let (_one_at_a_time, entry) = self.settling(client, Some(session)).await?;
        self.write(entry).await
    }

    pub async fn delete(&self, client: &ClientId) -> Result<(), StorageError> {
        let (_one_at_a_time, entry) = self.settling(client, None).await?;
        if entry.commands.is_empty() {
            return Ok(());
        }
        self.write(entry).await
    }

    /// What saves the session, or deletes it (`None`). Until the guard is dropped nobody else writes it.
    pub async fn settling(
        &self,
        client: &ClientId,
        session: Option<&SavedSession>,
    ) -> Result<(MutexGuard<'_, ()>, Entry), StorageError> {
        let one_at_a_time = self.lock(client).lock().await;
        let key = tables::session_key(&self.namespace, client);
        let Some(session) = session else {
            return Ok((one_at_a_time, self.deletion(client, key)));
        };
        if let Some(stored) = self.load(client)
            && stored.epoch > session.epoch
        {
            return Err(StorageError(format!(
                "session of client {client}: epoch {} was taken over by epoch {}",
                session.epoch, stored.epoch
            )));
        }
        let entry = Entry::new().put(tables::SESSIONS, key, tables::encode_session(session));
        Ok((one_at_a_time, entry))
    }

    fn deletion(&self, client: &ClientId, key: Bytes) -> Entry {
        let mut entry = Entry::new();
        if self.kernel.table_get(tables::SESSIONS, &key).is_some() {
            entry = entry.delete(tables::SESSIONS, key);
        }
        for id in self.unreleased(client) {
            entry = entry.delete(
                tables::UNRELEASED,
                tables::unreleased_key(&self.namespace, client, id),
            );
        }
        entry
    }

    /// Sessions that cannot be read are left out, and said: they concern one client, not the start of the broker.
    pub async fn all(&self) -> Vec<(ClientId, SavedSession)> {
        let prefix = tables::namespace_prefix(&self.namespace);
        let rows = self.kernel.table_rows(tables::SESSIONS, prefix);
        let session = |(key, value): (Bytes, Bytes)| {
            let client = tables::client_of_key(&self.namespace, &key)?;
            let session = tables::decode_session(value);
            if session.is_none() {
                tracing::error!(%client, "{UNREADABLE}");
            }
            Some((client, session?))
        };
        walk::kept(rows, session).await
    }

    /// The command that remembers a QoS 2 packet id; it belongs in the entry of its message.
    pub fn remember(&self, client: &ClientId, packet_id: PacketId) -> Command {
        Command::TablePut {
            table: tables::UNRELEASED.into(),
            key: tables::unreleased_key(&self.namespace, client, packet_id),
            value: Bytes::from_static(&[tables::VERSION]),
        }
    }

    pub fn unreleased(&self, client: &ClientId) -> Vec<PacketId> {
        let prefix = tables::unreleased_prefix(&self.namespace, client);
        let rows = self.kernel.table_scan(tables::UNRELEASED, &prefix);
        rows.iter()
            .filter_map(|(key, _)| tables::packet_id_of_key(key))
            .collect()
    }

    /// Packet ids of clients that have no stored session: a crash leaves those of sessions that end with their connections.
    pub async fn forget_unreleased_of_nobody(&self) -> Result<(), StorageError> {
        let prefix = tables::namespace_prefix(&self.namespace);
        let rows = self.kernel.table_rows(tables::UNRELEASED, prefix);
        let of_nobody = |(key, _)| {
            let session = tables::session_of_unreleased(&key);
            let stored = session.and_then(|key| self.kernel.table_get(tables::SESSIONS, &key));
            stored.is_none().then_some(key)
        };
        let of_nobody = walk::kept(rows, of_nobody).await;
        for keys in of_nobody.chunks(limits::FORGOTTEN_AT_ONCE) {
            let keys = keys.iter().cloned();
            let delete = |entry: Entry, key| entry.delete(tables::UNRELEASED, key);
            self.write(keys.fold(Entry::new(), delete)).await?;
        }
        Ok(())
    }

    pub async fn release(
        &self,
        client: &ClientId,
        packet_ids: &[PacketId],
    ) -> Result<(), StorageError> {
        let mut entry = Entry::new();
        for packet_id in packet_ids {
            let key = tables::unreleased_key(&self.namespace, client, *packet_id);
            if self.kernel.table_get(tables::UNRELEASED, &key).is_some() {
                entry = entry.delete(tables::UNRELEASED, key);
            }
        }
        if entry.commands.is_empty() {
            return Ok(());
        }
        self.write(entry).await
    }

    async fn write(&self, entry: Entry) -> Result<(), StorageError> {
        let outcomes = self.kernel.write(entry).await;
        outcomes
            .map(drop)
            .map_err(|error| StorageError(error.to_string()))
    }
}
