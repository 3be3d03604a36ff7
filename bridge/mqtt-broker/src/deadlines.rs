//! What happens to sessions whose client is away: the will after its delay, the end after the session expiry.

use crate::backend::{Backend, ClientId, ClockSet, SavedSession, StorageError};
use crate::broker::Broker;
use crate::clock::{self, put_right};
use crate::limits;
use crate::metrics::Metrics;
use crate::shared;
use crate::unsettled::settle;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use mqtt_session::Session;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The longest single sleep: the wall clock can be set, and a timer does not see that.
const MAX_SLEEP: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    of: Mutex<ByTime>,
    changed: Notify,
}

/// One for each session, however often its client comes and goes before it is over: of a session that lasts for a day, and a client that is lost
/// each second, nothing else would be forgotten for a day.
#[derive(Debug, Default)]
struct ByTime {
    /// Milliseconds since the epoch, and of which epoch of the session.
    clients: HashMap<ClientId, (i64, u64)>,
    in_order: BTreeSet<(i64, ClientId)>,
}

impl ByTime {
    fn remove(&mut self, client: &ClientId) {
        if let Some((key, (at, _))) = self.clients.remove_entry(client) {
            self.in_order.remove(&(at, key));
        }
    }

    fn set(&mut self, client: &ClientId, at: i64, epoch: u64) {
        self.remove(client);
        self.clients.insert(client.clone(), (at, epoch));
        self.in_order.insert((at, client.clone()));
    }
}

impl Deadlines {
    /// In the place of what was to be done for this session before.
    pub fn add(&self, session: &Session) {
        match session.next_deadline() {
            Some(at) => {
                let mut of = self.of.lock();
                of.set(session.client_id(), at, session.epoch());
                drop(of);
                self.changed.notify_one();
            }
            None => self.forget(session.client_id()),
        }
    }

    /// What was due could not be done: in a while again.
    pub fn again(&self, client: &ClientId, epoch: u64, now_ms: i64) {
        let mut of = self.of.lock();
        of.set(client, after(now_ms, limits::DUE_AGAIN), epoch);
        drop(of);
        self.changed.notify_one();
    }

    /// Its client is back, or the session is over: nothing is to be done for it.
    pub fn forget(&self, client: &ClientId) {
        self.of.lock().remove(client);
    }

    /// It is being done, by who has the claim.
    fn begun(&self, client: &ClientId, epoch: u64) {
        let mut of = self.of.lock();
        if of.clients.get(client).is_some_and(|(_, of)| *of == epoch) {
            of.remove(client);
        }
    }

    /// The first that is due, or how long until there is one. It is due again in a while, until it is begun or forgotten.
    fn first_due(&self, now_ms: i64) -> Result<(ClientId, u64), Duration> {
        let mut of = self.of.lock();
        let Some((at, client)) = of.in_order.first() else {
            return Err(MAX_SLEEP);
        };
        let left = at.saturating_sub(now_ms);
        if left > 0 {
            return Err(Duration::from_millis(left.unsigned_abs()).min(MAX_SLEEP));
        }
        let client = client.clone();
        let Some((_, epoch)) = of.clients.get(&client).copied() else {
            of.in_order.pop_first();
            return Err(Duration::ZERO);
        };
        of.set(&client, after(now_ms, limits::DUE_HELD), epoch);
        Ok((client, epoch))
    }
}

fn after(now_ms: i64, pause: Duration) -> i64 {
    let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
    now_ms.saturating_add(pause)
}

/// Runs until shutdown.
pub(crate) async fn run<B: Backend>(broker: Arc<Broker<B>>) {
    let clock_set = broker.backend.clock_set();
    let mut clock_set = std::pin::pin!(clock_set.fuse());
    // Many can be due at once, after an outage: their writes go to the disk together.
    let mut doing = JoinSet::new();
    loop {
        let now_ms = broker.backend.now_ms();
        // What the old clock said must not be measured by the new one.
        if let Some(set) = clock_set.as_mut().now_or_never() {
            move_ends(&broker, set).await;
            continue;
        }
        let due = match doing.len() {
            limits::DUE_AT_ONCE.. => Err(MAX_SLEEP),
            _ => broker.deadlines.first_due(now_ms),
        };
        match due {
            Ok((client, epoch)) => {
                doing.spawn(try_due(broker.clone(), client, epoch));
            }
            Err(sleep) => tokio::select! {
                () = broker.shutdown.cancelled() => {
                    // What was begun is done: half of it would be done once more at the next start.
                    doing.detach_all();
                    return;
                }
                Some(_) = doing.join_next() => {}
                () = broker.deadlines.changed.notified() => {}
                set = &mut clock_set => move_ends(&broker, set).await,
                () = tokio::time::sleep(sleep) => {}
            },
        }
    }
}

/// The clock has been set: sessions whose client went away before that have as much of their time left as before.
async fn move_ends<B: Backend>(broker: &Arc<Broker<B>>, set: ClockSet) {
    let moved = async {
        for (client, _) in broker.backend.sessions().await? {
            if broker.by_new_clock.contains(&client) {
                continue;
            }
            let claim = broker.registry.try_claim(&client);
            let Some(saved) = broker.backend.load_session(&client).await? else {
                continue;
            };
            let Ok(mut session) = Session::from_bytes(client.clone(), saved.bytes) else {
                continue;
            };
            // Of one that is connected nothing runs out.
            if session.clock_was_set(set.from_ms, set.to_ms, set.add_ms) {
                // Otherwise it comes or goes at this moment, and is put right by whoever judges it next.
                if claim.is_some() {
                    save(broker, &mut session).await?;
                    broker.by_new_clock.add(&client);
                }
                broker.deadlines.add(&session);
            }
        }
        Ok::<(), StorageError>(())
    };
    if let Err(error) = moved.await {
        tracing::warn!(%error, "not all sessions could be told that the clock was set: some end too early or too late");
    }
}

async fn try_due<B: Backend>(broker: Arc<Broker<B>>, client: ClientId, epoch: u64) {
    if let Err(error) = due(&broker, &client, epoch).await {
        tracing::warn!(%client, %error, "the session could not be ended or its will published; trying again");
    }
}

async fn due<B: Backend>(
    broker: &Arc<Broker<B>>,
    client: &ClientId,
    epoch: u64,
) -> Result<(), StorageError> {
    // A connection that ends, or that begins and may be refused, or who looks after the broker: it is still due after that, unless they forget it.
    let Some(_claim) = broker.registry.try_claim(client) else {
        return Ok(());
    };
    broker.deadlines.begun(client, epoch);
    let now_ms = broker.backend.now_ms();
    let saved = broker.backend.load_session(client).await;
    let saved = saved.inspect_err(|_| broker.deadlines.again(client, epoch, now_ms))?;
    let Some(saved) = saved.filter(|saved| saved.epoch == epoch) else {
        return Ok(());
    };
    let Some(mut session) = readable(client, saved) else {
        return Ok(());
    };
    let (now_ms, by_new_clock) = put_right(broker, &mut session);
    // The end of its connection may not have been saved.
    session.assume_disconnected(now_ms);
    let ended = session.handle_deadline(now_ms);
    let keep = ended.keep;
    if by_new_clock {
        broker.by_new_clock.add(client);
    }
    let settled = settle(broker, &mut session, ended, true).await;
    if !keep {
        Metrics::sub(&broker.metrics.persistent_sessions, 1);
    }
    settled?;
    if keep {
        broker.deadlines.add(&session);
    }
    Ok(())
}

/// Sessions found at start: schedules their wills and ends. Those whose client was connected when the process died count as
/// disconnected from now on.
pub(crate) async fn recover<B: Backend>(broker: &Arc<Broker<B>>) -> Result<(), StorageError> {
    let mut left = Vec::new();
    let mut found = broker.backend.sessions().await?.into_iter();
    loop {
        let some = found.by_ref().take(limits::SAVED_AT_ONCE);
        let some: Vec<_> = some
            .map(|(client, saved)| found_at_start(broker, client, saved))
            .collect();
        if some.is_empty() {
            break;
        }
        for session in try_join_all(some).await?.into_iter().flatten() {
            shared::join_again(&*broker.backend, &session).await?;
            let left_behind = shared::left_behind(&session);
            if !left_behind.is_empty() {
                left.push((session.client_id().clone(), left_behind));
            }
            for filter in session.exclusive() {
                broker.exclusives.take(filter, session.client_id());
            }
            broker.deadlines.add(&session);
            Metrics::add(&broker.metrics.persistent_sessions, 1);
        }
    }
    for (client, left_behind) in left {
        shared::keep_left_behind(&*broker.backend, &client, left_behind).await?;
    }
    broker.backend.shared_recovered().await
}

async fn found_at_start<B: Backend>(
    broker: &Broker<B>,
    client: ClientId,
    saved: SavedSession,
) -> Result<Option<Session>, StorageError> {
    let Some(mut session) = readable(&client, saved) else {
        return Ok(None);
    };
    let (now_ms, set) = clock::now(&**broker.backend());
    if session.assume_disconnected(now_ms) {
        if set.is_some() {
            broker.by_new_clock.add(&client);
        }
        save(broker, &mut session).await?;
    }
    Ok(Some(session))
}

fn readable(client: &ClientId, saved: SavedSession) -> Option<Session> {
    let session = Session::from_bytes(client.clone(), saved.bytes);
    let session = session.inspect_err(|error| {
        tracing::error!(%client, %error, "a stored session can not be read; it is replaced when the client connects");
    });
    session.ok()
}

/// What is to be saved, and the mark to give to [`Session::saved`] then.
pub(crate) fn snapshot(session: &mut Session) -> (SavedSession, u64) {
    let (bytes, mark) = session.snapshot();
    let saved = SavedSession {
        epoch: session.epoch(),
        checkpoints: session.checkpoints(),
        bytes,
    };
    (saved, mark)
}

pub(crate) async fn save<B: Backend>(
    broker: &Broker<B>,
    session: &mut Session,
) -> Result<(), StorageError> {
    let (saved, mark) = snapshot(session);
    broker
        .backend
        .save_session(session.client_id(), saved)
        .await?;
    session.saved(mark);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_kept_for_a_session_however_often_its_client_comes_and_goes() {
        let deadlines = Deadlines::default();
        let client = |n: u64| ClientId::new(&format!("client-{n}"));
        for epoch in 0..1_000 {
            for n in 0..3 {
                // Each time a little later, and now and then earlier.
                let at = 1_000_000 + epoch as i64 * 7 - (epoch as i64 % 5) * 100;
                deadlines.of.lock().set(&client(n), at + n as i64, epoch);
            }
        }
        let sizes = || {
            let of = deadlines.of.lock();
            (of.clients.len(), of.in_order.len())
        };
        assert_eq!(sizes(), (3, 3));
        deadlines.forget(&client(1));
        deadlines.forget(&client(7));
        assert_eq!(sizes(), (2, 2));
        // The last one that was said counts.
        let at = 1_000_000 + 999 * 7 - 400;
        assert_eq!(deadlines.first_due(at - 10), Err(Duration::from_millis(10)));
        assert_eq!(deadlines.first_due(at), Ok((client(0), 999)));
        assert_eq!(deadlines.first_due(at), Err(Duration::from_millis(2)));
        assert_eq!(deadlines.first_due(at + 2), Ok((client(2), 999)));
        let held = limits::DUE_HELD;
        let left = held - Duration::from_millis(2);
        assert_eq!(deadlines.first_due(at + 2), Err(left), "of the first");
        // Of a later life: it is not what was begun.
        deadlines.begun(&client(0), 998);
        assert_eq!(deadlines.first_due(at + 2), Err(left));
        deadlines.begun(&client(0), 999);
        assert_eq!(deadlines.first_due(at + 2), Err(held));
        deadlines.begun(&client(2), 999);
        assert_eq!(sizes(), (0, 0));
        assert_eq!(deadlines.first_due(i64::MAX), Err(MAX_SLEEP));
    }
}
