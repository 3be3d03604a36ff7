//! Packets as bytes, by hand from the specification.

use bytes::{Bytes, BytesMut};
use mqtt_codec::*;

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).expect("a topic")
}

/// Decodes to the packet, and the packet encodes to the bytes.
fn same(version: Version, bytes: &[u8], packet: Packet) {
    let mut decoder = match packet {
        Packet::Connect(_) => Decoder::server(usize::MAX),
        _ => Decoder::with_version(version, usize::MAX),
    };
    let mut input = BytesMut::from(bytes);
    assert_eq!(
        decoder.decode(&mut input),
        Ok(Some(packet.clone())),
        "{bytes:02x?}"
    );
    assert!(input.is_empty());
    let mut out = BytesMut::new();
    encode(&packet, version, &mut out);
    assert_eq!(&out[..], bytes, "{packet:?}");
}

#[test]
fn packets_of_3_1_1() {
    let v = Version::V311;
    let connect = Connect {
        version: v,
        clean_start: true,
        keep_alive: 10,
        client_id: "ab".into(),
        will: Some(Will {
            topic: topic("w"),
            payload: Bytes::from_static(b"x"),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::default(),
        }),
        user_name: Some("u".into()),
        password: Some(Bytes::from_static(b"p")),
        properties: Properties::default(),
    };
    same(
        v,
        b"\x10\x1a\x00\x04MQTT\x04\xee\x00\x0a\x00\x02ab\x00\x01w\x00\x01x\x00\x01u\x00\x01p",
        Packet::Connect(Box::new(connect)),
    );
    let publish = Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: Some(topic("a/b")),
        packet_id: Some(id(10)),
        properties: Properties::default(),
        payload: Bytes::from_static(b"hi"),
    };
    same(
        v,
        b"\x3d\x09\x00\x03a/b\x00\x0ahi",
        Packet::Publish(Box::new(publish)),
    );
    same(
        v,
        b"\x40\x02\x12\x34",
        Packet::PubAck(Ack::success(id(0x1234))),
    );
    same(v, b"\x50\x02\x00\x01", Packet::PubRec(Ack::success(id(1))));
    same(v, b"\x62\x02\x00\x01", Packet::PubRel(Ack::success(id(1))));
    same(v, b"\x70\x02\x00\x01", Packet::PubComp(Ack::success(id(1))));
    let filter = TopicFilter::new("a/#").expect("a filter");
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..Default::default()
    };
    same(
        v,
        b"\x82\x08\x00\x0a\x00\x03a/#\x01",
        Packet::Subscribe(Subscribe {
            packet_id: id(10),
            properties: Properties::default(),
            filters: vec![SubscribeFilter {
                filter: filter.clone(),
                options,
            }],
        }),
    );
    same(
        v,
        b"\x90\x04\x00\x0a\x01\x80",
        Packet::SubAck(SubAck {
            packet_id: id(10),
            properties: Properties::default(),
            reason_codes: vec![ReasonCode(1), ReasonCode(0x80)],
        }),
    );
    same(
        v,
        b"\xa2\x07\x00\x0a\x00\x03a/#",
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(10),
            properties: Properties::default(),
            filters: vec![filter],
        }),
    );
    same(v, b"\xc0\x00", Packet::PingReq);
    same(v, b"\xd0\x00", Packet::PingResp);
    same(
        v,
        b"\xe0\x00",
        Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS)),
    );
}

#[test]
fn packets_of_5() {
    let v = Version::V5;
    let properties = Properties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        user_properties: vec![("a".into(), "b".into())],
        ..Properties::default()
    };
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(topic("t")),
        packet_id: None,
        properties,
        payload: Bytes::new(),
    };
    same(
        v,
        b"\x30\x12\x00\x01t\x0e\x01\x01\x02\x00\x00\x00\x3c\x26\x00\x01a\x00\x01b",
        Packet::Publish(Box::new(publish)),
    );
    same(v, b"\x40\x02\x00\x01", Packet::PubAck(Ack::success(id(1))));
    same(
        v,
        b"\x40\x04\x00\x01\x97\x00",
        Packet::PubAck(Ack::new(id(1), ReasonCode::QUOTA_EXCEEDED)),
    );
    same(
        v,
        b"\xe0\x02\x8b\x00",
        Packet::Disconnect(Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN)),
    );
    same(
        v,
        b"\x20\x06\x01\x00\x03\x21\x00\x0a",
        Packet::ConnAck(Box::new(ConnAck {
            session_present: true,
            reason_code: ReasonCode::SUCCESS,
            properties: Properties {
                receive_maximum: Some(10),
                ..Properties::default()
            },
        })),
    );
}

fn error_of(version: Version, bytes: &[u8]) -> Option<ReasonCode> {
    let mut decoder = Decoder::with_version(version, 1000);
    decoder
        .decode(&mut BytesMut::from(bytes))
        .err()
        .map(|error| error.reason_code())
}

#[test]
fn what_is_not_a_packet() {
    let malformed = Some(ReasonCode::MALFORMED_PACKET);
    let protocol = Some(ReasonCode::PROTOCOL_ERROR);
    for (clause, version, bytes, expected) in [
        ("2.1.2 type 0", Version::V311, &b"\x00\x00"[..], malformed),
        ("2.1.3 flags", Version::V311, b"\xc1\x00", malformed),
        (
            "2.1.3 flags of SUBSCRIBE",
            Version::V311,
            b"\x80\x00",
            malformed,
        ),
        (
            "1.5.5 fifth length byte",
            Version::V5,
            b"\x30\x80\x80\x80\x80",
            malformed,
        ),
        (
            "1.5.5 shortest form",
            Version::V5,
            b"\x30\x80\x00",
            malformed,
        ),
        (
            "1.5.4 surrogate",
            Version::V5,
            b"\x30\x06\x00\x03\xed\xa0\x80\x00",
            malformed,
        ),
        (
            "1.5.4 null",
            Version::V5,
            b"\x30\x04\x00\x01\x00\x00",
            malformed,
        ),
        (
            "1.5.4 overlong",
            Version::V5,
            b"\x30\x05\x00\x02\xc0\x80\x00",
            malformed,
        ),
        (
            "2.2.1 packet id 0",
            Version::V311,
            b"\x40\x02\x00\x00",
            malformed,
        ),
        (
            "3.3.1 QoS 3",
            Version::V311,
            b"\x36\x05\x00\x01t\x00\x01",
            malformed,
        ),
        (
            "3.3.1 DUP and QoS 0",
            Version::V311,
            b"\x38\x03\x00\x01t",
            malformed,
        ),
        (
            "3.3.2 wildcard",
            Version::V311,
            b"\x30\x03\x00\x01+",
            Some(ReasonCode::TOPIC_NAME_INVALID),
        ),
        (
            "3.3.2 no topic, no alias",
            Version::V5,
            b"\x30\x03\x00\x00\x00",
            protocol,
        ),
        (
            "2.2.2 property twice",
            Version::V5,
            b"\x30\x08\x00\x01t\x04\x01\x01\x01\x01",
            protocol,
        ),
        (
            "2.2.2 unknown property",
            Version::V5,
            b"\x30\x05\x00\x01t\x01\x7f",
            malformed,
        ),
        (
            "2.2.2 property of another packet",
            Version::V5,
            b"\x30\x07\x00\x01t\x03\x21\x00\x01",
            protocol,
        ),
        (
            "2.2.2 property cut",
            Version::V5,
            b"\x30\x06\x00\x01t\x02\x21\x00",
            protocol,
        ),
        (
            "3.8.3 no filter",
            Version::V311,
            b"\x82\x02\x00\x01",
            protocol,
        ),
        (
            "3.8.3 reserved bits",
            Version::V311,
            b"\x82\x06\x00\x01\x00\x01t\x04",
            malformed,
        ),
        (
            "3.8.3 bad filter",
            Version::V311,
            b"\x82\x07\x00\x01\x00\x02#a\x00",
            Some(ReasonCode::TOPIC_FILTER_INVALID),
        ),
        (
            "3.10.3 no filter",
            Version::V311,
            b"\xa2\x02\x00\x01",
            protocol,
        ),
        ("3.12 body", Version::V311, b"\xc0\x01\x00", malformed),
        ("3.15 in 3.1.1", Version::V311, b"\xf0\x00", malformed),
        ("3.1 twice", Version::V311, b"\x10\x00", protocol),
        (
            "3.1.2.11.4 larger than the limit",
            Version::V311,
            b"\x30\xe8\x07",
            Some(ReasonCode::PACKET_TOO_LARGE),
        ),
    ] {
        assert_eq!(error_of(version, bytes), expected, "section {clause}");
    }
}

#[test]
fn what_is_not_a_connect() {
    for (clause, bytes) in [
        ("3.1.0", &b"\xc0\x00"[..]),
        (
            "3.1.2.1 name",
            b"\x10\x0d\x00\x04MQXX\x04\x02\x00\x00\x00\x01a",
        ),
        (
            "3.1.2.3 reserved flag",
            b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a",
        ),
        (
            "3.1.2.5 will flags",
            b"\x10\x0d\x00\x04MQTT\x04\x22\x00\x00\x00\x01a",
        ),
        (
            "3.1.2.6 will QoS 3",
            b"\x10\x0d\x00\x04MQTT\x04\x1e\x00\x00\x00\x01a",
        ),
        (
            "3.1.2.9 password alone",
            b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01a\x00\x01p",
        ),
        (
            "trailing bytes",
            b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x01aX",
        ),
        ("cut", b"\x10\x05\x00\x04MQT"),
    ] {
        let mut decoder = Decoder::server(usize::MAX);
        assert!(
            decoder.decode(&mut BytesMut::from(bytes)).is_err(),
            "section {clause}"
        );
    }
    let mut level = Decoder::server(usize::MAX);
    let result = level.decode(&mut BytesMut::from(
        &b"\x10\x0d\x00\x04MQTT\x09\x02\x00\x00\x00\x01a"[..],
    ));
    assert_eq!(result, Err(DecodeError::UnsupportedVersion(9)));
}

#[test]
fn a_packet_before_connect_is_bounded_before_it_is_buffered() {
    let mut decoder = Decoder::server(usize::MAX);
    let result = decoder.decode(&mut BytesMut::from(&b"\x10\xff\xff\xff\x7f"[..]));
    assert!(matches!(result, Err(DecodeError::PacketTooLarge { .. })));
}

#[test]
fn the_payload_is_not_copied() {
    let mut input = BytesMut::from(&b"\x30\x06\x00\x01tabc"[..]);
    let start = input.as_ptr() as usize;
    let decoded = Decoder::with_version(Version::V311, 100).decode(&mut input);
    let Ok(Some(Packet::Publish(publish))) = decoded else {
        panic!("not a PUBLISH")
    };
    assert_eq!(publish.payload.as_ptr() as usize - start, 5);
}
