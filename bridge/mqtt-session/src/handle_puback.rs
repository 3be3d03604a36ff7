//! PUBACK: the client has a QoS 1 message (section 4.3.2).

use crate::Session;
use crate::in_flight::Awaiting;
use mqtt_codec::Ack;

impl Session {
    /// Any reason code ends the delivery. An unknown id is of an earlier connection and says nothing.
    pub fn handle_puback(&mut self, ack: &Ack) {
        let known = self
            .in_flight
            .find(ack.packet_id)
            .map(|entry| entry.awaiting);
        if known == Some(Awaiting::PubAck) {
            self.end_in_flight(ack.packet_id);
            self.connection.dirty = true;
            self.resend();
        }
    }
}
