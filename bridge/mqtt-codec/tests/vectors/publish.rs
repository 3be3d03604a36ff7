//! PUBLISH (section 3.3).

use crate::*;

fn plain() -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(topic("a/b")),
        packet_id: None,
        properties: Properties::default(),
        payload: Bytes::from_static(b"hi"),
    }
}

fn publish(clause: &str, version: Version, first: u8, body: &[u8], packet: Publish) {
    let packet = Packet::Publish(Box::new(packet));
    valid(clause, version, &framed(first, body), packet);
}

#[test]
fn valid_publishes() {
    let p = plain;
    for (clause, first, packet) in [
        ("QoS 0", 0x30u8, p()),
        (
            "QoS 0, retained",
            0x31,
            Publish {
                retain: true,
                ..p()
            },
        ),
        (
            "QoS 1",
            0x32,
            Publish {
                qos: QoS::AtLeastOnce,
                packet_id: Some(id(10)),
                ..p()
            },
        ),
        (
            "QoS 1 again",
            0x3A,
            Publish {
                qos: QoS::AtLeastOnce,
                packet_id: Some(id(10)),
                dup: true,
                ..p()
            },
        ),
        (
            "QoS 2",
            0x34,
            Publish {
                qos: QoS::ExactlyOnce,
                packet_id: Some(id(10)),
                ..p()
            },
        ),
        (
            "QoS 2, all flags",
            0x3D,
            Publish {
                qos: QoS::ExactlyOnce,
                packet_id: Some(id(10)),
                dup: true,
                retain: true,
                ..p()
            },
        ),
    ] {
        let packet_id: &[u8] = if packet.packet_id.is_some() {
            b"\x00\x0a"
        } else {
            b""
        };
        let name: &[u8] = b"\x00\x03a/b";
        publish(
            clause,
            V3,
            first,
            &[name, packet_id, b"hi"].concat(),
            packet.clone(),
        );
        publish(
            clause,
            V5,
            first,
            &[name, packet_id, b"\x00", b"hi"].concat(),
            packet,
        );
    }
    publish(
        "3.3.3: no payload",
        V3,
        0x30,
        b"\x00\x03a/b",
        Publish {
            payload: Bytes::new(),
            ..p()
        },
    );
    publish(
        "2.3.1: the largest packet id",
        V3,
        0x32,
        b"\x00\x03a/b\xff\xffhi",
        Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(65_535)),
            ..p()
        },
    );
}

#[test]
fn valid_publishes_with_properties() {
    let properties = Properties {
        payload_format_indicator: Some(0),
        message_expiry_interval: Some(1),
        content_type: Some("".into()),
        response_topic: Some(topic("r")),
        correlation_data: Some(Bytes::new()),
        subscription_identifiers: vec![1, 128, 268_435_455, 1],
        topic_alias: Some(65_535),
        user_properties: vec![
            ("b".into(), "1".into()),
            ("a".into(), "2".into()),
            ("b".into(), "1".into()),
        ],
        ..Properties::default()
    };
    publish("3.3.2.3: every property, 3.3.2-18: their order", V5, 0x30,
        b"\x00\x03a/b\x35\x01\x00\x02\x00\x00\x00\x01\x03\x00\x00\x08\x00\x01r\x09\x00\x00\x0b\x01\x0b\x80\x01\x0b\xff\xff\xff\x7f\x0b\x01\x23\xff\xff\x26\x00\x01b\x00\x011\x26\x00\x01a\x00\x012\x26\x00\x01b\x00\x011hi",
        Publish { properties, ..plain() });
    let alias = Properties {
        topic_alias: Some(1),
        ..Properties::default()
    };
    publish(
        "3.3.2-8: a topic alias instead of a topic",
        V5,
        0x30,
        b"\x00\x00\x03\x23\x00\x01hi",
        Publish {
            topic: None,
            properties: alias,
            ..plain()
        },
    );
}

#[test]
fn hostile_publishes() {
    let name = ReasonCode::TOPIC_NAME_INVALID;
    for (clause, first, body, code) in [
        (
            "3.3.1-4: QoS 3",
            0x36u8,
            &b"\x00\x01t\x00\x01"[..],
            MALFORMED,
        ),
        (
            "3.3.1-4: QoS 3 and DUP",
            0x3E,
            b"\x00\x01t\x00\x01",
            MALFORMED,
        ),
        ("3.3.1-2: DUP and QoS 0", 0x38, b"\x00\x01t", MALFORMED),
        ("3.3.2-1: no topic", 0x30, b"", MALFORMED),
        ("3.3.2-1: cut", 0x30, b"\x00\x09t", MALFORMED),
        ("2.3.1-1: no packet id", 0x32, b"\x00\x01t", MALFORMED),
        (
            "2.3.1-1: half a packet id",
            0x34,
            b"\x00\x01t\x00",
            MALFORMED,
        ),
        ("4.7.3-1: an empty topic", 0x30, b"\x00\x00x", name),
        ("3.3.2-2: +", 0x30, b"\x00\x03a/+", name),
        ("3.3.2-2: #", 0x30, b"\x00\x01#", name),
        ("3.3.2-2: # inside a level", 0x30, b"\x00\x02a#", name),
        ("3.3.2-2: + inside a level", 0x30, b"\x00\x03a+b", name),
    ] {
        refused(clause, V3, &framed(first, body), code);
    }
    for (clause, body, code) in [
        ("2.2.2-1: no property length", &b"\x00\x01t"[..], MALFORMED),
        (
            "2.2.2-1: a property length beyond the end",
            b"\x00\x01t\x05\x01\x01",
            MALFORMED,
        ),
        ("3.3.2.1: no topic, no alias", b"\x00\x00\x00", PROTOCOL),
        ("3.3.2-2: +", b"\x00\x01+\x00", name),
        (
            "3.3.2-14: + in the response topic",
            b"\x00\x01t\x04\x08\x00\x01+",
            name,
        ),
        (
            "3.3.2-14: # in the response topic",
            b"\x00\x01t\x06\x08\x00\x03a/#",
            name,
        ),
        (
            "an empty response topic",
            b"\x00\x01t\x03\x08\x00\x00",
            name,
        ),
        (
            "3.3.2.3.2: payload format 2",
            b"\x00\x01t\x02\x01\x02",
            PROTOCOL,
        ),
        (
            "3.3.2.3.8: subscription identifier 0",
            b"\x00\x01t\x02\x0b\x00",
            PROTOCOL,
        ),
        (
            "1.5.5: subscription identifier of five bytes",
            b"\x00\x01t\x06\x0b\x80\x80\x80\x80\x01",
            MALFORMED,
        ),
    ] {
        refused(clause, V5, &framed(0x30, body), code);
    }
}

#[test]
fn the_payload_is_not_copied() {
    let mut input = BytesMut::from(&b"\x30\x06\x00\x01tabc"[..]);
    let start = input.as_ptr() as usize;
    let decoded = Decoder::with_version(V3, 100).decode(&mut input);
    let Ok(Some(Packet::Publish(publish))) = decoded else {
        panic!("not a PUBLISH")
    };
    assert_eq!(publish.payload.as_ptr() as usize - start, 5);
}
