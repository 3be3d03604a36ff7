//! A clock that is set while sessions wait for their end. What the old clock said of a session must not be judged by the new one, and putting all of
//! them right takes a flush each: until its turn has come, a session is put right by whoever judges it.

use crate::backend::{Backend, ClientId, ClockSet};
use crate::broker::Broker;
use futures_util::FutureExt;
use mqtt_session::Session;
use parking_lot::Mutex;
use std::collections::HashSet;
use tokio::task::unconstrained;

/// Stored sessions of which the clock that has been set said when their connections ended. Nobody is here before it is set.
#[derive(Debug, Default)]
pub(crate) struct ByNewClock(Mutex<HashSet<ClientId>>);

impl ByNewClock {
    /// Before such a session is saved.
    pub fn add(&self, client: &ClientId) {
        self.0.lock().insert(client.clone());
    }

    pub fn contains(&self, client: &ClientId) -> bool {
        self.0.lock().contains(client)
    }

    /// The session is over.
    pub fn remove(&self, client: &ClientId) {
        self.0.lock().remove(client);
    }
}

fn was_set<B: Backend>(backend: &B) -> Option<ClockSet> {
    unconstrained(backend.clock_set()).now_or_never()
}

/// What time it is, and whether that is by a clock that has been set.
pub(crate) fn now<B: Backend>(backend: &B) -> (i64, Option<ClockSet>) {
    loop {
        let set = was_set(backend);
        let now_ms = backend.now_ms();
        if was_set(backend) == set {
            return (now_ms, set);
        }
    }
}

/// Puts the end of its connection right, of a session as it is stored; to be judged by the time that is returned. `true`: it is by the new clock now.
pub(crate) fn put_right<B: Backend>(broker: &Broker<B>, session: &mut Session) -> (i64, bool) {
    let (now_ms, set) = now(&*broker.backend);
    if let Some(set) = set
        && !broker.by_new_clock.contains(session.client_id())
    {
        session.clock_was_set(set.from_ms, set.to_ms, set.add_ms);
    }
    (now_ms, set.is_some())
}
