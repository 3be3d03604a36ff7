//! The connected clients, for whoever looks after the broker: what they are, and how they are asked.

use crate::access::{Peer, Principal};
use crate::backend::ClientId;
use crate::extra::BanKey;
use futures_util::task::AtomicWaker;
use mqtt_codec::{QoS, SubscriptionOptions, TopicFilter, Version};
use mqtt_session::Session;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A connected client.
#[derive(Clone, Debug)]
pub struct ConnectedClient {
    pub client: ClientId,
    pub user: Option<Arc<str>>,
    pub address: Option<SocketAddr>,
    pub version: Version,
    /// Milliseconds since the epoch.
    pub connected_ms: i64,
    /// Its session outlives the connection, by so many seconds; `u32::MAX` = for ever.
    pub expiry_interval: u32,
    pub subscriptions: u32,
    pub shared_subscriptions: u32,
    /// QoS 1 and 2 messages that it has not acknowledged.
    pub in_flight: u32,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionInfo {
    /// As the client wrote it: with `$share/...`.
    pub filter: TopicFilter,
    pub options: SubscriptionOptions,
    pub identifier: Option<u32>,
    pub exclusive: bool,
}

impl SubscriptionInfo {
    pub fn qos(&self) -> QoS {
        self.options.qos
    }
}

/// Of what a session has subscribed to.
pub(crate) fn subscriptions(session: &Session) -> Vec<SubscriptionInfo> {
    let ordinary = session.subscriptions().iter();
    let ordinary = ordinary.map(|(filter, subscription)| SubscriptionInfo {
        filter: filter.clone(),
        options: subscription.options,
        identifier: subscription.identifier,
        exclusive: session.exclusive().any(|other| other == filter),
    });
    let shared = session.shared().map(|(filter, shared)| SubscriptionInfo {
        filter: filter.clone(),
        options: shared.options,
        identifier: shared.identifier,
        exclusive: false,
    });
    ordinary.chain(shared).collect()
}

/// What a connection is asked; an answer that does not come means that it has ended.
pub(crate) enum Ask {
    Kick,
    Subscriptions(oneshot::Sender<Vec<SubscriptionInfo>>),
    Unsubscribe(TopicFilter, oneshot::Sender<bool>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    client: ClientId,
    user: Option<Arc<str>>,
    address: Option<SocketAddr>,
    version: Version,
    connected_ms: i64,
    expiry_interval: u32,
    /// Is its session among the stored ones? Also of one that ends with this connection, and did not end with the one before.
    stored: bool,
    subscriptions: AtomicU32,
    shared: AtomicU32,
    in_flight: AtomicU32,
    /// Since when something waits that the client does not take, by [`Clients::clock`]; 0 = nothing does.
    waits_since: AtomicU64,
    asks: Mutex<Vec<Ask>>,
    is_asked: AtomicBool,
    /// The connection's task: it alone waits.
    asked: AtomicWaker,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ask::Kick => "Kick",
            Ask::Subscriptions(_) => "Subscriptions",
            Ask::Unsubscribe(..) => "Unsubscribe",
        })
    }
}

impl Entry {
    /// Follows the session.
    pub fn update(&self, session: &Session) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let set = |gauge: &AtomicU32, n: usize| gauge.store(count(n), Relaxed);
        set(&self.subscriptions, session.subscriptions().len());
        set(&self.shared, session.shared().count());
        set(&self.in_flight, session.in_flight_len());
    }

    pub fn ask(&self, ask: Ask) {
        self.asks.lock().push(ask);
        self.is_asked.store(true, Release);
        self.asked.wake();
    }

    /// What is asked. Can be dropped without loss.
    pub async fn asked(&self) -> Vec<Ask> {
        poll_fn(|context| {
            if !self.is_asked.load(Acquire) {
                self.asked.register(context.waker());
            }
            // Again: it may have been asked before the waker was known.
            if !self.is_asked.swap(false, AcqRel) {
                return Poll::Pending;
            }
            Poll::Ready(std::mem::take(&mut *self.asks.lock()))
        })
        .await
    }

    /// By what it can be banned.
    pub fn ban_keys(&self) -> impl Iterator<Item = BanKey> {
        let address = self.address.map(|address| address.ip());
        BanKey::all_of(&self.client, self.user.as_deref(), address)
    }

    fn info(&self) -> ConnectedClient {
        ConnectedClient {
            client: self.client.clone(),
            user: self.user.clone(),
            address: self.address,
            version: self.version,
            connected_ms: self.connected_ms,
            expiry_interval: self.expiry_interval,
            subscriptions: self.subscriptions.load(Relaxed),
            shared_subscriptions: self.shared.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Clients {
    all: Mutex<HashMap<ClientId, Arc<Entry>>>,
    began: Instant,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            all: Mutex::default(),
            began: Instant::now(),
        }
    }
}

/// A connection's place among the clients; it ends with it.
#[derive(Debug)]
pub(crate) struct Place {
    clients: Arc<Clients>,
    pub entry: Arc<Entry>,
}

impl Place {
    /// Does something wait for the client, and has something of it moved? Gives how long nothing had, where that is over.
    pub fn note_waiting(&self, waits: bool, moved: bool) -> Option<Duration> {
        let waits_since = &self.entry.waits_since;
        let since = waits_since.load(Relaxed);
        let goes_on = since != 0 && waits && !moved;
        if goes_on || (since == 0 && !waits) {
            return None;
        }
        let now = self.clients.clock();
        waits_since.store(if waits { now } else { 0 }, Relaxed);
        (since != 0).then(|| Duration::from_millis(now.saturating_sub(since)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.clients.all.lock();
        // Another connection may have taken the client id over.
        if all
            .get(&self.entry.client)
            .is_some_and(|entry| Arc::ptr_eq(entry, &self.entry))
        {
            all.remove(&self.entry.client);
        }
    }
}

impl Clients {
    pub fn enter(
        self: &Arc<Clients>,
        who: &Principal,
        peer: &Peer,
        session: &Session,
        stored: bool,
        now_ms: i64,
    ) -> Place {
        let entry = Arc::new(Entry {
            client: who.client.clone(),
            user: who.user.clone(),
            address: peer.address,
            version: session.version(),
            connected_ms: now_ms,
            expiry_interval: session.expiry_seconds(),
            stored,
            subscriptions: AtomicU32::new(0),
            shared: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            waits_since: AtomicU64::new(0),
            asks: Mutex::default(),
            is_asked: AtomicBool::new(false),
            asked: AtomicWaker::new(),
        });
        entry.update(session);
        self.all.lock().insert(who.client.clone(), entry.clone());
        Place {
            clients: self.clone(),
            entry,
        }
    }

    pub fn get(&self, client: &ClientId) -> Option<Arc<Entry>> {
        self.all.lock().get(client).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.all.lock().values().cloned().collect()
    }

    /// Milliseconds; never 0.
    fn clock(&self) -> u64 {
        let ms = u64::try_from(self.began.elapsed().as_millis());
        ms.unwrap_or(u64::MAX).saturating_add(1)
    }

    /// For whom something waits now of which nothing moves, and for how long.
    pub fn waiting(&self, at_least: Duration) -> Vec<(ClientId, Duration)> {
        let now = self.clock();
        let all = self.all.lock();
        let waiting = all.values().filter_map(|entry| {
            let since = entry.waits_since.load(Relaxed);
            let waited = Duration::from_millis(now.saturating_sub(since));
            (since != 0 && waited >= at_least).then(|| (entry.client.clone(), waited))
        });
        waiting.collect()
    }

    /// By client id.
    pub fn list(&self) -> Vec<ConnectedClient> {
        let mut list: Vec<ConnectedClient> = self.all().iter().map(|entry| entry.info()).collect();
        list.sort_by(|a, b| a.client.cmp(&b.client));
        list
    }

    pub fn info(&self, client: &ClientId) -> Option<ConnectedClient> {
        self.get(client).map(|entry| entry.info())
    }

    /// Subscriptions, shared ones among them, and stored sessions: of those who are connected.
    pub fn subscriptions(&self) -> (u64, u64, u64) {
        let all = self.all.lock();
        let mut sums = (0, 0, 0);
        for entry in all.values() {
            let shared = u64::from(entry.shared.load(Relaxed));
            sums.0 += u64::from(entry.subscriptions.load(Relaxed)) + shared;
            sums.1 += shared;
            sums.2 += u64::from(entry.stored);
        }
        sums
    }
}
