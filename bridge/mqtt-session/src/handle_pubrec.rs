//! PUBREC: the client has a QoS 2 message and keeps its packet id (section 4.3.3).

use crate::in_flight::Awaiting;
use crate::session::After;
use crate::{Delivery, Session};
use mqtt_codec::{Ack, ReasonCode};

impl Session {
    pub fn handle_pubrec(&mut self, ack: &Ack) {
        match self.in_flight.find_mut(ack.packet_id) {
            Some(entry) if entry.awaiting == Awaiting::PubRec && ack.reason_code.is_error() => {
                self.end_in_flight(ack.packet_id);
                self.connection.dirty = true;
                self.resend();
            }
            Some(entry) if entry.awaiting != Awaiting::PubAck => {
                // What was never stored has nothing that a save could keep.
                let stored = entry.source.is_stored();
                let first = stored && entry.awaiting == Awaiting::PubRec;
                entry.awaiting = Awaiting::PubComp;
                entry.message = None;
                entry.sent = true;
                self.connection.dirty |= first;
                self.deliver(self.after_save(first), pubrel(ack, ReasonCode::SUCCESS));
            }
            _ if ack.reason_code.is_error() => {}
            _ => {
                let code = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
                self.deliver(After::Nothing, pubrel(ack, code));
            }
        }
    }
}

fn pubrel(ack: &Ack, reason_code: ReasonCode) -> Delivery {
    Delivery::PubRel {
        packet_id: ack.packet_id,
        reason_code,
    }
}
