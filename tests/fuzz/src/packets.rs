//! MQTT packets, and messages and sessions as they are stored.

use bytes::{Bytes, BytesMut};
use mqtt_codec::{Decoder, Packet, Version, encode};
use mqtt_session::{ClientId, Message, Session};

/// The largest packet taken here, in bytes.
const MAX_PACKET: usize = 1024 * 1024;

/// The bytes of a connection. The first byte says which side reads them and in which version.
pub fn mqtt_packets(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let mut decoder = match kind % 4 {
        0 => Decoder::server(MAX_PACKET),
        1 => Decoder::with_version(Version::V31, MAX_PACKET),
        2 => Decoder::with_version(Version::V311, MAX_PACKET),
        _ => Decoder::with_version(Version::V5, MAX_PACKET),
    };
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(packet)) = decoder.decode(&mut buffer) {
        let Some(version) = decoder.version() else {
            return;
        };
        if matches!(packet, Packet::Connect(_)) {
            continue;
        }
        let mut written = BytesMut::new();
        encode(&packet, version, &mut written);
        let again = Decoder::with_version(version, 2 * MAX_PACKET).decode(&mut written);
        let of_server = matches!(
            packet,
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_)
        );
        if of_server && version != Version::V5 {
            // The reason codes of version 5 become the few of version 3.
            assert!(
                matches!(again, Ok(Some(_))),
                "{packet:?} in {version:?}: {again:?}"
            );
        } else {
            assert_eq!(again, Ok(Some(packet)), "in {version:?}");
        }
        assert!(written.is_empty());
    }
}

/// A message or a session from storage.
pub fn mqtt_stored(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    crate::stands_still(
        |bytes| Message::from_bytes(bytes).map(|message| message.to_bytes()),
        bytes.clone(),
    );
    crate::stands_still(
        |bytes| {
            Session::from_bytes(ClientId::new("c"), bytes)
                .ok()
                .map(|mut session| session.snapshot().0)
        },
        bytes.clone(),
    );
    if let Ok(session) = Session::from_bytes(ClientId::new("c"), bytes) {
        crate::session::resume(session);
    }
}
