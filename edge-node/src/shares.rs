//! Where the groups of shared subscriptions are, in the store: each a session of its own, of which the sessions of its members never know more
//! than is stored of it.

use mqtt_broker::Backend;
use mqtt_broker::backend::{ClientId, SavedSession, StorageError};
use mqtt_codec::TopicFilter;
use tokio_util::sync::CancellationToken;

use crate::backend::{EdgeBackend, failed, to_stored};

/// Under which name it is among the sessions. No client is called so: client ids have no null character.
pub fn session(share: &TopicFilter) -> String {
    format!("\0{share}")
}

impl EdgeBackend {
    /// Writes the groups that have moved; `stored`: the session of this client is about to be.
    pub fn write_shares(&self, stored: Option<&ClientId>) -> Result<(), StorageError> {
        let write = |share: &TopicFilter, saved: SavedSession, kept: bool| {
            let name = session(share);
            let saved = to_stored(saved);
            let checkpoints = saved.checkpoints.clone();
            // That of clients that go with the process only keeps what it has not read.
            let noted = self.store.note_session(&name, kept.then_some(saved));
            noted.map_err(failed)?;
            self.store.progress(&name, checkpoints);
            Ok(())
        };
        self.shares.write(stored, write)
    }

    /// Writes them now and then, until `stop`; then once more.
    pub async fn keep_shares(&self, stop: CancellationToken) {
        let mut last = false;
        while !last {
            last = stop
                .run_until_cancelled(self.shares.moved())
                .await
                .is_none();
            if let Err(error) = self.write_shares(None) {
                tracing::error!(%error, "where shared groups are was not written");
            }
            let pause = tokio::time::sleep(self.progress_every());
            stop.run_until_cancelled(pause).await;
        }
    }

    /// The last member of a group has left, or it was found without any.
    pub fn end_share(&self, name: &str) -> Result<(), StorageError> {
        self.store.progress(name, Vec::new());
        self.store.note_session(name, None).map_err(failed)
    }

    /// Groups whose members' sessions were not stored, or are not any more.
    pub fn end_strays(&self) -> Result<(), StorageError> {
        for (name, _) in self.store.sessions().map_err(failed)? {
            let share = name.strip_prefix('\0').map(TopicFilter::new);
            if let Some(Ok(share)) = share
                && share.is_shared()
                && !self.shares.is_there(&share)
            {
                self.end_share(&name)?;
            }
        }
        Ok(())
    }
}
