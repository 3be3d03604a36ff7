//! Where a broker's host keeps things. The connection task and the delivery loop are the same on the
//! edge and in the core; everything in which they differ is in this trait.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mqtt_codec::{PacketId, TopicFilter};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use mqtt_session::{
    ClientId, Expiry, FeedId, Message, MessageProperties, Position, SharedMessage,
};

/// A message as it came from a client. [`crate::convert::new_record`] makes the record of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub message: Message,
    /// Who published it. Of a will: whose will it is.
    pub publisher: ClientId,
}

/// Which will of its client one is: no other connection has the same two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillOf {
    /// [`mqtt_session::Session::tag`].
    pub session: u64,
    /// [`mqtt_session::Session::epoch`].
    pub connection: u64,
}

/// Why a publish was not taken. The broker answers with the reason code of MQTT 5; a 3.1.1
/// connection has no code to answer with and is closed, so that the client tries again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// 0x87. For 3.1.1 the message is acknowledged and dropped (section 3.3.5 allows nothing better than that or closing).
    #[error("not authorised to publish to this topic")]
    NotAuthorized,
    /// 0x90. The topic can not be mapped to a stream.
    #[error("the topic can not be stored: {0}")]
    TopicNameInvalid(String),
    /// 0x97. A bound (bytes, streams) is reached, or the message is too large to be stored.
    #[error("quota exceeded: {0}")]
    QuotaExceeded(String),
    /// 0x97. There is no room for it now (disk full, log or lane at its bound, too much waiting); nothing was written, and later it may be.
    #[error("no room: {0}")]
    Full(String),
    /// 0x89 for the connection: storage failed or is closing. Nothing is acknowledged, the connection is closed.
    #[error("storage is not available: {0}")]
    Unavailable(String),
}

/// What becomes of a stored session together with its will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is not stored.
    Nothing,
    Save(SavedSession),
    Delete,
}

/// Storage failed; the text says what, on what, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// Why a client may not connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("bad user name or password")]
    BadUserNameOrPassword,
    #[error("not authorised")]
    NotAuthorized,
    #[error("the server is not available")]
    ServerUnavailable,
    /// Too many attempts that failed: this one was not looked at. 0x9F; 3.1.1 has 3, not available.
    #[error("too many attempts that failed")]
    RateExceeded,
    /// 0x8C; there is no such thing before MQTT 5.
    #[error("this authentication method is not offered")]
    BadAuthenticationMethod,
    /// 0x82: what the client said is not a message of the method it named.
    #[error("malformed authentication data")]
    MalformedData,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The feed was deleted. The session forgets it.
    #[error("the feed is gone")]
    Gone,
    /// The session is closed without an acknowledgement of anything and can come back.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Does the reader want the message at this position, on this topic?
pub type Wanted<'a> = &'a (dyn Fn(Position, &str) -> bool + Send + Sync);

/// For [`Backend::read`].
pub fn everything(_: Position, _: &str) -> bool {
    true
}

/// What was read from a feed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedRead {
    /// In order. Each position is at or above the one asked for. Messages that are not for MQTT clients
    /// (control records, tombstones of no meaning to MQTT) may be left out.
    pub messages: Vec<(Position, Message)>,
    /// Where to read on: above every position in `messages`. Equal to the `from` asked for = nothing is there yet.
    pub next: Position,
    /// How many messages between `from` and the first one returned no longer exist (retention). Counted as dropped.
    pub lost: u64,
}

/// A persistent session as it is stored. Self-contained in `bytes`; the other fields are what a host needs to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedSession {
    /// Goes up with every connection that takes the session over. A host refuses to replace a session by one of
    /// a lower epoch (with [`StorageError`]): it is a stale connection that does not know yet.
    pub epoch: u64,
    /// What the session may still read again: a host keeps feed data from these positions on (or accepts to report it as `lost`).
    pub checkpoints: Vec<(FeedId, Position)>,
    /// Opaque, versioned by mqtt-session.
    pub bytes: Bytes,
}

/// A message of a shared group that one member was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    pub feed: FeedId,
    pub at: Position,
    pub message: std::sync::Arc<SharedMessage>,
}

/// By how much a clock was off that has been set: what it said from `from_ms` to `to_ms` was `add_ms` too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSet {
    pub from_ms: i64,
    pub to_ms: i64,
    pub add_ms: i64,
}

/// Has the expiry of a message that was made at `now_ms` follow the clock.
pub(crate) fn by_clock<B: Backend>(backend: &B, message: &mut Message, now_ms: i64) {
    if let Some(expiry) = &message.expires_at {
        let left = expiry.at().saturating_sub(now_ms);
        message.expires_at = Some(backend.expires_in(left));
    }
}

/// Storage behind a broker. One instance serves one namespace. All methods are called concurrently.
///
/// Futures are dropped when a connection dies: a write that was begun must then complete or not, as a whole.
pub trait Backend: Send + Sync + 'static {
    /// Milliseconds since the epoch, by the clock that record timestamps use.
    fn now_ms(&self) -> i64;

    /// Resolves, once, when it has turned out that [`Backend::now_ms`] was wrong from the start on; it is right from then on. Who asks after that is
    /// answered at once, and nobody sees the new time before. Cancel-safe.
    fn clock_set(&self) -> impl Future<Output = ClockSet> + Send {
        std::future::pending()
    }

    /// When something is over that has so much time left, in milliseconds: put right with the clock, where that does not know the time yet.
    fn expires_in(&self, ms: i64) -> Expiry {
        self.now_ms().saturating_add(ms).into()
    }

    /// Stores a message. Resolves when it is durable, as far as its QoS asks: for QoS 0 (`publish.message.qos`)
    /// it may resolve when the message is accepted in memory.
    ///
    /// * The broker keeps many of these going at a time for one connection. They are polled for the first time in
    ///   the order of arrival; messages of one connection to one topic must come into the log in that order.
    /// * `message.retain`: the retained message of the topic is replaced in the same write; an empty payload
    ///   deletes it [MQTT-3.3.1-6, 3.3.1-7]. Store `convert::encode_retained(&message)`. The message is also appended as any other.
    /// * `exactly_once`: in the same write, this packet id is put to the client's unreleased ones. The broker never
    ///   calls it twice for an id which is in [`Backend::unreleased`] or which it has put there itself.
    fn publish(
        &self,
        publish: Publish,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// [`Backend::publish`] for messages that one connection sent together, none of them retained; with those of QoS 2 their packet ids. An answer for
    /// each, in order. A host that writes them together spares what each of them would cost alone.
    fn publish_all(
        &self,
        publishes: Vec<(Publish, Option<PacketId>)>,
    ) -> impl Future<Output = Vec<Result<(), PublishError>>> + Send {
        let each = publishes.into_iter().map(|(publish, packet_id)| {
            let exactly_once = packet_id.map(|id| (publish.publisher.clone(), id));
            self.publish(publish, exactly_once)
        });
        let each: Vec<_> = each.collect();
        futures_util::future::join_all(each)
    }

    /// Publishes the will of a session that is stored, and saves the session without it, or deletes it (`None`). After a crash in between, a session
    /// whose will has been published still has it, and this is called again: a host that does both in one write, or that stores with the message
    /// whose will it is and looks for that first, publishes no will twice.
    fn publish_will(
        &self,
        will: Publish,
        of: WillOf,
        session: Option<SavedSession>,
    ) -> impl Future<Output = Result<(), PublishError>> + Send {
        let _ = of;
        async move {
            let client = will.publisher.clone();
            self.publish(will, None).await?;
            let settled = match session {
                Some(session) => self.save_session(&client, session).await,
                None => self.delete_session(&client).await,
            };
            settled.map_err(|error| PublishError::Unavailable(error.to_string()))
        }
    }

    /// Takes a will that was refused with [`PublishError::Full`], and is due: a host that has [`crate::later::Later`] puts it to what it publishes
    /// later, in one write with what becomes of the session, and publishes it once, when there is room. Resolves when that is durable. An error:
    /// nothing was changed.
    fn keep_will(
        &self,
        will: Publish,
        rest: Rest,
    ) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = (will, rest);
        let refused = "wills are not kept here".to_owned();
        std::future::ready(Err(StorageError(refused)))
    }

    /// Takes a message that is to be published after `delay_ms`. Resolves when that is durable: it survives a restart, and is published
    /// once. `exactly_once` as in [`Backend::publish`]. A host without this refuses; one that has it is [`crate::later::Later`].
    fn publish_later(
        &self,
        publish: Publish,
        delay_ms: i64,
        exactly_once: Option<(ClientId, PacketId)>,
    ) -> impl Future<Output = Result<(), PublishError>> + Send {
        let _ = (publish, delay_ms, exactly_once);
        let refused = "delayed messages are not offered here".to_owned();
        std::future::ready(Err(PublishError::TopicNameInvalid(refused)))
    }

    /// Called before a retained message is published, now or later: a host that has [`crate::sweeping::Sweep`] deletes those that have expired, where it
    /// finds no room otherwise. What the same connection published before has its place then.
    fn make_retained_room(&self, message: &Message) -> impl Future<Output = ()> + Send {
        let _ = message;
        std::future::ready(())
    }

    /// PUBRELs came: takes the packet ids from the client's unreleased ones. PUBCOMPs are sent after this resolves.
    /// An unknown id is not an error. Resolves when the release is durable: the client re-uses an id after PUBCOMP, and
    /// a release that a crash forgot would make its next message look like a repetition, and lose it.
    fn release(
        &self,
        client: &ClientId,
        packet_ids: &[PacketId],
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// QoS 2 messages of this client that were stored and not yet released. Asked once a connection.
    fn unreleased(
        &self,
        client: &ClientId,
    ) -> impl Future<Output = Result<Vec<PacketId>, StorageError>> + Send;

    /// What is there and can not be read, because it is damaged or of a later version, is one without bytes: its client gets a new session in its
    /// place. An error: storage does not answer.
    fn load_session(
        &self,
        client: &ClientId,
    ) -> impl Future<Output = Result<Option<SavedSession>, StorageError>> + Send;

    /// Resolves when durable.
    fn save_session(
        &self,
        client: &ClientId,
        session: SavedSession,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Forgets the session and the unreleased packet ids of the client. Resolves when durable. Unknown is not an error.
    fn delete_session(
        &self,
        client: &ClientId,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// All stored sessions: asked once at start, for session expiry and for wills of connections that died with the process.
    fn sessions(
        &self,
    ) -> impl Future<Output = Result<Vec<(ClientId, SavedSession)>, StorageError>> + Send;

    /// A hint, not durable: what a connected session may still read. A host that deletes what everybody has read
    /// keeps data from these positions on. Called about once a second and with an empty slice when the client is gone
    /// (then the checkpoints of its [`SavedSession`], if any, count again).
    fn progress(&self, client: &ClientId, positions: &[(FeedId, Position)]) {
        let _ = (client, positions);
    }

    /// How often the positions of connected sessions that outlive their connections move on although nothing matches what they subscribe to.
    /// A tenth of them at a time.
    fn progress_every(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Does [`Backend::progress`] matter of sessions that end with their connections, too?
    fn keeps_for_readers(&self) -> bool {
        false
    }

    /// The retained messages whose topics match, `retain` set, `qos` as published, `expires_at` kept. Expired ones may be left out.
    /// A prefix walk on the part of the filter before the first wildcard is enough of an index.
    /// Must contain every retained publish that was acknowledged before the call.
    fn retained(
        &self,
        filter: &TopicFilter,
    ) -> impl Future<Output = Result<Vec<Message>, StorageError>> + Send;

    /// How many retained messages there are, where that is known without counting.
    fn retained_count(&self) -> Option<u64> {
        None
    }

    /// Every existing feed on which a message that matches the filter can be, with its end: a message that is
    /// acknowledged after this call is at or above that position; one acknowledged before is below it.
    /// A feed that is not named now and is named later counts as new: sessions read it from [`Position::START`].
    fn feeds_for(&self, filter: &TopicFilter) -> Vec<(FeedId, Position)>;

    /// Moves whenever the answer of [`Backend::feeds_for`] can have changed.
    fn feeds_generation(&self) -> u64;

    /// Reads from a position on, about `max_bytes` of payload, at least one message if there is one. Does not wait for data.
    /// Gives only what is durable (or whose durability class does not ask for it), and of it what is wanted: of the rest no message is made.
    fn read(
        &self,
        feed: FeedId,
        from: Position,
        max_bytes: usize,
        wanted: Wanted<'_>,
    ) -> impl Future<Output = Result<FeedRead, ReadError>> + Send;

    /// What [`Backend::publish`] has accepted until now, for [`Backend::is_readable`]: of a host that resolves it before [`Backend::feeds_for`] gives
    /// an end above the message.
    fn accepted(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Does [`Backend::feeds_for`] give ends above all that was accepted then?
    fn is_readable(&self, accepted: &[u64]) -> bool {
        let _ = accepted;
        true
    }

    /// Resolves when one of the feeds has data at or above its position, or is gone, or when
    /// `feeds_generation` differs from the given one. At once if that is so already. Never polls by sleeping. Says of which feeds the
    /// former is true; of none when it is the generation that moved.
    fn wait(
        &self,
        positions: &[(FeedId, Position)],
        feeds_generation: u64,
    ) -> impl Future<Output = Vec<FeedId>> + Send;

    /// Resolves when `feeds_generation` differs from the given one. Every connection with a subscription has one of these all the time, so a host
    /// with many connections sees to it that it is small.
    fn feeds_changed(self: &Arc<Self>, feeds_generation: u64) -> BoxFuture<'static, ()> {
        let backend = self.clone();
        Box::pin(async move {
            backend.wait(&[], feeds_generation).await;
        })
    }

    // Shared subscriptions (MQTT 5 section 4.8.2). A group is named by the whole filter `$share/{ShareName}/{filter}`, which is a valid one
    // (`TopicFilter::share`). It exists as long as it has a member, connected or not, and gives each message that is acknowledged after it
    // began to exactly one of them. `crate::MemoryShares` is all of this over the feeds, for hosts that have a place for where a group is.

    /// Makes the client a member; the first member makes the group, which begins with what is acknowledged after this call. Of
    /// what the group has given out, the client has exactly `holds`: nobody else gets that, and anything else it had goes to others.
    /// Resolves when the group is durable, as far as the host keeps groups at all.
    fn shared_join(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        holds: Vec<(FeedId, Position)>,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Waits until there is something for the client, and gives it: it is the client's then, until it is settled or released. At most
    /// `max_messages`, of about `max_bytes`; less than what is there where other members wait as well. Dropped before its end
    /// it has taken nothing. `Gone`: there is no such group.
    fn shared_take(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        max_messages: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Taken>, ReadError>> + Send;

    /// The client is done with these: nobody gets them any more. Resolves when that is durable, or, of a host that has
    /// [`Backend::shared_flush`], will be before a session is saved or deleted after it. What the client does not have is ignored.
    fn shared_settle(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Vec<(FeedId, Position)>,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Resolves when what was settled of the group before this call is durable: of a host whose [`Backend::shared_settle`] does not wait for that.
    fn shared_flush(
        &self,
        share: &TopicFilter,
    ) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = share;
        std::future::ready(Ok(()))
    }

    /// Gives these back, at once, to their old places; `None` = all that the client has.
    fn shared_release(
        &self,
        share: &TopicFilter,
        client: &ClientId,
        places: Option<Vec<(FeedId, Position)>>,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// The client is no member any more; what it has stays with it. The group ends with its last member, durably.
    fn shared_leave(
        &self,
        share: &TopicFilter,
        client: &ClientId,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// All sessions that were stored have joined again: what other groups are stored have no member, and end. Called once at start.
    fn shared_recovered(&self) -> impl Future<Output = Result<(), StorageError>> + Send;
}
