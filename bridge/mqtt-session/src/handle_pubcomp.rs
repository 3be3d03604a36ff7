//! PUBCOMP: the client has released a QoS 2 message (section 4.3.3).

use crate::Session;
use crate::in_flight::Awaiting;
use mqtt_codec::Ack;

impl Session {
    pub fn handle_pubcomp(&mut self, ack: &Ack) {
        let known = self
            .in_flight
            .find(ack.packet_id)
            .map(|entry| entry.awaiting);
        if known == Some(Awaiting::PubComp) {
            self.end_in_flight(ack.packet_id);
            self.connection.dirty = true;
            self.resend();
        }
    }
}
