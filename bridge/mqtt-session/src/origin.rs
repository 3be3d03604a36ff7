//! Whose a message is, for No Local: one's own messages do not come back [MQTT-3.8.3-3].

use crate::{ClientId, Limits};

/// Stored with messages and compared by later connections, processes and versions, so it must never change: FNV-1a, and not the standard library's hasher,
/// of which nothing is promised.
fn fnv(begin: u64, text: &str) -> u64 {
    text.bytes().fold(begin, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Limits {
    /// For a server of this name. Records cross from one server to another, with what marks them: clients of different servers are different ones, whatever
    /// their ids.
    #[must_use]
    pub fn of_server(self, name: &str) -> Limits {
        Limits {
            server: fnv(self.server, name),
            ..self
        }
    }

    /// What marks the messages of a client of this server.
    pub(crate) fn origin(&self, client: &ClientId) -> u64 {
        fnv(self.server, client.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored has it.
    #[test]
    fn the_mark_of_a_client_is_the_same_in_every_version() {
        let limits = Limits::default();
        assert_eq!(limits.origin(&ClientId::new("a")), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(
            limits.origin(&ClientId::new("foobar")),
            0x8594_4171_f739_67e8
        );
        let edge = limits.of_server("foo");
        assert_eq!(edge.origin(&ClientId::new("bar")), 0x8594_4171_f739_67e8);
    }
}
