//! What is done to the cold store besides sealing: segments of which nothing is left are deleted, orphans are collected, and the streams
//! and the newest checkpoint are kept there for the day the disk dies.

use bytes::Bytes;

use super::Owner;
use crate::checkpoint;
use crate::error::ColdTierError;
use crate::kernel::Kernel;
use crate::limits::{
    CHECKPOINT_UPLOAD_EVERY_US, COLD_CHECKPOINTS, DEAD_SEGMENT_GRACE_US, ORPHAN_SEARCH_EVERY_US,
    UPLOAD_PART_BYTES,
};
use crate::ports::cold::ColdError;
use crate::segment::{self, SegmentId};
use uuid::Uuid;

/// What is still to be done. Times are those of [`crate::ports::Clock::monotonic_us`].
#[derive(Debug, Default)]
pub(crate) struct Tending {
    /// Segments that have left the state, and since when.
    doomed: Vec<(SegmentId, u64)>,
    searched_at: Option<u64>,
    /// Index of the newest checkpoint in the store, and when it came there.
    uploaded: Option<(u64, u64)>,
}

/// Prefix of the keys of the checkpoints of a log.
pub(super) fn checkpoints(log: Uuid) -> String {
    format!("{log}/checkpoints/")
}

impl Kernel {
    /// Deletes dead segments and orphans, uploads the list of streams and the newest checkpoint. To be called by a timer, about once a second. After an error what is
    /// left is done at a later call.
    pub async fn tend_cold(&self) -> Result<(), ColdTierError> {
        if self.core.cold.is_fenced() || !self.core.intake.is_open() {
            return Ok(());
        }
        // A call that takes long is not joined by the next one.
        let Ok(mut tending) = self.core.cold.tending.try_lock() else {
            return Ok(());
        };
        let now = self.core.ports.clock.monotonic_us();
        let dead = std::mem::take(&mut self.core.state.cold.lock().dead);
        for id in dead {
            self.core.cold.chunks.forget(id);
            tending.doomed.push((id, now));
        }
        let tended = self.tend(&mut tending, now).await;
        if let Err(error) = &tended {
            self.core.cold.failed(error);
        }
        tended
    }

    async fn tend(&self, tending: &mut Tending, now: u64) -> Result<(), ColdTierError> {
        let is_due = |since: &u64| now.saturating_sub(*since) >= DEAD_SEGMENT_GRACE_US;
        if tending.doomed.iter().any(|(_, since)| is_due(since)) {
            let owner = self.own_cold().await?;
            self.still_own_cold(owner).await?;
            while let Some(at) = tending.doomed.iter().position(|(_, since)| is_due(since)) {
                if let Some((id, _)) = tending.doomed.get(at).copied() {
                    self.core.ports.cold.delete(&id.key(owner.log)).await?;
                }
                // In their order: what stood in the place of others goes after them.
                tending.doomed.remove(at);
            }
        }
        let every = |at: Option<u64>, us: u64| at.is_none_or(|at| now.saturating_sub(at) >= us);
        if every(tending.searched_at, ORPHAN_SEARCH_EVERY_US) {
            self.collect_orphans(tending).await?;
            tending.searched_at = Some(now);
        }
        self.keep_streams().await?;
        if every(
            tending.uploaded.map(|(_, at)| at),
            CHECKPOINT_UPLOAD_EVERY_US,
        ) {
            self.upload_checkpoint(tending, now).await?;
        }
        Ok(())
    }

    /// Deletes segments that nobody names: of uploads whose end was never logged.
    async fn collect_orphans(&self, tending: &Tending) -> Result<(), ColdTierError> {
        // Without a claim there is nothing of ours there.
        let Some(log) = self.core.state.cold.lock().log else {
            return Ok(());
        };
        let store = &self.core.ports.cold;
        let objects = store.list(&segment::prefix(log)).await?;
        let now = self.core.ports.clock.now_ms();
        let grace = self.core.config.orphan_grace_ms;
        let old = objects
            .iter()
            .filter(|object| now.saturating_sub(object.written_at) >= grace);
        // Looked at after the listing: what was being written then is in the state by now, or still being written.
        let orphans: Vec<SegmentId> = old
            .filter_map(|object| SegmentId::of_key(log, &object.key))
            .filter(|id| !self.core.cold.is_in_flight(*id))
            .filter(|id| !self.core.state.cold.lock().segments.contains_key(id))
            .filter(|id| tending.doomed.iter().all(|(doomed, _)| doomed != id))
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        let owner = self.own_cold().await?;
        self.still_own_cold(owner).await?;
        for id in orphans.iter().filter(|id| id.epoch() <= owner.epoch) {
            tracing::info!(segment = %id, "deleting a segment that the log does not name");
            store.delete(&id.key(log)).await?;
        }
        Ok(())
    }

    /// Keeps the newest checkpoint of the disk in the store, too.
    async fn upload_checkpoint(
        &self,
        tending: &mut Tending,
        now: u64,
    ) -> Result<(), ColdTierError> {
        let Some(newest) = self.checkpoint_for_cold().await else {
            return Ok(());
        };
        if tending.uploaded.is_some_and(|(index, _)| index == newest) {
            return Ok(());
        }
        let owner = self.own_cold().await?;
        self.still_own_cold(owner).await?;
        let store = &self.core.ports.cold;
        let key = format!("{}{}", checkpoints(owner.log), checkpoint::name(newest));
        match store.size(&key).await {
            // From before the last restart.
            Ok(_) => {}
            Err(ColdError::NotFound(_)) => {
                let mut upload = store.upload(&key).await?;
                let sent = self.send_checkpoint(&mut *upload, newest).await;
                match sent {
                    Ok(true) => {}
                    // A newer one has taken its place on the disk meanwhile.
                    Ok(false) => return Ok(upload.abort().await?),
                    Err(error) => {
                        // What the store holds of it is its own to clean up, should this fail as well.
                        drop(upload.abort().await);
                        return Err(error.into());
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        tending.uploaded = Some((newest, now));
        self.drop_old_checkpoints(owner, newest).await
    }

    async fn send_checkpoint(
        &self,
        upload: &mut dyn crate::ports::cold::Upload,
        index: u64,
    ) -> Result<bool, ColdError> {
        let mut at = 0;
        loop {
            let disk = self.core.ports.disk.clone();
            let piece = self
                .core
                .pool
                .run(move || checkpoint::piece(&*disk, index, at, UPLOAD_PART_BYTES));
            let Some(Ok(piece)) = piece.await else {
                return Ok(false);
            };
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            upload.part(vec![Bytes::from(piece)]).await?;
        }
        upload.finish().await?;
        Ok(true)
    }

    async fn drop_old_checkpoints(&self, owner: Owner, newest: u64) -> Result<(), ColdTierError> {
        let store = &self.core.ports.cold;
        let prefix = checkpoints(owner.log);
        let mut indexes: Vec<u64> = store
            .list(&prefix)
            .await?
            .iter()
            .filter_map(|object| checkpoint::index_of(object.key.strip_prefix(&prefix)?))
            .filter(|index| *index <= newest)
            .collect();
        indexes.sort_unstable();
        let old = indexes.len().saturating_sub(COLD_CHECKPOINTS);
        for index in indexes.iter().take(old) {
            let key = format!("{prefix}{}", checkpoint::name(*index));
            store.delete(&key).await?;
        }
        Ok(())
    }
}
