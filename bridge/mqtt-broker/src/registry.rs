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
    /// Of them, those that are none: who looks after the broker ends the session.
    administrators: AtomicUsize,
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

/// Who wants to have a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    ByConnection,
    ByAdministrator,
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::AcqRel);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Registry {
    fn slot(&self, client: &ClientId) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(client.clone()).or_insert_with(|| {
            Arc::new(Slot {
                free: Semaphore::new(1),
                waiting: AtomicUsize::new(0),
                administrators: AtomicUsize::new(0),
                wanted: Notify::new(),
            })
        });
        slot.clone()
    }

    /// Tells the holder to end and waits until it has. The flag: was there a holder?
    pub async fn take_over(self: &Arc<Self>, client: &ClientId) -> (Claim, bool) {
        let mut claim = self.unheld(client);
        let had_holder = !claim.try_hold();
        if had_holder {
            claim.hold().await;
        }
        (claim, had_holder)
    }

    /// The same for who looks after the broker, and the holder is told so.
    pub async fn take_away(self: &Arc<Self>, client: &ClientId) -> Claim {
        let mut claim = self.unheld(client);
        if !claim.try_hold() {
            let slot = claim.slot.clone();
            let _administrator = Waiting::begin(&slot.administrators);
            claim.hold().await;
        }
        claim
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

    async fn hold(&mut self) {
        let waiting = Waiting::begin(&self.slot.waiting);
        self.slot.wanted.notify_one();
        // It is never closed.
        if let Ok(permit) = self.slot.free.acquire().await {
            permit.forget();
        }
        drop(waiting);
        self.has_permit = true;
    }

    /// Resolves when somebody wants to take over; says why. To be dropped before the claim is.
    pub fn wanted(&self) -> impl Future<Output = Wanted> + use<> {
        let slot = self.slot.clone();
        async move {
            while slot.waiting.load(Ordering::Acquire) == 0 {
                slot.wanted.notified().await;
            }
            match slot.administrators.load(Ordering::Acquire) {
                0 => Wanted::ByConnection,
                _ => Wanted::ByAdministrator,
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
