//! UNSUBSCRIBE (sections 3.10, 3.11).

use crate::{FeedId, Session};
use mqtt_codec::{Packet, PacketId, ReasonCode, TopicFilter, UnsubAck};

impl Session {
    pub fn handle_unsubscribe(&mut self, filter: &TopicFilter) -> ReasonCode {
        self.exclusive.remove(filter);
        self.due.remove(filter);
        if self.subscriptions.remove(filter) || self.shared.remove(filter).is_some() {
            self.connection.dirty = true;
            ReasonCode::SUCCESS
        } else {
            ReasonCode::NO_SUBSCRIPTION_EXISTED
        }
    }

    /// Forgets feeds on which nothing can match any more.
    pub fn keep_feeds(&mut self, wanted: impl Fn(FeedId) -> bool) {
        self.feeds.retain(|feed, _| wanted(*feed));
    }

    pub fn unsuback(&mut self, packet_id: PacketId, reason_codes: Vec<ReasonCode>) {
        self.reply(Packet::UnsubAck(UnsubAck {
            packet_id,
            properties: Default::default(),
            reason_codes,
        }));
    }
}
