//! That a will was published, for as long as the session that had it is not told: a message and a session are not written together, and after a
//! crash in between the will would be published again. It is a packet id of nobody, stored with the message as one of QoS 2 is.

use crate::frame::PacketRef;

/// Which will of a client one is. What a crash leaves behind hides no other: no session and no connection of one has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WillRef<'a> {
    pub client: &'a str,
    pub session: u64,
    pub connection: u64,
}

/// What the keys of all of them begin with. No client has such an id: a zero character is not allowed in it [MQTT-1.5.4-2].
pub(crate) const ALL: &str = "\0will\0";

impl WillRef<'_> {
    /// To be stored with the message.
    pub fn packet(&self) -> PacketRef {
        let WillRef {
            client,
            session,
            connection,
        } = self;
        PacketRef {
            client: format!("{ALL}{client}\0{session:016x}{connection:016x}"),
            packet_id: 0,
        }
    }
}

/// What the keys of those of a client begin with.
pub(crate) fn prefix(client: &str) -> Vec<u8> {
    format!("{ALL}{client}\0").into_bytes()
}

/// Whose will a key stands for.
pub(crate) fn client_of(key: &[u8]) -> Option<&[u8]> {
    let rest = key.strip_prefix(ALL.as_bytes())?;
    rest.split(|byte| *byte == 0).next()
}
