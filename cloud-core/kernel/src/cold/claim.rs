//! Whose store it is. Every open takes the next epoch: the claim is logged first, then `{log}/epochs/{epoch}` is created with the nonce of
//! the claim. The epochs of a data directory are a chain without gaps, so two copies of one directory meet at the first epoch that both
//! take: who creates it goes on, the other finds a foreign nonce there, at this open and at all later ones.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use super::InFlight;
use crate::entry::{Command, Entry, Outcome};
use crate::error::ColdTierError;
use crate::kernel::Kernel;
use crate::ports::cold::{ColdError, ColdStore};
use crate::segment::SegmentId;

/// How far this open has come.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nothing was needed yet.
    Open,
    /// In the log, perhaps not in the store.
    Logged(Owner),
    /// The store is ours; with the number of the last segment.
    Held(Owner, u32),
}

/// The name of the log in the store, and the epoch of this open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub log: Uuid,
    pub epoch: u32,
    pub nonce: Uuid,
}

/// Key of the object that says who took an epoch.
pub(super) fn epoch_key(log: Uuid, epoch: u32) -> String {
    format!("{}{epoch:016x}", epochs(log))
}

/// Prefix of those keys.
pub(super) fn epochs(log: Uuid) -> String {
    format!("{log}/epochs/")
}

impl Kernel {
    /// The right to write to the cold store and to delete from it; claimed when it is first needed.
    pub(crate) async fn own_cold(&self) -> Result<Owner, ColdTierError> {
        let mut claim = self.core.cold.claim.lock().await;
        self.claim(&mut claim).await
    }

    /// A name for a new segment.
    pub(crate) async fn next_segment(&self) -> Result<InFlight, ColdTierError> {
        let mut claim = self.core.cold.claim.lock().await;
        let owner = self.claim(&mut claim).await?;
        let last = match &*claim {
            Claim::Held(_, last) => *last,
            Claim::Open | Claim::Logged(_) => 0,
        };
        let next = last.checked_add(1).ok_or_else(|| {
            let reason = "4,294,967,295 segments were written since the last start: restart";
            ColdTierError::Store(ColdError::Refused(reason.to_owned()))
        })?;
        *claim = Claim::Held(owner, next);
        let id = SegmentId::new(owner.epoch, next);
        Ok(self.core.cold.take_off(owner.log, id))
    }

    async fn claim(&self, claim: &mut Claim) -> Result<Owner, ColdTierError> {
        if self.core.cold.is_fenced() {
            return Err(ColdTierError::Fenced);
        }
        let owner = match claim {
            Claim::Held(owner, _) => return Ok(*owner),
            Claim::Logged(owner) => *owner,
            Claim::Open => {
                self.prove_last_claim().await?;
                let owner = self.log_claim().await?;
                *claim = Claim::Logged(owner);
                owner
            }
        };
        self.take_epoch(owner).await?;
        *claim = Claim::Held(owner, 0);
        Ok(owner)
    }

    /// The epoch of the open before this one must be ours, else the chain went on without us.
    async fn prove_last_claim(&self) -> Result<(), ColdTierError> {
        let last = {
            let cold = self.core.state.cold.lock();
            let log = cold.log.filter(|_| cold.epoch > 0);
            log.map(|log| Owner {
                log,
                epoch: cold.epoch,
                nonce: cold.nonce,
            })
        };
        match last {
            Some(last) => self.take_epoch(last).await,
            None => Ok(()),
        }
    }

    async fn log_claim(&self) -> Result<Owner, ColdTierError> {
        let (log, epoch) = {
            let cold = self.core.state.cold.lock();
            (cold.log, cold.epoch)
        };
        let owner = Owner {
            log: log.unwrap_or_else(Uuid::new_v4),
            epoch: epoch.saturating_add(1),
            nonce: Uuid::new_v4(),
        };
        let command = Command::ColdClaim {
            log: owner.log,
            epoch: owner.epoch,
            nonce: owner.nonce,
        };
        let outcomes = self.write_urgent(Entry::new().with(command)).await?;
        if outcomes.first() == Some(&Outcome::Done) {
            Ok(owner)
        } else {
            Err(ColdTierError::Fenced)
        }
    }

    /// Creates the object of an epoch, or finds that it is ours.
    async fn take_epoch(&self, owner: Owner) -> Result<(), ColdTierError> {
        let store = &*self.core.ports.cold;
        if create_epoch(store, owner).await? {
            Ok(())
        } else {
            Err(self.fence(owner))
        }
    }

    /// Looks for a newer epoch: whoever took it owns the store now.
    pub(crate) async fn still_own_cold(&self, owner: Owner) -> Result<(), ColdTierError> {
        let next = epoch_key(owner.log, owner.epoch.saturating_add(1));
        match self.core.ports.cold.size(&next).await {
            Ok(_) => Err(self.fence(owner)),
            Err(ColdError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn fence(&self, owner: Owner) -> ColdTierError {
        if !self.core.cold.fenced.swap(true, Ordering::Relaxed) {
            tracing::error!(
                log = %owner.log,
                epoch = owner.epoch,
                store = %self.core.ports.cold.location(),
                "a copy of this data directory owns the cold store: nothing is sealed or deleted there any more from here. Stop one of the two"
            );
        }
        ColdTierError::Fenced
    }
}

/// Creates the object of an epoch; false if it is somebody else's.
pub(super) async fn create_epoch(store: &dyn ColdStore, owner: Owner) -> Result<bool, ColdError> {
    let key = epoch_key(owner.log, owner.epoch);
    let body = Bytes::copy_from_slice(owner.nonce.as_bytes());
    match store.create(&key, body.clone()).await {
        Ok(()) => Ok(true),
        // Perhaps by us: an answer that was lost, or an open that ended here.
        Err(ColdError::Exists(_)) => {
            let size = store.size(&key).await?;
            Ok(size == body.len() as u64 && store.get(&key, 0..size).await? == body)
        }
        Err(error) => Err(error),
    }
}
