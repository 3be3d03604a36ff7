//! PUBREL: the client releases a QoS 2 message it has sent (section 4.3.3).

use crate::Session;
use mqtt_codec::{Ack, Packet, PacketId, ReasonCode, Version};

impl Session {
    /// Has its PUBLISH come and no PUBREC gone? The client has not waited for that, and storage does not know yet what it would have to release.
    pub fn is_storing(&self, packet_id: PacketId) -> bool {
        self.connection.unreleased.get(&packet_id) == Some(&false)
    }

    /// `true` = release it in storage, then call [`Session::released`]. `false` = unknown, already answered.
    pub fn handle_pubrel(&mut self, ack: &Ack) -> bool {
        if self.connection.unreleased.contains_key(&ack.packet_id) {
            return true;
        }
        // In recovery an id that is not known was released, and PUBCOMP got lost (section 3.7.2.1: "not an error during recovery"). There are clients
        // to which 0x92 says that the publish has failed, and whose applications would publish it again.
        let code = match self.connection.version {
            Version::V5 if !self.connection.resumed => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            _ => ReasonCode::SUCCESS,
        };
        self.reply(Packet::PubComp(Ack::new(ack.packet_id, code)));
        false
    }

    pub fn released(&mut self, packet_id: PacketId) {
        self.connection.unreleased.remove(&packet_id);
        self.reply(Packet::PubComp(Ack::success(packet_id)));
    }
}
