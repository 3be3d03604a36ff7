use crate::accept;
use crate::access::{Access, Everybody, Peer};
use crate::backend::{Backend, ClientId, FeedId, StorageError};
use crate::clients::Clients;
use crate::clock::ByNewClock;
use crate::connection::Connection;
use crate::deadlines::{self, Deadlines};
use crate::extra::{Addresses, Bans, ConnectionRate, Exclusives, Extra, SlowSubscribers};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::sys::{self, Sys};
use crate::unfinished::Room;
use crate::unsettled::{self, Unsettled};
use mqtt_codec::limits::MAX_CONNECT_SIZE;
use mqtt_codec::{ReasonCode, TopicFilter};
use mqtt_session::{Limits, Session};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// A broker over one backend: what its connections share.
pub struct Broker<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) hub: Arc<Hub<B>>,
    pub(crate) access: Arc<dyn Access>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Arc<Registry>,
    pub(crate) deadlines: Deadlines,
    pub(crate) by_new_clock: ByNewClock,
    pub(crate) unsettled: Unsettled,
    pub(crate) extra: Extra,
    pub(crate) clients: Arc<Clients>,
    pub(crate) exclusives: Exclusives,
    pub(crate) connection_rate: ConnectionRate,
    pub(crate) addresses: Addresses,
    /// Of clients that are connected, and of those that are not known yet: these take nothing from the others.
    pub(crate) unfinished: Arc<Room>,
    pub(crate) unfinished_newcomers: Arc<Room>,
    pub(crate) bans: Bans,
    pub(crate) slow: SlowSubscribers,
    pub(crate) sys: Sys,
    pub(crate) shutdown: CancellationToken,
}

impl<B: Backend> Broker<B> {
    /// [`Broker::start_with`] for everybody.
    pub async fn start(
        backend: Arc<B>,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> Result<Arc<Broker<B>>, StorageError> {
        Broker::start_with(backend, Arc::new(Everybody), limits, shutdown).await
    }

    /// [`Broker::start_extended`] with nothing beside the protocol.
    pub async fn start_with(
        backend: Arc<B>,
        access: Arc<dyn Access>,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> Result<Arc<Broker<B>>, StorageError> {
        let extra = Extra {
            sys_interval: None,
            ..Extra::default()
        };
        Broker::start_extended(backend, access, limits, extra, shutdown).await
    }

    /// Reads the stored sessions and starts the task that looks after those whose client is away. When `shutdown` is
    /// cancelled every connection says so to its client (0x8B), saves its session and ends: the host waits for its `serve` calls.
    pub async fn start_extended(
        backend: Arc<B>,
        access: Arc<dyn Access>,
        limits: Limits,
        extra: Extra,
        shutdown: CancellationToken,
    ) -> Result<Arc<Broker<B>>, StorageError> {
        let mut number = [0; 8];
        getrandom::fill(&mut number)
            .map_err(|error| StorageError(format!("no random numbers: {error}")))?;
        let number = u64::from_be_bytes(number);
        let rules = extra.persist.clone();
        let of_newcomers = extra.unfinished_bytes / 4;
        let broker = Arc::new(Broker {
            hub: Hub::new(
                backend.clone(),
                rules,
                extra.retained,
                number,
                shutdown.clone(),
            ),
            backend,
            access,
            limits,
            metrics: Metrics::default(),
            registry: Arc::default(),
            deadlines: Deadlines::default(),
            by_new_clock: ByNewClock::default(),
            unsettled: Unsettled::default(),
            clients: Arc::default(),
            exclusives: Exclusives::default(),
            connection_rate: ConnectionRate::new(&extra.rates),
            addresses: Addresses::new(extra.addresses),
            unfinished: Room::new(
                extra.unfinished_bytes - of_newcomers,
                limits.maximum_packet_size as usize,
            ),
            unfinished_newcomers: Room::new(of_newcomers, MAX_CONNECT_SIZE),
            bans: Bans::default(),
            slow: SlowSubscribers::default(),
            sys: Sys::default(),
            extra,
            shutdown,
        });
        deadlines::recover(&broker).await?;
        tokio::spawn(deadlines::run(broker.clone()));
        tokio::spawn(unsettled::run(broker.clone()));
        if let Some(every) = broker.extra.sys_interval {
            tokio::spawn(sys::run(broker.clone(), every));
        }
        Ok(broker)
    }

    /// [`Broker::serve_peer`] for a client of which nothing is known.
    pub async fn serve<S>(self: &Arc<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.serve_peer(stream, Peer::default()).await;
    }

    /// Serves one client until its connection is over and everything it left is stored. To be spawned by the host; must not be aborted
    /// at shutdown (it ends by itself).
    pub async fn serve_peer<S>(self: &Arc<Self>, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        // What is refused is told so when it has said who it is: nothing before that has a way to.
        let Some(place) = self.addresses.enter(peer.address.map(|at| at.ip())) else {
            Metrics::add(&self.metrics.connections_refused, 1);
            return;
        };
        // Each in a box of its own: a task that is idle does not carry room for how its connection began.
        match Box::pin(accept::accept(self, stream, &peer, &place)).await {
            Some(accepted) => Connection::new(accepted, peer).run().await,
            None => Metrics::add(&self.metrics.connections_refused, 1),
        }
    }

    /// Takes a subscription out of a session; others may have what it had for itself with it.
    pub(crate) fn unsubscribe_session(
        &self,
        session: &mut Session,
        filter: &TopicFilter,
    ) -> ReasonCode {
        self.exclusives.release(filter, session.client_id());
        session.handle_unsubscribe(filter)
    }

    /// To be called when a session has lost subscriptions: it keeps its place in the feeds that the others want. What only those wanted that are gone
    /// need not be kept for it, nor read.
    pub(crate) fn keep_wanted_feeds(&self, session: &mut Session) {
        let filters = session.subscriptions().iter();
        let feeds = filters.flat_map(|(filter, _)| self.backend.feeds_for(filter));
        let wanted: BTreeSet<FeedId> = feeds.map(|(feed, _)| feed).collect();
        session.keep_feeds(|feed| wanted.contains(&feed));
    }

    /// The session is over: others may have what it had for itself, and nothing is remembered of it.
    pub(crate) fn forget(&self, session: &Session) {
        self.hub.unstored.take_unreleased(session.client_id());
        self.deadlines.forget(session.client_id());
        self.by_new_clock.remove(session.client_id());
        for filter in session.exclusive() {
            self.exclusives.release(filter, session.client_id());
        }
    }

    /// A connection has ended.
    pub(crate) fn note_end(&self, client: &ClientId) {
        if let Some(flapping) = &self.extra.flapping
            && !self.shutdown.is_cancelled()
        {
            self.bans.ended(flapping, client);
        }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn backend(&self) -> &Arc<B> {
        &self.backend
    }
}
