//! Packets as bytes, by hand from the specification: one file a packet, valid and hostile, for both versions.
//! A row is named by the clause it shows.

use bytes::{Bytes, BytesMut};
use mqtt_codec::*;

mod acks;
mod connack;
mod connect;
mod disconnect;
mod fixed_header;
mod properties;
mod publish;
mod strings;
mod subscribe;
mod unsubscribe;

pub const V3: Version = Version::V311;
pub const V5: Version = Version::V5;
pub const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
pub const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

pub fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

pub fn topic(text: &str) -> TopicName {
    TopicName::new(text).expect("a topic")
}

pub fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("a filter")
}

/// `body` behind a fixed header.
pub fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let low = (left % 128) as u8;
        left /= 128;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub fn decode(version: Version, bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    let mut decoder = match bytes.first() {
        Some(first) if first >> 4 == 1 => Decoder::server(100_000),
        _ => Decoder::with_version(version, 100_000),
    };
    decoder.decode(&mut BytesMut::from(bytes))
}

/// These bytes are this packet and the packet is these bytes; all of them are needed; and what is cut short with a length that
/// says so is some packet or an error, never a crash.
#[track_caller]
pub fn valid(clause: &str, version: Version, bytes: &[u8], packet: Packet) {
    assert_eq!(
        decode(version, bytes),
        Ok(Some(packet.clone())),
        "{clause}, {version:?}: {bytes:02x?}"
    );
    let mut out = BytesMut::new();
    encode(&packet, version, &mut out);
    assert_eq!(
        Bytes::from(out),
        Bytes::copy_from_slice(bytes),
        "{clause}, {version:?}: {packet:?} as bytes"
    );
    for cut in 0..bytes.len() {
        assert_eq!(decode(version, &bytes[..cut]), Ok(None), "{clause}");
    }
    let header = if bytes.len() > 129 { 3 } else { 2 };
    for cut in header..bytes.len() {
        let _ = decode(version, &framed(bytes[0], &bytes[header..cut]));
    }
}

/// These bytes end the connection, and this is what a client of version 5 is told.
#[track_caller]
pub fn refused(clause: &str, version: Version, bytes: &[u8], code: ReasonCode) {
    let result = decode(version, bytes);
    assert_eq!(
        result.as_ref().map_err(DecodeError::reason_code),
        Err(code),
        "{clause}, {version:?}: {bytes:02x?}"
    );
}

#[test]
fn what_stands_before_a_packet_is_bounded_before_it_is_buffered() {
    let mut decoder = Decoder::server(usize::MAX);
    let result = decoder.decode(&mut BytesMut::from(&b"\x10\xff\xff\xff\x7f"[..]));
    assert!(matches!(result, Err(DecodeError::PacketTooLarge { .. })));
    let mut decoder = Decoder::with_version(V5, 1000);
    let result = decoder.decode(&mut BytesMut::from(&b"\x30\xe8\x07"[..]));
    assert_eq!(
        result.map_err(|error| error.reason_code()),
        Err(ReasonCode::PACKET_TOO_LARGE)
    );
}
