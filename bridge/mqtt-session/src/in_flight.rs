//! QoS 1 and 2 messages on their way to the client (section 4.3), in the order they were first sent.

use crate::{FeedId, Position, SharedMessage, SharedPlace};
use mqtt_codec::{PacketId, QoS, TopicFilter, TopicName};
use std::collections::VecDeque;
use std::sync::Arc;

/// Which answer of the client comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(clippy::enum_variant_names)] // the specification's names
pub enum Awaiting {
    PubAck = 1,
    PubRec = 2,
    PubComp = 3,
}

/// Where the message can be read again after a restart. A session holds copies on disk only of retained messages: see `retained.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Feed(FeedId, Position),
    Retained(TopicName),
    /// Given by a shared group: the group gives it to nobody else as long as it is here.
    Shared(SharedPlace),
    /// Nowhere: it was never stored. With its connection it is gone, or given to another member of the group that gave it.
    Nowhere(Option<TopicFilter>),
}

impl Source {
    pub fn is_stored(&self) -> bool {
        !matches!(self, Source::Nowhere(_))
    }

    /// Where in the feeds it is; a retained message is in none, and neither is one that was never stored.
    pub fn place(&self) -> Option<(FeedId, Position)> {
        match self {
            Source::Feed(feed, at) => Some((*feed, *at)),
            Source::Shared(place) => Some((place.feed, place.at)),
            Source::Retained(_) | Source::Nowhere(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    pub packet_id: PacketId,
    pub awaiting: Awaiting,
    /// What the client was granted for this message.
    pub qos: QoS,
    pub retain: bool,
    pub identifiers: Vec<u32>,
    pub source: Source,
    /// Absent after a restart until it is read again, and when PUBREC has made it superfluous.
    pub message: Option<Arc<SharedMessage>>,
    /// Sent (or sent again) in this connection.
    pub sent: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InFlights {
    pub entries: VecDeque<InFlight>,
    last_packet_id: PacketId,
    /// So many ids after the last one are known not to be in use.
    free_ahead: u16,
}

/// 1 comes after 65,535.
fn after(id: PacketId) -> PacketId {
    id.checked_add(1).unwrap_or(PacketId::MIN)
}

impl InFlights {
    pub fn new(last_packet_id: PacketId) -> InFlights {
        InFlights {
            entries: VecDeque::new(),
            last_packet_id,
            free_ahead: 0,
        }
    }

    pub fn last_packet_id(&self) -> PacketId {
        self.last_packet_id
    }

    /// The next packet id that is not in use. There always is one: far fewer than 65,535 are in flight.
    pub fn allocate(&mut self) -> PacketId {
        while self.free_ahead == 0 {
            self.look_ahead();
        }
        self.free_ahead -= 1;
        self.last_packet_id = after(self.last_packet_id);
        self.last_packet_id
    }

    /// Counts the ids up to the next one that is in use; where that is the very next one, steps over it. All ids given out afterwards
    /// lie between, so the entries are looked at once in a round of ids, not once a message.
    fn look_ahead(&mut self) {
        let last = self.last_packet_id.get();
        // 0 is no id: one less to count on the way around.
        let ahead = |id: u16| {
            id.wrapping_sub(last)
                .wrapping_sub(1 + u16::from(id <= last))
        };
        let used = self
            .entries
            .iter()
            .map(|entry| ahead(entry.packet_id.get()));
        self.free_ahead = used.min().unwrap_or(u16::MAX - 1);
        if self.free_ahead == 0 {
            self.last_packet_id = after(self.last_packet_id);
        }
    }

    pub fn find(&self, packet_id: PacketId) -> Option<&InFlight> {
        self.entries
            .iter()
            .find(|entry| entry.packet_id == packet_id)
    }

    pub fn find_mut(&mut self, packet_id: PacketId) -> Option<&mut InFlight> {
        self.entries
            .iter_mut()
            .find(|entry| entry.packet_id == packet_id)
    }

    pub fn remove(&mut self, packet_id: PacketId) -> Option<InFlight> {
        let index = self
            .entries
            .iter()
            .position(|entry| entry.packet_id == packet_id)?;
        self.entries.remove(index)
    }
}
