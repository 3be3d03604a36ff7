//! One connection a client id: who comes later takes over (MQTT 5 section 3.1.4, item 3). The old connection ends, saves
//! and lets go before the new one reads the session, so that no stale state can be saved over a newer one.

use crate::backend::ClientId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore};

#[derive(Debug)]
struct Slot {
    /// One permit, which a connection (or the deadline task) takes for as long as it has the session.
    free: Semaphore,
    /// How many connections want it. Above zero, the holder ends.
    waiting: AtomicUsize,
    /// The holder is to look at `waiting`.
    wanted: Notify,
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
    has_permit: bool,
}

struct Waiting<'a>(&'a Slot);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Registry {
    fn slot(&self, client: &ClientId) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(client.clone()).or_insert_with(|| {
            Arc::new(Slot {
                free: Semaphore::new(1),
                waiting: AtomicUsize::new(0),
                wanted: Notify::new(),
            })
        });
        slot.clone()
    }

    /// Tells the holder to end and waits until it has. The flag: was there a holder?
    pub async fn take_over(self: &Arc<Self>, client: &ClientId) -> (Claim, bool) {
        let mut claim = self.unheld(client);
        if claim.try_hold() {
            return (claim, false);
        }
        claim.slot.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Waiting(&claim.slot);
        claim.slot.wanted.notify_one();
        // It is never closed.
        if let Ok(permit) = claim.slot.free.acquire().await {
            permit.forget();
        }
        drop(waiting);
        claim.has_permit = true;
        (claim, true)
    }

    /// `None` = a connection has it.
    pub fn try_claim(self: &Arc<Self>, client: &ClientId) -> Option<Claim> {
        let mut claim = self.unheld(client);
        claim.try_hold().then_some(claim)
    }

    fn unheld(self: &Arc<Self>, client: &ClientId) -> Claim {
        Claim {
            registry: self.clone(),
            client: client.clone(),
            slot: self.slot(client),
            has_permit: false,
        }
    }
}

impl Claim {
    fn try_hold(&mut self) -> bool {
        if let Ok(permit) = self.slot.free.try_acquire() {
            permit.forget();
            self.has_permit = true;
        }
        self.has_permit
    }

    /// Resolves when somebody wants to take over. To be dropped before the claim is.
    pub fn wanted(&self) -> impl Future<Output = ()> + use<> {
        let slot = self.slot.clone();
        async move {
            while slot.waiting.load(Ordering::Acquire) == 0 {
                slot.wanted.notified().await;
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.has_permit {
            self.slot.free.add_permits(1);
        }
        let mut slots = self.registry.slots.lock();
        // The map's and ours: nobody else has or wants it, and under the map's lock nobody can begin to.
        if Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.client);
        }
    }
}
