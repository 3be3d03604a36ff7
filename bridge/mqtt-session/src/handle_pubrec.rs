//! PUBREC: the client has a QoS 2 message and keeps its packet id (section 4.3.3).

use crate::Session;
use crate::in_flight::Awaiting;
use mqtt_codec::{Ack, Packet, ReasonCode};

impl Session {
    pub fn handle_pubrec(&mut self, ack: &Ack, now_ms: i64) {
        match self.in_flight.find_mut(ack.packet_id) {
            Some(entry) if entry.awaiting == Awaiting::PubRec && ack.reason_code.is_error() => {
                self.in_flight.remove(ack.packet_id);
                self.connection.dirty = true;
                self.resend(now_ms);
            }
            Some(entry) if entry.awaiting != Awaiting::PubAck => {
                let first = entry.awaiting == Awaiting::PubRec;
                entry.awaiting = Awaiting::PubComp;
                entry.message = None;
                entry.sent = true;
                self.connection.dirty |= first;
                self.deliver(Packet::PubRel(Ack::success(ack.packet_id)), first);
            }
            _ if ack.reason_code.is_error() => {}
            _ => {
                let answer = Ack::new(ack.packet_id, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
                self.deliver(Packet::PubRel(answer), false);
            }
        }
    }
}
