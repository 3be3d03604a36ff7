//! PINGREQ (section 3.12).

use crate::Session;
use mqtt_codec::Packet;

impl Session {
    pub fn handle_pingreq(&mut self) {
        self.reply(Packet::PingResp);
    }
}
