//! How the end of a connection, or of a session, is written: its will is published, and the session saved without it or deleted. What finds no room
//! (the disk is full, the log behind) is kept and tried again until it is written: by the host, durably, with what it publishes later, and where it
//! cannot write that either, here. A stored session has its will until then, so that the next start publishes it.

use crate::backend::{
    Backend, ClientId, Message, Publish, PublishError, Rest, StorageError, WillOf, by_clock,
};
use crate::broker::Broker;
use crate::deadlines::snapshot;
use crate::limits;
use crate::metrics::Metrics;
use crate::passing::Passing;
use crate::shared;
use crate::unstored::Route;
use bytes::Bytes;
use mqtt_session::{Ended, Session};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::Notify;

/// What is left to do of one.
#[derive(Clone, Debug)]
struct End {
    of: WillOf,
    will: Option<Message>,
    /// The session as it was, until its groups know that it is over.
    leaves: Option<Bytes>,
    rest: Rest,
}

impl End {
    fn cost(&self) -> usize {
        let will = self.will.as_ref().map_or(0, Message::size);
        let leaves = self.leaves.as_ref().map_or(0, Bytes::len);
        let rest = match &self.rest {
            Rest::Save(saved) => saved.bytes.len(),
            Rest::Nothing | Rest::Delete => 0,
        };
        will + leaves + rest
    }

    /// Does whoever tries it need the claim to the session?
    fn is_stored(&self) -> bool {
        self.rest != Rest::Nothing
    }
}

/// Of a session that is not stored there can be one for each of its connections.
type Key = (ClientId, u64);

#[derive(Debug, Default)]
struct Ends {
    all: BTreeMap<Key, End>,
    bytes: usize,
    number: u64,
    /// The last one that failed: the others have their turn before it.
    tried: Option<Key>,
}

impl Ends {
    fn remove(&mut self, key: &Key) {
        if let Some(end) = self.all.remove(key) {
            self.bytes -= end.cost();
        }
    }

    fn insert(&mut self, key: Key, end: End) {
        self.remove(&key);
        self.bytes += end.cost();
        self.all.insert(key, end);
    }

    /// The one after `key`, around the end.
    fn after(&self, key: Option<&Key>) -> Option<Key> {
        let behind = key.and_then(|key| {
            let behind = (Bound::Excluded(key), Bound::Unbounded);
            self.all.range::<Key, _>(behind).next()
        });
        let next = behind.or_else(|| self.all.first_key_value());
        next.map(|(key, _)| key.clone())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    ends: Mutex<Ends>,
    added: Notify,
}

impl Unsettled {
    /// `false`: there are too many.
    fn add(&self, client: &ClientId, end: End) -> bool {
        let mut ends = self.ends.lock();
        let bytes = ends.bytes + end.cost();
        if ends.all.len() >= limits::UNSETTLED || bytes > limits::UNSETTLED_BYTES {
            return false;
        }
        ends.number += 1;
        let key = (client.clone(), ends.number);
        ends.insert(key, end);
        drop(ends);
        self.added.notify_one();
        true
    }

    fn get(&self, key: &Key) -> Option<End> {
        self.ends.lock().all.get(key).cloned()
    }

    fn of_session(&self, client: &ClientId) -> Vec<Key> {
        let ends = self.ends.lock();
        let of_client = ends.all.range((client.clone(), 0)..);
        let of_client = of_client.take_while(|((other, _), _)| other == client);
        let stored = of_client.filter(|(_, end)| end.is_stored());
        stored.map(|(key, _)| key.clone()).collect()
    }

    fn len(&self) -> usize {
        self.ends.lock().all.len()
    }
}

/// Publishes the will of a session that ends or goes on without its client, and saves what is left of it, or deletes it if something of it is
/// `stored`. An error: that is not done, and is tried again until it is.
pub(crate) async fn settle<B: Backend>(
    broker: &Broker<B>,
    session: &mut Session,
    ended: Ended,
    stored: bool,
) -> Result<(), StorageError> {
    let client = session.client_id().clone();
    let (mut leaves, mut mark) = (None, None);
    if !ended.keep {
        if let Err(error) = shared::session_ended(&*broker.backend, session).await {
            tracing::warn!(%client, %error, "the groups of a session could not be told that it is over");
            leaves = stored.then(|| session.snapshot().0);
        }
        broker.forget(session);
    }
    let rest = match (ended.keep, stored) {
        (true, _) => {
            let (saved, at) = snapshot(session);
            mark = Some(at);
            Rest::Save(saved)
        }
        (false, true) => Rest::Delete,
        (false, false) => Rest::Nothing,
    };
    let will = ended.will.map(|will| {
        let now_ms = broker.backend.now_ms();
        let mut message = will.into_message(now_ms);
        by_clock(&*broker.backend, &mut message, now_ms);
        message
    });
    let of = WillOf {
        session: session.tag(),
        connection: session.epoch(),
    };
    let mut end = End {
        of,
        will,
        leaves,
        rest,
    };
    let settled = attempt(broker, &client, &mut end).await;
    match &settled {
        Ok(()) => mark.into_iter().for_each(|mark| session.saved(mark)),
        Err(error) => keep(broker, &client, end, error),
    }
    settled
}

/// To be tried again.
fn keep<B: Backend>(broker: &Broker<B>, client: &ClientId, end: End, error: &StorageError) {
    let (stored, will, of) = (end.is_stored(), end.will.is_some(), end.of);
    if broker.unsettled.add(client, end) {
        tracing::warn!(%client, %error, will, "the end of a connection could not be written; trying again until it is");
    } else if stored {
        let now_ms = broker.backend.now_ms();
        broker.deadlines.again(client, of.connection, now_ms);
    } else if will {
        Metrics::add(&broker.metrics.refused, 1);
        tracing::error!(%client, %error, "a will is lost: there is no room for it, and too much waits for room");
    }
}

/// What is done of it is taken out.
async fn attempt<B: Backend>(
    broker: &Broker<B>,
    client: &ClientId,
    end: &mut End,
) -> Result<(), StorageError> {
    let backend = &*broker.backend;
    if let Some(was) = &end.leaves {
        if let Ok(session) = Session::from_bytes(client.clone(), was.clone()) {
            shared::session_ended(backend, &session).await?;
        }
        end.leaves = None;
    }
    while let Some(message) = end.will.clone() {
        if let Some(route) = broker.hub.unstored_route(&message.topic) {
            pass_on(broker, message, route).await;
            Metrics::add(&broker.metrics.wills_published, 1);
            end.will = None;
            break;
        }
        let error = match publish(broker, client, message, end).await {
            Ok(()) => {
                Metrics::add(&broker.metrics.wills_published, 1);
                return Ok(());
            }
            Err(error) => error,
        };
        match (&error, &mut end.will) {
            (PublishError::Full(text) | PublishError::Unavailable(text), _) => {
                return Err(StorageError(text.clone()));
            }
            // It was taken with CONNECT: one that is too much to be retained goes to who is there.
            (PublishError::QuotaExceeded(_), Some(will)) if will.retain => {
                tracing::warn!(%client, %error, "a will is published and not retained");
                will.retain = false;
            }
            _ => {
                Metrics::add(&broker.metrics.refused, 1);
                tracing::warn!(%client, %error, "a will can not be published and is dropped");
                end.will = None;
            }
        }
    }
    match &end.rest {
        Rest::Nothing => Ok(()),
        Rest::Save(saved) => backend.save_session(client, saved.clone()).await,
        Rest::Delete => backend.delete_session(client).await,
    }
}

/// With what becomes of the session.
async fn publish<B: Backend>(
    broker: &Broker<B>,
    client: &ClientId,
    mut message: Message,
    end: &End,
) -> Result<(), PublishError> {
    let (hub, backend) = (&broker.hub, &broker.backend);
    backend.make_retained_room(&message).await;
    let _ticket = hub.early.by_log(hub.router(), client, &mut message);
    let will = Publish {
        message,
        publisher: client.clone(),
    };
    let again = will.clone();
    let published = match end.rest.clone() {
        Rest::Nothing => backend.publish(will, None).await,
        Rest::Save(session) => backend.publish_will(will, end.of, Some(session)).await,
        Rest::Delete => backend.publish_will(will, end.of, None).await,
    };
    if let Err(PublishError::Full(error)) = &published {
        match backend.keep_will(again, end.rest.clone()).await {
            Ok(()) => {
                tracing::warn!(%client, %error, "there is no room for a will: it is published when there is");
                return Ok(());
            }
            Err(error) => tracing::debug!(%client, %error, "a will can not be kept either"),
        }
    }
    published
}

/// A message that is not stored, towards who is connected.
async fn pass_on<B: Backend>(broker: &Broker<B>, mut message: Message, route: Arc<Route>) {
    let (metrics, retained) = (&broker.metrics, &broker.hub.unstored.retained);
    let (mut passing, now_ms) = (Passing::new(None), broker.backend.now_ms());
    let published = passing.publish(message.clone(), route.clone(), retained, metrics, now_ms);
    if let Err(error) = published {
        tracing::warn!(topic = %message.topic, %error, "a will is published and not retained");
        message.retain = false;
        // What is not retained is not refused.
        let _ = passing.publish(message, route, retained, metrics, now_ms);
    }
    passing.settle(metrics).await;
}

/// What is left of the last connection of a session, before anybody reads how it is stored. To be called by who has the claim.
pub(crate) async fn settle_left<B: Backend>(
    broker: &Broker<B>,
    client: &ClientId,
) -> Result<(), StorageError> {
    if broker.unsettled.len() == 0 {
        return Ok(());
    }
    for key in broker.unsettled.of_session(client) {
        again(broker, &key).await?;
    }
    Ok(())
}

async fn again<B: Backend>(broker: &Broker<B>, key: &Key) -> Result<(), StorageError> {
    let (client, unsettled) = (&key.0, &broker.unsettled);
    let Some(mut end) = unsettled.get(key) else {
        return Ok(());
    };
    let tried = attempt(broker, client, &mut end).await;
    let mut ends = unsettled.ends.lock();
    if tried.is_err() {
        ends.tried = Some(key.clone());
        ends.insert(key.clone(), end);
        return tried;
    }
    ends.remove(key);
    drop(ends);
    tracing::info!(%client, "the end of a connection is written now");
    if let Rest::Save(saved) = end.rest
        && let Ok(session) = Session::from_bytes(client.clone(), saved.bytes)
    {
        broker.deadlines.add(&session);
    }
    Ok(())
}

/// Runs until shutdown.
pub(crate) async fn run<B: Backend>(broker: Arc<Broker<B>>) {
    let mut pause = limits::UNSETTLED_FIRST;
    loop {
        while broker.unsettled.len() == 0 {
            tokio::select! {
                () = broker.shutdown.cancelled() => return,
                () = broker.unsettled.added.notified() => pause = limits::UNSETTLED_FIRST,
            }
        }
        tokio::select! {
            () = broker.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match turn(&broker).await {
            true => limits::UNSETTLED_FIRST,
            false => (pause * 2).min(limits::UNSETTLED_MOST),
        };
    }
}

/// Was one written?
async fn turn<B: Backend>(broker: &Broker<B>) -> bool {
    let (mut written, mut failures) = (false, 0);
    let mut last = broker.unsettled.ends.lock().tried.clone();
    for _ in 0..broker.unsettled.len() {
        let Some(key) = broker.unsettled.ends.lock().after(last.as_ref()) else {
            break;
        };
        last = Some(key.clone());
        let stored = broker.unsettled.get(&key).is_some_and(|e| e.is_stored());
        let claim = broker.registry.try_claim(&key.0);
        if stored && claim.is_none() {
            // Its client is about to settle it.
            continue;
        }
        match again(broker, &key).await {
            Ok(()) => written = true,
            Err(_) => failures += 1,
        }
        if failures == limits::UNSETTLED_FAILURES {
            break;
        }
    }
    written
}
