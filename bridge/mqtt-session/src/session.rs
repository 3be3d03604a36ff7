use crate::in_flight::InFlights;
use crate::retained::Due;
use crate::shared::{Settling, SharedSubscription};
use crate::subscriptions::Subscriptions;
use crate::{ClientId, Delivery, FeedId, Gate, Limits, Message, Position, limits};
use mqtt_codec::{Packet, PacketId, TopicFilter, TopicName, Version};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// A will that waits for the connection to die (section 3.1.2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct PendingWill {
    /// `expires_at` is not set: the interval below counts from the publication.
    pub message: Message,
    pub message_expiry: Option<u32>,
    /// Seconds.
    pub delay: u32,
}

impl PendingWill {
    pub fn into_message(self, now_ms: i64) -> Message {
        let mut message = self.message;
        message.expires_at = self
            .message_expiry
            .map(|seconds| now_ms.saturating_add(i64::from(seconds) * 1000).into());
        message
    }
}

/// One session and, while the client is connected, its connection. The first block survives the
/// connection (and the process, see `to_bytes`); the second is of one connection.
#[derive(Debug)]
pub struct Session {
    pub(crate) client_id: ClientId,
    /// Random, made with the session.
    pub(crate) tag: u64,
    pub(crate) epoch: u64,
    /// Seconds after the connection; 0 = ends with it; `u32::MAX` = never.
    pub(crate) expiry_interval: u32,
    pub(crate) disconnected_at: Option<i64>,
    pub(crate) subscriptions: Subscriptions,
    /// Filters of `subscriptions` that no other session may subscribe to in the same way.
    pub(crate) exclusive: BTreeSet<TopicFilter>,
    /// By the whole filter, `$share/...`.
    pub(crate) shared: BTreeMap<TopicFilter, SharedSubscription>,
    /// What the client is done with and its group does not know durably yet.
    pub(crate) settling: VecDeque<Settling>,
    /// Up to where each feed was handed over.
    pub(crate) feeds: BTreeMap<FeedId, Position>,
    /// Which subscriptions are still to get retained messages.
    pub(crate) due: Due,
    pub(crate) in_flight: InFlights,
    /// In a box: most clients have none, and all sessions would have room for one.
    pub(crate) will: Option<Box<PendingWill>>,

    pub(crate) connection: Connection,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub version: Version,
    /// See [`mqtt_codec::Connect::is_bridge`].
    pub is_bridge: bool,
    pub limits: Limits,
    /// Effective, seconds.
    pub keep_alive: u16,
    /// As CONNECT said: a DISCONNECT can not make 0 into more.
    pub connect_expiry: u32,
    /// QoS 1 and 2 messages that may be unacknowledged by the client.
    pub send_quota: usize,
    pub client_maximum_packet_size: usize,
    /// Request Problem Information of CONNECT.
    pub problem_information: bool,
    pub aliases: HashMap<u16, TopicName>,
    /// Topic aliases that may be set towards the client, and those that are.
    pub aliases_to_client: u16,
    pub sent_aliases: HashMap<TopicName, u16>,
    /// It goes on with a session that was there.
    pub resumed: bool,
    /// Something of the connection before is yet to be sent again.
    pub resends: bool,
    /// QoS 2, receiver side: stored and not yet released (or on the way to it), and whether PUBREC has said so.
    pub unreleased: BTreeMap<PacketId, bool>,
    /// QoS 1 publishes handed to storage and not yet answered.
    pub storing: usize,
    pub replies: VecDeque<Packet>,
    pub deliveries: VecDeque<Waiting>,
    pub next_delivery: u64,
    /// Deliveries below this number are covered by a saved snapshot.
    pub saved_deliveries: u64,
    /// Deliveries below this number are covered by what the groups are being told, and by what they know durably.
    pub settling_deliveries: u64,
    pub settled_deliveries: u64,
    pub dirty: bool,
    /// Messages that were too large for the client, over before they could be sent, or gone when they had to be sent again.
    pub dropped: u64,
    pub gate: Gate,
    /// Marks the client's own messages for No Local.
    pub origin: u64,
}

/// What has to be durable before a delivery may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    /// The session as it was when the delivery was made, or later.
    Save,
    /// That its group gives the message to nobody else.
    Settling,
}

/// A delivery with its number.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub number: u64,
    pub after: After,
    pub delivery: Delivery,
}

impl Connection {
    pub fn new(version: Version, limits: Limits) -> Connection {
        Connection {
            version,
            is_bridge: false,
            limits,
            keep_alive: 0,
            connect_expiry: 0,
            send_quota: usize::from(limits.max_in_flight),
            client_maximum_packet_size: usize::MAX,
            problem_information: true,
            aliases: HashMap::new(),
            aliases_to_client: 0,
            sent_aliases: HashMap::new(),
            resumed: false,
            resends: false,
            unreleased: BTreeMap::new(),
            storing: 0,
            replies: VecDeque::new(),
            deliveries: VecDeque::new(),
            next_delivery: 0,
            saved_deliveries: 0,
            settling_deliveries: 0,
            settled_deliveries: 0,
            dirty: false,
            dropped: 0,
            gate: Gate::default(),
            origin: 0,
        }
    }
}

impl Session {
    pub(crate) fn new(client_id: ClientId, tag: u64, epoch: u64) -> Session {
        Session {
            client_id,
            tag,
            epoch,
            expiry_interval: 0,
            disconnected_at: None,
            subscriptions: Subscriptions::default(),
            exclusive: BTreeSet::new(),
            shared: BTreeMap::new(),
            settling: VecDeque::new(),
            feeds: BTreeMap::new(),
            due: Due::default(),
            in_flight: InFlights::new(PacketId::MAX),
            will: None,
            connection: Connection::new(Version::V5, Limits::default()),
        }
    }

    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// What messages of this connection have to pass.
    pub fn set_gate(&mut self, gate: Gate) {
        self.connection.gate = gate;
    }

    /// Random, made with the session: no other session has it, not even one of the same client.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    pub fn version(&self) -> Version {
        self.connection.version
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Does it outlive the connection?
    pub fn is_persistent(&self) -> bool {
        self.expiry_interval > 0
    }

    /// For which it outlives the connection; `u32::MAX` = it does not end.
    pub fn expiry_seconds(&self) -> u32 {
        self.expiry_interval
    }

    /// Silence after which the connection is to be closed [MQTT-3.1.2-22].
    pub fn keep_alive_deadline(&self) -> Option<Duration> {
        limits::keep_alive_deadline(self.connection.keep_alive)
    }

    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    pub fn feeds(&self) -> &BTreeMap<FeedId, Position> {
        &self.feeds
    }

    pub fn in_flight_len(&self) -> usize {
        self.in_flight.entries.len()
    }

    /// Messages dropped since the last call; see the metrics of the broker.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.connection.dropped)
    }

    /// Has anything changed that a snapshot would show?
    pub fn is_dirty(&self) -> bool {
        self.connection.dirty
    }

    /// Acknowledgements and other answers, in order. They may leave at once.
    pub fn poll_reply(&mut self) -> Option<Packet> {
        self.connection.replies.pop_front()
    }

    /// Gives back what only the answers of a moment needed: one has the size of the largest packet, and most clients are silent.
    pub fn trim(&mut self) {
        if self.connection.replies.is_empty() {
            self.connection.replies = VecDeque::new();
        }
    }

    /// PUBLISH and PUBREL to the client. `None` also when the next one has to wait for a save, see [`Session::wants_save`], or for its group,
    /// see [`Session::begin_settling`].
    pub fn poll_delivery(&mut self, now_ms: i64) -> Option<Delivery> {
        while self.next_waits_for() == After::Nothing {
            let mut next = self.connection.deliveries.pop_front()?.delivery;
            let leaves = match &mut next {
                Delivery::Publish(publish) => self.leaves(publish, now_ms),
                Delivery::PubRel { .. } => true,
            };
            if leaves {
                return Some(next);
            }
        }
        None
    }

    /// Is the next delivery held back until the session is saved? QoS 2 of a persistent session: its packet id must
    /// be on disk before the PUBLISH, and PUBREC before the PUBREL, or a kill in between would repeat the message.
    pub fn wants_save(&self) -> bool {
        self.next_waits_for() == After::Save
    }

    fn next_waits_for(&self) -> After {
        let Some(next) = self.connection.deliveries.front() else {
            return After::Nothing;
        };
        let done = match next.after {
            After::Nothing => return After::Nothing,
            After::Save => self.connection.saved_deliveries,
            After::Settling => self.connection.settled_deliveries,
        };
        if next.number < done {
            After::Nothing
        } else {
            next.after
        }
    }

    /// Bytes of the largest packet the client takes.
    pub fn client_maximum_packet_size(&self) -> usize {
        self.connection.client_maximum_packet_size
    }

    /// May packets other than PUBLISH, CONNACK and DISCONNECT carry a reason string or user properties (section 3.1.2.11.7)?
    pub fn wants_problem_information(&self) -> bool {
        self.connection.problem_information
    }

    /// Deliveries waiting inside, for bounding them.
    pub fn deliveries_waiting(&self) -> usize {
        self.connection.deliveries.len()
    }

    /// What a delivery waits for whose repetition after a crash would be a second message. A session that is not persistent is not saved.
    pub(crate) fn after_save(&self, exactly_once: bool) -> After {
        match exactly_once && self.is_persistent() {
            true => After::Save,
            false => After::Nothing,
        }
    }

    pub(crate) fn deliver(&mut self, after: After, delivery: Delivery) {
        let number = self.connection.next_delivery;
        self.connection.next_delivery += 1;
        self.connection.deliveries.push_back(Waiting {
            number,
            after,
            delivery,
        });
    }

    pub(crate) fn reply(&mut self, packet: Packet) {
        self.connection.replies.push_back(packet);
    }

    /// The state to save now, and a mark to give to [`Session::saved`] when that is durable.
    pub fn snapshot(&mut self) -> (bytes::Bytes, u64) {
        self.connection.dirty = false;
        (self.to_bytes(), self.connection.next_delivery)
    }

    /// For a session that is not saved: nothing to show until the next change.
    pub fn mark_clean(&mut self) {
        self.connection.dirty = false;
    }

    pub fn has_will(&self) -> bool {
        self.will.is_some()
    }

    /// When its client left, milliseconds since the epoch; `None` while it is connected.
    pub fn disconnected_at(&self) -> Option<i64> {
        self.disconnected_at
    }

    /// Are there QoS 2 messages of the client that it has not released?
    pub fn has_unreleased(&self) -> bool {
        !self.connection.unreleased.is_empty()
    }

    pub fn saved(&mut self, mark: u64) {
        self.connection.saved_deliveries = self.connection.saved_deliveries.max(mark);
    }

    /// What the session may read again: for each feed the lower of where it reads and its oldest message in flight.
    pub fn checkpoints(&self) -> Vec<(FeedId, Position)> {
        let mut lowest = self.feeds.clone();
        for entry in &self.in_flight.entries {
            if let Some((feed, position)) = entry.source.place() {
                let at = lowest.entry(feed).or_insert(position);
                *at = (*at).min(position);
            }
        }
        lowest.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_codec::ReasonCode;

    #[test]
    fn answers_that_have_left_keep_no_memory_and_those_that_wait_stay() {
        let mut session = Session::new(ClientId::new("a"), 1, 1);
        session.suback(PacketId::MIN, vec![ReasonCode::SUCCESS]);
        session.trim();
        assert!(matches!(session.poll_reply(), Some(Packet::SubAck(_))));
        assert!(session.connection.replies.capacity() > 0);
        session.trim();
        assert_eq!(session.connection.replies.capacity(), 0);
        assert_eq!(session.poll_reply(), None);
    }
}
