//! The kernel tables of this front end and their layouts. (The retained messages are in `frontend::retained`, since edges
//! write them too.) All keys begin with namespace and NUL; neither a namespace nor an MQTT string contains NUL.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mqtt_broker::backend::{ClientId, FeedId, Position, SavedSession};
use mqtt_codec::PacketId;
use record::Namespace;

/// Key: namespace NUL client id. Value: see [`encode_session`].
pub const SESSIONS: &str = "mqtt.sessions";

/// QoS 2 messages that are in the log and whose PUBREL has not come. Key: namespace NUL client id NUL packet id
/// (2 bytes, big endian). Value: one byte, [`VERSION`].
pub const UNRELEASED: &str = "mqtt.unreleased";

/// First byte of every value.
pub const VERSION: u8 = 1;

/// What all keys of a namespace begin with.
pub fn namespace_prefix(namespace: &Namespace) -> BytesMut {
    let mut key = BytesMut::from(namespace.as_str().as_bytes());
    key.put_u8(0);
    key
}

pub fn session_key(namespace: &Namespace, client: &ClientId) -> Bytes {
    let mut key = namespace_prefix(namespace);
    key.put_slice(client.as_str().as_bytes());
    key.freeze()
}

/// The client of a key in [`SESSIONS`]; `None`: not one of this namespace.
pub fn client_of_key(namespace: &Namespace, key: &[u8]) -> Option<ClientId> {
    let client = key.strip_prefix(&*namespace_prefix(namespace))?;
    std::str::from_utf8(client).ok().map(ClientId::new)
}

pub fn unreleased_prefix(namespace: &Namespace, client: &ClientId) -> BytesMut {
    let mut key = namespace_prefix(namespace);
    key.put_slice(client.as_str().as_bytes());
    key.put_u8(0);
    key
}

pub fn unreleased_key(namespace: &Namespace, client: &ClientId, packet_id: PacketId) -> Bytes {
    let mut key = unreleased_prefix(namespace, client);
    key.put_u16(packet_id.get());
    key.freeze()
}

/// The key in [`SESSIONS`] of the client of a key in [`UNRELEASED`].
pub fn session_of_unreleased(key: &Bytes) -> Option<Bytes> {
    // NUL, and the packet id.
    let end = key.len().checked_sub(3)?;
    Some(key.slice(..end))
}

/// The packet id at the end of a key in [`UNRELEASED`].
pub fn packet_id_of_key(key: &[u8]) -> Option<PacketId> {
    let id = key.last_chunk::<2>()?;
    PacketId::new(u16::from_be_bytes(*id))
}

/// Version, epoch (8), number of checkpoints (4), each stream (8) partition (4) position (8), then the session's own bytes.
pub fn encode_session(session: &SavedSession) -> Bytes {
    let mut out =
        BytesMut::with_capacity(13 + session.checkpoints.len() * 20 + session.bytes.len());
    out.put_u8(VERSION);
    out.put_u64(session.epoch);
    out.put_u32(u32::try_from(session.checkpoints.len()).unwrap_or(u32::MAX));
    for (feed, position) in &session.checkpoints {
        out.put_u64(feed.stream);
        out.put_u32(feed.partition);
        out.put_u64(position.0);
    }
    out.put_slice(&session.bytes);
    out.freeze()
}

/// `None`: damaged, or written by a later version.
pub fn decode_session(mut value: Bytes) -> Option<SavedSession> {
    if value.try_get_u8().ok()? != VERSION {
        return None;
    }
    let epoch = value.try_get_u64().ok()?;
    let count = usize::try_from(value.try_get_u32().ok()?).ok()?;
    if count > value.len() / 20 {
        return None;
    }
    let mut checkpoints = Vec::with_capacity(count);
    for _ in 0..count {
        let feed = FeedId {
            stream: value.try_get_u64().ok()?,
            partition: value.try_get_u32().ok()?,
        };
        checkpoints.push((feed, Position(value.try_get_u64().ok()?)));
    }
    Some(SavedSession {
        epoch,
        checkpoints,
        bytes: value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_comes_back_and_damage_does_not() {
        let session = SavedSession {
            epoch: 7,
            checkpoints: vec![
                (
                    FeedId {
                        stream: 1,
                        partition: 2,
                    },
                    Position(3),
                ),
                (
                    FeedId {
                        stream: 9,
                        partition: 0,
                    },
                    Position::START,
                ),
            ],
            bytes: Bytes::from_static(b"state"),
        };
        let value = encode_session(&session);
        assert_eq!(decode_session(value.clone()), Some(session));
        for cut in 0..53 {
            assert_eq!(decode_session(value.slice(..cut)), None, "cut at {cut}");
        }
        let mut later = value.to_vec();
        later[0] = 2;
        assert_eq!(decode_session(later.into()), None);
    }

    #[test]
    fn a_client_whose_name_begins_another_has_keys_of_its_own() {
        let namespace = Namespace::default();
        let id = PacketId::new(513).unwrap();
        let key = unreleased_key(&namespace, &ClientId::new("ab"), id);
        assert!(!key.starts_with(&unreleased_prefix(&namespace, &ClientId::new("a"))));
        assert!(key.starts_with(&unreleased_prefix(&namespace, &ClientId::new("ab"))));
        assert_eq!(packet_id_of_key(&key), Some(id));
        let session = session_key(&namespace, &ClientId::new("ab"));
        assert_eq!(session_of_unreleased(&key), Some(session));
        let key = session_key(&namespace, &ClientId::new("ab"));
        assert_eq!(client_of_key(&namespace, &key), Some(ClientId::new("ab")));
    }
}
