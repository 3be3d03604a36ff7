//! One connected client: its task from CONNACK to the end.

use crate::accept::Accepted;
use crate::access::{Peer, Principal};
use crate::aside::next_values;
use crate::authenticate::Enhanced;
use crate::backend::{Backend, FeedId, Position, StorageError};
use crate::broker::Broker;
use crate::clients::Place;
use crate::delivery::{Arrival, Delivery};
use crate::extra::Throttle;
use crate::fence::Fence;
use crate::fit::Fit;
use crate::inbound::{Done, Gathered};
use crate::input::poll_read;
use crate::limits;
use crate::mailbox::{Mailbox, WINDOW};
use crate::metrics::Metrics;
use crate::output::{Output, write_some};
use crate::passing::Passing;
use crate::registry::{Claim, Wanted};
use crate::retained::Retained;
use crate::running::InOrder;
use crate::saving::{Saving, next_saved};
use crate::shared::SharedDelivery;
use crate::sys::Values;
use crate::unfinished::Unfinished;
use bytes::BytesMut;
use mqtt_codec::{Decoder, Packet, PacketId, ReasonCode, TopicFilter};
use mqtt_session::{Close, Delivery as Outgoing, Session};
use std::collections::BTreeSet;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Why the connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said DISCONNECT.
    Disconnected,
    /// The socket ended or failed.
    Lost,
    /// We close it.
    Close(Close),
}

impl From<Close> for End {
    fn from(close: Close) -> End {
        End::Close(close)
    }
}

impl From<StorageError> for End {
    fn from(error: StorageError) -> End {
        tracing::error!(%error, "a connection is closed: storage failed");
        End::Close(Close::new(ReasonCode::SERVER_BUSY, error.to_string()))
    }
}

pub(crate) struct Connection<B: Backend, S> {
    pub(crate) broker: Arc<Broker<B>>,
    claim: Claim,
    pub(crate) principal: Principal,
    pub(crate) enhanced: Option<Box<Enhanced>>,
    /// Was its client id made by the server?
    pub(crate) id_is_made: bool,
    pub(crate) session: Session,
    pub(crate) reader: ReadHalf<S>,
    pub(crate) writer: WriteHalf<S>,
    pub(crate) decoder: Decoder,
    pub(crate) input: BytesMut,
    pub(crate) unfinished: Unfinished,
    /// What the next read from the socket is expected to give, bytes.
    pub(crate) expected: usize,
    pub(crate) output: Output,
    unflushed: bool,
    /// With the backend, in the order of arrival.
    pub(crate) publishing: InOrder<Done>,
    pub(crate) publishing_bytes: usize,
    pub(crate) publishing_messages: usize,
    /// To be with the backend before anything else is awaited.
    pub(crate) gathered: Gathered,
    /// By QoS, not yet in the metrics.
    pub(crate) messages_in: [u64; 3],
    /// Messages that are not stored, on their way to who is connected. There from the first one on.
    pub(crate) passing: Option<Box<Passing>>,
    /// QoS 2, of such messages: packet ids that the client has not released. Storage knows nothing of them.
    pub(crate) unstored_ids: BTreeSet<PacketId>,
    /// A packet that must wait until everything before it is stored: SUBSCRIBE must see the retained messages set before it, and PUBREL the packet id
    /// that it releases.
    pub(crate) deferred: Option<Box<Packet>>,
    pub(crate) delivery: Delivery<B>,
    pub(crate) shared: SharedDelivery<B>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) retained: Retained,
    pub(crate) feeds_generation: u64,
    /// There while it waits for one, or will.
    pub(crate) fence: Option<Box<Fence>>,
    pub(crate) saving: Option<Saving>,
    pub(crate) stored: bool,
    pub(crate) checkpoint_at: Option<Instant>,
    /// Its silence began then.
    pub(crate) last_received: Instant,
    /// Is there room for what comes?
    pub(crate) can_read: bool,
    pub(crate) last_written: Instant,
    pub(crate) place: Place,
    pub(crate) throttle: Option<Box<Throttle>>,
    /// There while a subscription wants `$SYS` topics.
    pub(crate) sys: Option<watch::Receiver<Values>>,
    /// Bytes of the output up to the end of the last delivery in it.
    deliveries_out: usize,
}

pub(crate) fn not_any_more() -> End {
    let text = "the user may not be connected any more";
    Close::new(ReasonCode::NOT_AUTHORIZED, text).into()
}

fn not_its_own(why: Wanted) -> End {
    let text = "another connection has the same client id";
    let close = match why {
        Wanted::ByConnection => Close::new(ReasonCode::SESSION_TAKEN_OVER, text),
        Wanted::ByAdministrator => by_administrator(),
    };
    close.into()
}

pub(crate) fn by_administrator() -> Close {
    let text = "ended by the server's administrator";
    Close::new(ReasonCode::ADMINISTRATIVE_ACTION, text)
}

/// Waits for ever where nothing waits for room.
async fn next_room(passing: &Option<Box<Passing>>) {
    match passing {
        Some(passing) if passing.waits() => passing.room().await,
        _ => pending().await,
    }
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    /// In a box, once for all of its life: whatever holds it holds a pointer.
    pub(crate) fn new(accepted: Box<Accepted<B, S>>, peer: Peer) -> Box<Connection<B, S>> {
        let now = Instant::now();
        let accepted = *accepted;
        let broker = accepted.broker;
        let place = broker.clients.enter(
            &accepted.principal,
            &peer,
            &accepted.session,
            accepted.stored,
            broker.backend.now_ms(),
        );
        Metrics::add(&broker.metrics.connections, 1);
        Metrics::add(&broker.metrics.connections_total, 1);
        let wants_progress = accepted.session.is_persistent() || broker.backend.keeps_for_readers();
        let delivery = Delivery::new(
            broker.backend.clone(),
            broker.hub.clone(),
            wants_progress,
            !accepted.session.is_persistent(),
        );
        let client = accepted.session.client_id().clone();
        Box::new(Connection {
            mailbox: delivery.mailbox().clone(),
            delivery,
            place,
            throttle: Throttle::new(&broker.extra.rates, accepted.share, now),
            sys: None,
            deliveries_out: 0,
            shared: SharedDelivery::new(broker.backend.clone(), client),
            broker,
            claim: accepted.claim,
            principal: accepted.principal,
            enhanced: accepted.enhanced,
            id_is_made: accepted.id_is_made,
            session: accepted.session,
            reader: accepted.reader,
            writer: accepted.writer,
            decoder: accepted.decoder,
            input: accepted.input,
            unfinished: Unfinished::default(),
            expected: 0,
            output: accepted.output,
            unflushed: false,
            publishing: InOrder::default(),
            publishing_bytes: 0,
            publishing_messages: 0,
            gathered: Gathered::default(),
            messages_in: [0; 3],
            passing: None,
            unstored_ids: accepted.unstored_ids,
            deferred: None,
            retained: Retained::default(),
            feeds_generation: accepted.feeds_generation,
            fence: None,
            saving: None,
            stored: accepted.stored,
            checkpoint_at: None,
            last_received: now,
            can_read: false,
            last_written: now,
        })
    }

    /// Everything else of it is over.
    pub(crate) fn into_stream(self: Box<Self>) -> (ReadHalf<S>, WriteHalf<S>) {
        (self.reader, self.writer)
    }

    pub(crate) async fn run(mut self: Box<Self>) {
        self.subscribe_again();
        self.sync_feeds();
        self.shared.sync(&self.session);
        self.delivery.sync_unstored(&self.session);
        self.begin_fence();
        // Without a CONNACK: it would be larger than the client takes, and nothing else may come before it [MQTT-3.2.0-1].
        let end = if self.output.is_empty() {
            End::Lost
        } else {
            match self.serve().await {
                Ok(()) => End::Disconnected,
                Err(end) => end,
            }
        };
        Box::pin(self.finish(end)).await;
    }

    /// `Ok` = DISCONNECT came. What is rare is in boxes: the future of an idle connection has no room for it.
    async fn serve(&mut self) -> Result<(), End> {
        // Who was banned before it was among the clients, and after it was let in, was not found there.
        if self.broker.is_banned(&self.place.entry) {
            return Err(by_administrator().into());
        }
        Box::pin(self.auto_subscribe()).await?;
        let mut wanted = pin!(self.claim.wanted());
        let shutdown = self.broker.shutdown.clone();
        let mut shutdown = pin!(shutdown.cancelled());
        // One timer for all deadlines. It is set again only for an earlier one: those that are put off with every packet cost nothing.
        let mut timer = pin!(sleep_until(self.last_received));
        let mut armed: Option<Instant> = None;
        let mut asks = Vec::new();
        loop {
            if !asks.is_empty() {
                Box::pin(self.answer(std::mem::take(&mut asks))).await?;
            }
            if self.take_packets().await? {
                return Ok(());
            }
            if let Some(filter) = self.next_retained()? {
                Box::pin(self.read_retained(filter)).await?;
            }
            let mut more = self.put_packets();
            // What they waited for may be on its way now.
            more |= self.next_retained()?.is_some();
            self.look_for_room();
            if let Some(due) = self.next_deadline()
                && armed.is_none_or(|at| due < at)
            {
                timer.as_mut().reset(due);
                armed = Some(due);
            }
            tokio::select! {
                why = &mut wanted => return Err(not_its_own(why)),
                () = &mut shutdown => {
                    return Err(Close::new(ReasonCode::SERVER_SHUTTING_DOWN, "shutting down").into());
                }
                () = self.principal.revoked() => {
                    return Err(not_any_more());
                }
                () = &mut timer, if armed.is_some() => {
                    armed = None;
                    self.deadlines()?;
                }
                Some(done) = self.publishing.next(), if !self.publishing.is_empty() => self.published(done)?,
                (mark, result) = next_saved(&mut self.saving) => {
                    self.saving = None;
                    result?;
                    self.session.saved(mark);
                }
                arrival = self.delivery.next() => self.arrived(arrival)?,
                asked = self.place.entry.asked() => asks = asked,
                changed = next_values(&mut self.sys) => self.offer_values(changed),
                () = next_room(&self.passing) => {
                    if let Some(passing) = &mut self.passing {
                        passing.retry(&self.broker.metrics);
                    }
                }
                done = self.shared.next() => self.shared.done(done, &mut self.session)?,
                written = write_some(&mut self.writer, &mut self.output, self.unflushed, &self.mailbox) => match written {
                    Ok(0) => self.unflushed = false,
                    Ok(n) => {
                        Metrics::add(&self.broker.metrics.bytes_out, n as u64);
                        self.last_written = Instant::now();
                        self.unflushed = true;
                        if self.deliveries_out > 0 {
                            self.deliveries_out = self.deliveries_out.saturating_sub(n);
                            self.note_waiting(true, true);
                        }
                    }
                    Err(_) => return Err(End::Lost),
                },
                read = poll_fn(|cx| poll_read(Pin::new(&mut self.reader), &mut self.input, &mut self.expected, cx)), if self.can_read => match read {
                    Ok(n) if n > 0 => {
                        Metrics::add(&self.broker.metrics.bytes_in, n as u64);
                        self.last_received = Instant::now();
                        self.throttle_bytes(n);
                    }
                    _ => return Err(End::Lost),
                },
                () = std::future::ready(()), if more => {}
            }
        }
    }

    /// Where there was none until now, what the client has sent meanwhile is yet to be read: its silence begins now.
    fn look_for_room(&mut self) {
        let could_read = self.can_read;
        self.can_read = !self.is_full() && self.deferred.is_none() && self.heard_at().is_none();
        if self.can_read && !could_read {
            self.last_received = Instant::now();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= limits::MAX_OUTPUT
            || self.publishing.len().max(self.publishing_messages) >= limits::MAX_PUBLISHING
            || self.publishing_bytes >= limits::MAX_PUBLISHING_BYTES
            || self.passing.as_ref().is_some_and(|passing| passing.waits())
            // PUBREC adds one each, also while they wait for a save.
            || self.session.deliveries_waiting() >= 4 * limits::MAX_HELD_BACK
    }

    pub(crate) fn write(&mut self, packet: &Packet) {
        if self.output.is_empty() {
            self.last_written = Instant::now();
        }
        Metrics::add(&self.broker.metrics.packets_out, 1);
        let fit = Fit {
            version: self.session.version(),
            maximum_packet_size: self.session.client_maximum_packet_size(),
            problem_information: self.session.wants_problem_information(),
        };
        if !fit.encode(packet, self.output.tail()) {
            tracing::debug!(client = %self.session.client_id(), "an answer is not sent: it is larger than the client takes");
        }
    }

    pub(crate) fn put_replies(&mut self) {
        while let Some(packet) = self.session.poll_reply() {
            self.write(&packet);
        }
    }

    /// Moves messages towards the socket. `true` = there is more to move at once.
    fn put_packets(&mut self) -> bool {
        let now_ms = self.broker.backend.now_ms();
        self.put_replies();
        self.put_deliveries(now_ms);
        let mut more = false;
        if self.output.len() < limits::MAX_OUTPUT
            && self.session.deliveries_waiting() < limits::MAX_HELD_BACK
        {
            more = self.offer_retained(now_ms);
            // Retained messages that wait for nothing go first: what the feeds bring is newer.
            if !self.retained.is_sending() {
                more |= self.delivery.offer(&mut self.session, now_ms);
                self.give_on();
                more |= self.shared.offer(&mut self.session, now_ms);
            }
            self.put_deliveries(now_ms);
            let waits = self.retained.is_sending() || self.delivery.window_full();
            let waits = waits || self.session.deliveries_waiting() >= limits::MAX_HELD_BACK;
            self.mailbox.set_blocked(WINDOW, waits);
        }
        match self.session.take_dropped() {
            0 => {}
            dropped => Metrics::add(&self.broker.metrics.dropped, dropped),
        }
        self.shared.begin(
            &mut self.session,
            self.output.len() < limits::MAX_OUTPUT && !self.retained.is_sending(),
        );
        self.delivery.begin(self.feeds_generation, &self.session);
        if self.session.wants_save() && self.saving.is_none() {
            self.begin_save();
        }
        if self.checkpoint_at.is_none() && self.session.is_dirty() {
            self.checkpoint_at = Some(Instant::now() + limits::CHECKPOINT_INTERVAL);
        }
        let waits = self.deliveries_out > 0
            || self.retained.is_sending()
            || self.delivery.waits()
            || self.shared.waits();
        self.note_waiting(waits, more);
        self.place.entry.update(&self.session);
        more
    }

    fn put_deliveries(&mut self, now_ms: i64) {
        let version = self.session.version();
        let mut by_qos = [0; 3];
        self.output.expect(self.session.deliveries_waiting());
        while self.output.len() < limits::MAX_OUTPUT {
            let Some(delivery) = self.session.poll_delivery(now_ms) else {
                break;
            };
            if self.output.is_empty() {
                self.last_written = Instant::now();
            }
            match &delivery {
                Outgoing::Publish(publish) => {
                    if let Some(count) = by_qos.get_mut(usize::from(publish.qos() as u8)) {
                        *count += 1;
                    }
                    publish.encode_head(version, now_ms, self.output.tail());
                    self.output.put_payload(publish.payload());
                }
                Outgoing::PubRel { .. } => delivery.encode(version, now_ms, self.output.tail()),
            }
            self.deliveries_out = self.output.len();
        }
        Metrics::add(&self.broker.metrics.packets_out, by_qos.iter().sum());
        Metrics::add_by_qos(&self.broker.metrics.messages_out, by_qos);
    }

    pub(crate) fn arrived(&mut self, arrival: Arrival) -> Result<(), End> {
        match arrival {
            Arrival::Progress => {}
            Arrival::Mail {
                lost,
                positions,
                wants_fence,
            } => {
                self.lost(lost);
                if positions {
                    let lost = self.delivery.settle(&mut self.session);
                    self.lost(lost);
                }
                if wants_fence {
                    self.begin_fence();
                } else {
                    self.fence_later();
                }
            }
            Arrival::Gone(feed) => {
                self.session.forget_feed(feed);
                self.sync_feeds();
                self.begin_fence();
            }
            Arrival::Failed(error) => return Err(StorageError(error.to_string()).into()),
            Arrival::Feeds => {
                let generation = self.broker.backend.feeds_generation();
                if generation != self.feeds_generation {
                    self.look_for_feeds(generation);
                    self.sync_feeds();
                }
            }
        }
        Ok(())
    }

    /// Those that are new to the subscriptions there are.
    fn look_for_feeds(&mut self, generation: u64) {
        self.feeds_generation = generation;
        let filters = self.session.subscriptions().iter();
        let filters: Vec<TopicFilter> = filters.map(|(filter, _)| filter.clone()).collect();
        for filter in &filters {
            let feeds = self.broker.backend.feeds_for(filter);
            self.session.add_new_feeds(feeds);
        }
    }

    /// What a new filter can match on, with the ends, from which on it counts. Of what is as new to the subscriptions there are, these want everything:
    /// they get to know it first.
    pub(crate) fn feeds_for(&mut self, filter: &TopicFilter) -> Vec<(FeedId, Position)> {
        let backend = self.broker.backend.clone();
        let generation = backend.feeds_generation();
        let ends = backend.feeds_for(filter);
        if backend.feeds_generation() != self.feeds_generation {
            self.look_for_feeds(generation);
        }
        ends
    }

    pub(crate) fn lost(&self, count: u64) {
        if count > 0 {
            Metrics::add(&self.broker.metrics.dropped, count);
        }
    }

    /// The subscriptions of a session that is resumed.
    fn subscribe_again(&mut self) {
        let filters = self.session.subscriptions().iter();
        let filters: Vec<TopicFilter> = filters.map(|(filter, _)| filter.clone()).collect();
        for filter in filters.iter().filter(|filter| !filter.is_shared()) {
            if let Err(error) = self.delivery.subscribe(filter) {
                tracing::warn!(client = %self.session.client_id(), %filter, %error, "a subscription of a resumed session is taken away");
                self.broker.unsubscribe_session(&mut self.session, filter);
                self.broker.keep_wanted_feeds(&mut self.session);
            }
        }
    }

    /// After a change of the session's feeds.
    pub(crate) fn sync_feeds(&mut self) {
        let lost = self.delivery.sync(&self.session);
        self.lost(lost);
    }
}
