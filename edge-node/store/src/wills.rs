//! That a will was published, for as long as the session that had it is not told: a message and a session are not written together, and after a
//! crash in between the will would be published again. It is a packet id of nobody, stored with the message as one of QoS 2 is.

use crate::frame::PacketRef;
use crate::limits;
use crate::sessions::Session;

/// Which will of a client one is. What a crash leaves behind hides no other: no session and no connection of one has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WillRef<'a> {
    pub client: &'a str,
    pub session: u64,
    pub connection: u64,
}

/// What becomes of a session together with its will.
#[derive(Debug, Clone)]
pub enum WillRest {
    /// It is not stored.
    Nothing,
    Save(Session),
    Delete,
}

/// What the keys of all of them begin with. No client has such an id: a zero character is not allowed in it [MQTT-1.5.4-2].
pub(crate) const ALL: &str = "\0will\0";

impl WillRef<'_> {
    /// To be stored with the message. `None`: the client's id is so long that this one would be longer than an id can be; a crash may
    /// publish its will twice.
    pub fn packet(&self) -> Option<PacketRef> {
        let WillRef {
            client,
            session,
            connection,
        } = self;
        let client = format!("{ALL}{client}\0{session:016x}{connection:016x}");
        (client.len() <= limits::MAX_CLIENT_ID).then_some(PacketRef {
            client,
            packet_id: 0,
        })
    }
}

/// What the keys of those of a client begin with.
pub(crate) fn prefix(client: &str) -> Vec<u8> {
    format!("{ALL}{client}\0").into_bytes()
}

/// Whose will a key stands for, and of which connection.
pub(crate) fn of_key(key: &[u8]) -> Option<(&str, u64)> {
    let rest = key.strip_prefix(ALL.as_bytes())?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let client = std::str::from_utf8(rest.get(..end)?).ok()?;
    let connection = std::str::from_utf8(rest.get(end + 17..end + 33)?).ok()?;
    Some((client, u64::from_str_radix(connection, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::packet_key;
    use crate::frame::Lane;

    #[test]
    fn a_key_says_whose_it_is() {
        let will = WillRef {
            client: "caf\u{e9}/1",
            session: u64::MAX,
            connection: 0x1234,
        };
        let key = packet_key(&will.packet().unwrap(), Lane(3));
        assert_eq!(of_key(&key), Some((will.client, will.connection)));
        assert!(key.starts_with(&prefix(will.client)));
        assert_eq!(of_key(b"c\0\0\x07\0"), None);
        let client = "c".repeat(limits::MAX_CLIENT_ID - 39);
        let of = |client| WillRef { client, ..will };
        assert!(of(client.as_str()).packet().is_some());
        let longer = format!("{client}c");
        assert_eq!(of(longer.as_str()).packet(), None);
    }
}
