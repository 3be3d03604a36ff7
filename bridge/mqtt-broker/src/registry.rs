//! One connection a client id: who comes later takes over (MQTT 5 section 3.1.4, item 3). The old connection ends, saves
//! and lets go before the new one reads the session, so that no stale state can be saved over a newer one.

use crate::backend::ClientId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedMutexGuard, watch};

#[derive(Debug)]
struct Slot {
    /// Held as long as a connection (or the deadline task) has the session.
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many connections want it. Above zero, the holder ends.
    waiting: watch::Sender<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    slots: Mutex<HashMap<ClientId, Arc<Slot>>>,
}

/// The right to a session; ends when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Arc<Registry>,
    client: ClientId,
    slot: Arc<Slot>,
    guard: Option<OwnedMutexGuard<()>>,
}

struct Waiting<'a>(&'a Slot);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0
            .waiting
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Registry {
    fn slot(&self, client: &ClientId) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(client.clone()).or_insert_with(|| {
            Arc::new(Slot {
                lock: Arc::default(),
                waiting: watch::Sender::new(0),
            })
        });
        slot.clone()
    }

    /// Tells the holder to end and waits until it has. The flag: was there a holder?
    pub async fn take_over(self: &Arc<Self>, client: &ClientId) -> (Claim, bool) {
        let mut claim = self.unheld(client);
        if let Ok(guard) = claim.slot.lock.clone().try_lock_owned() {
            claim.guard = Some(guard);
            return (claim, false);
        }
        let slot = claim.slot.clone();
        slot.waiting.send_modify(|count| *count += 1);
        let waiting = Waiting(&slot);
        claim.guard = Some(slot.lock.clone().lock_owned().await);
        drop(waiting);
        (claim, true)
    }

    /// `None` = a connection has it.
    pub fn try_claim(self: &Arc<Self>, client: &ClientId) -> Option<Claim> {
        let mut claim = self.unheld(client);
        claim.guard = Some(claim.slot.lock.clone().try_lock_owned().ok()?);
        Some(claim)
    }

    fn unheld(self: &Arc<Self>, client: &ClientId) -> Claim {
        Claim {
            registry: self.clone(),
            client: client.clone(),
            slot: self.slot(client),
            guard: None,
        }
    }
}

impl Claim {
    /// Above zero: somebody wants to take over.
    pub fn wanted(&self) -> watch::Receiver<usize> {
        self.slot.waiting.subscribe()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.guard = None;
        let mut slots = self.registry.slots.lock();
        // The map's and ours: nobody else has or wants it, and under the map's lock nobody can begin to.
        if Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.client);
        }
    }
}
