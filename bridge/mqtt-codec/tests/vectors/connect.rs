//! CONNECT (section 3.1).

use crate::*;

fn plain(version: Version) -> Connect {
    Connect {
        version,
        is_bridge: false,
        clean_start: true,
        keep_alive: 10,
        client_id: "ab".into(),
        will: None,
        user_name: None,
        password: None,
        properties: Properties::default(),
    }
}

fn will(qos: QoS, retain: bool) -> Will {
    Will {
        topic: topic("w"),
        payload: Bytes::from_static(b"x"),
        qos,
        retain,
        properties: Properties::default(),
    }
}

fn connect(clause: &str, version: Version, body: &[u8], packet: Connect) {
    valid(
        clause,
        version,
        &framed(0x10, body),
        Packet::Connect(Box::new(packet)),
    );
}

#[test]
fn valid_connects_of_3_1_1() {
    let p = || plain(V3);
    for (clause, body, packet) in [
        ("least", &b"\x00\x04MQTT\x04\x02\x00\x0a\x00\x02ab"[..], p()),
        (
            "a bridge of mosquitto",
            b"\x00\x04MQTT\x84\x02\x00\x0a\x00\x02ab",
            Connect {
                is_bridge: true,
                ..p()
            },
        ),
        (
            "3.1.3-6: no client id",
            b"\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
            Connect {
                client_id: String::new(),
                keep_alive: 0,
                ..p()
            },
        ),
        (
            "3.1.2-4",
            b"\x00\x04MQTT\x04\x00\xff\xff\x00\x02ab",
            Connect {
                clean_start: false,
                keep_alive: 65_535,
                ..p()
            },
        ),
        (
            "3.1.2-14: will QoS 0",
            b"\x00\x04MQTT\x04\x06\x00\x0a\x00\x02ab\x00\x01w\x00\x01x",
            Connect {
                will: Some(will(QoS::AtMostOnce, false)),
                ..p()
            },
        ),
        (
            "3.1.2-14: will QoS 1",
            b"\x00\x04MQTT\x04\x0e\x00\x0a\x00\x02ab\x00\x01w\x00\x01x",
            Connect {
                will: Some(will(QoS::AtLeastOnce, false)),
                ..p()
            },
        ),
        (
            "3.1.2-17: will QoS 2, retained",
            b"\x00\x04MQTT\x04\x36\x00\x0a\x00\x02ab\x00\x01w\x00\x01x",
            Connect {
                will: Some(will(QoS::ExactlyOnce, true)),
                ..p()
            },
        ),
        (
            "3.1.2-19: a user, no password",
            b"\x00\x04MQTT\x04\x82\x00\x0a\x00\x02ab\x00\x01u",
            Connect {
                user_name: Some("u".into()),
                ..p()
            },
        ),
        (
            "3.1.3-1: all, in order",
            b"\x00\x04MQTT\x04\xee\x00\x0a\x00\x02ab\x00\x01w\x00\x01x\x00\x01u\x00\x02p\x00",
            Connect {
                will: Some(will(QoS::AtLeastOnce, true)),
                user_name: Some("u".into()),
                password: Some(Bytes::from_static(b"p\0")),
                ..p()
            },
        ),
        (
            "empty user and password",
            b"\x00\x04MQTT\x04\xc2\x00\x0a\x00\x02ab\x00\x00\x00\x00",
            Connect {
                user_name: Some(String::new()),
                password: Some(Bytes::new()),
                ..p()
            },
        ),
    ] {
        connect(clause, V3, body, packet);
    }
    connect(
        "3.1",
        Version::V31,
        b"\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x02ab",
        plain(Version::V31),
    );
}

#[test]
fn valid_connects_of_5() {
    let p = || plain(V5);
    connect(
        "least",
        V5,
        b"\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x02ab",
        p(),
    );
    connect(
        "3.1.2-19: a password alone",
        V5,
        b"\x00\x04MQTT\x05\x42\x00\x0a\x00\x00\x02ab\x00\x01p",
        Connect {
            password: Some(Bytes::from_static(b"p")),
            ..p()
        },
    );
    let properties = Properties {
        session_expiry_interval: Some(10),
        receive_maximum: Some(20),
        maximum_packet_size: Some(30),
        topic_alias_maximum: Some(0),
        request_response_information: Some(1),
        request_problem_information: Some(0),
        user_properties: vec![("a".into(), "b".into()), ("a".into(), "".into())],
        authentication_method: Some("M".into()),
        authentication_data: Some(Bytes::from_static(b"\x00\xff")),
        ..Properties::default()
    };
    connect("3.1.2.11: every property", V5,
        b"\x00\x04MQTT\x05\x02\x00\x0a\x2a\x11\x00\x00\x00\x0a\x15\x00\x01M\x16\x00\x02\x00\xff\x17\x00\x19\x01\x21\x00\x14\x22\x00\x00\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x00\x27\x00\x00\x00\x1e\x00\x02ab",
        Connect { properties, ..p() });
    let properties = Properties {
        will_delay_interval: Some(5),
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(6),
        content_type: Some("c".into()),
        response_topic: Some(topic("r")),
        correlation_data: Some(Bytes::from_static(b"d")),
        user_properties: vec![("n".into(), "v".into())],
        ..Properties::default()
    };
    connect("3.1.3.2: every property of a will, 3.1.3-1", V5,
        b"\x00\x04MQTT\x05\xf6\x00\x0a\x00\x00\x02ab\x1f\x01\x01\x02\x00\x00\x00\x06\x03\x00\x01c\x08\x00\x01r\x09\x00\x01d\x18\x00\x00\x00\x05\x26\x00\x01n\x00\x01v\x00\x01w\x00\x01x\x00\x01u\x00\x01p",
        Connect {
            will: Some(Will { properties, ..will(QoS::ExactlyOnce, true) }),
            user_name: Some("u".into()),
            password: Some(Bytes::from_static(b"p")),
            ..p()
        });
}

#[test]
fn hostile_connects() {
    for (clause, body, code) in [
        (
            "3.1.2-1: the name",
            &b"\x00\x04MQXX\x04\x02\x00\x00\x00\x01a"[..],
            MALFORMED,
        ),
        (
            "3.1.2-1: its case",
            b"\x00\x04mqtt\x04\x02\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-1: no name",
            b"\x00\x00\x04\x02\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-2: level 6",
            b"\x00\x04MQTT\x06\x02\x00\x00\x00\x01a",
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        ),
        (
            "3.1.2-2: level 0",
            b"\x00\x04MQTT\x00\x02\x00\x00\x00\x01a",
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        ),
        (
            "3.1.2-2: the name of 3.1 with the level of 3.1.1",
            b"\x00\x06MQIsdp\x04\x02\x00\x00\x00\x01a",
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        ),
        (
            "3.1.2-2: the bit of a bridge, of a level that has none",
            b"\x00\x04MQTT\x85\x02\x00\x00\x00\x01a",
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        ),
        (
            "3.1.2-3",
            b"\x00\x04MQTT\x04\x03\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-3 of 5",
            b"\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-11: will QoS without a will",
            b"\x00\x04MQTT\x04\x0a\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-11 of 5",
            b"\x00\x04MQTT\x05\x12\x00\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-15: will retain without a will",
            b"\x00\x04MQTT\x04\x22\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-13 of 5",
            b"\x00\x04MQTT\x05\x22\x00\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-14: will QoS 3",
            b"\x00\x04MQTT\x04\x1e\x00\x00\x00\x01a\x00\x01w\x00\x01x",
            MALFORMED,
        ),
        (
            "3.1.2-12 of 5",
            b"\x00\x04MQTT\x05\x1e\x00\x00\x00\x00\x01a\x00\x00\x01w\x00\x01x",
            MALFORMED,
        ),
        (
            "3.1.2-9: no will topic",
            b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-9: no will message",
            b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01a\x00\x01w",
            MALFORMED,
        ),
        (
            "3.1.2-9 of 5: no will properties",
            b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "a wildcard in the will topic",
            b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01a\x00\x01#\x00\x01x",
            ReasonCode::TOPIC_NAME_INVALID,
        ),
        (
            "an empty will topic",
            b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01a\x00\x00\x00\x01x",
            ReasonCode::TOPIC_NAME_INVALID,
        ),
        (
            "3.1.2-18: a user without the flag",
            b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01a\x00\x01u",
            MALFORMED,
        ),
        (
            "3.1.2-16 of 5",
            b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a\x00\x01u",
            MALFORMED,
        ),
        (
            "3.1.2-19: the flag without a user",
            b"\x00\x04MQTT\x04\x82\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-17 of 5",
            b"\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01a",
            MALFORMED,
        ),
        (
            "3.1.2-20: a password without the flag",
            b"\x00\x04MQTT\x04\x82\x00\x00\x00\x01a\x00\x01u\x00\x01p",
            MALFORMED,
        ),
        (
            "3.1.2-18 of 5",
            b"\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01a\x00\x01u\x00\x01p",
            MALFORMED,
        ),
        (
            "3.1.2-21: the flag without a password",
            b"\x00\x04MQTT\x04\xc2\x00\x00\x00\x01a\x00\x01u",
            MALFORMED,
        ),
        (
            "3.1.2-19 of 5",
            b"\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x01a\x00\x01u",
            MALFORMED,
        ),
        (
            "3.1.2-22: a password flag alone",
            b"\x00\x04MQTT\x04\x42\x00\x00\x00\x01a\x00\x01p",
            MALFORMED,
        ),
        (
            "3.1.3-3: no client id",
            b"\x00\x04MQTT\x04\x02\x00\x00",
            MALFORMED,
        ),
        (
            "3.1.3-3 of 5",
            b"\x00\x04MQTT\x05\x02\x00\x00\x00",
            MALFORMED,
        ),
        (
            "2.2.2-1: no property length",
            b"\x00\x04MQTT\x05\x02\x00\x00",
            MALFORMED,
        ),
        (
            "bytes behind the end",
            b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01aX",
            MALFORMED,
        ),
        (
            "3.1.2.11.3: receive maximum 0",
            b"\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01a",
            PROTOCOL,
        ),
        (
            "3.1.2.11.4: maximum packet size 0",
            b"\x00\x04MQTT\x05\x02\x00\x00\x05\x27\x00\x00\x00\x00\x00\x01a",
            PROTOCOL,
        ),
        (
            "3.1.2.11.6: request response information 2",
            b"\x00\x04MQTT\x05\x02\x00\x00\x02\x19\x02\x00\x01a",
            PROTOCOL,
        ),
        (
            "3.1.2.11.7: request problem information 2",
            b"\x00\x04MQTT\x05\x02\x00\x00\x02\x17\x02\x00\x01a",
            PROTOCOL,
        ),
        (
            "3.1.2.11.10: data without a method",
            b"\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01d\x00\x01a",
            PROTOCOL,
        ),
        (
            "3.1.3.2: a topic alias in a will",
            b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01a\x03\x23\x00\x01\x00\x01w\x00\x01x",
            PROTOCOL,
        ),
    ] {
        refused(clause, V3, &framed(0x10, body), code);
    }
    refused("3.1.0-2", V3, &framed(0x10, b""), MALFORMED);
    let mut decoder = Decoder::with_version(V5, 1000);
    let second = framed(0x10, b"\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x02ab");
    let result = decoder.decode(&mut BytesMut::from(&second[..]));
    assert_eq!(
        result.map_err(|error| error.reason_code()),
        Err(PROTOCOL),
        "3.1.0-2"
    );
}

/// [MQTT-3.1.0-1]
#[test]
fn nothing_else_comes_first() {
    for first in [0x20u8, 0x30, 0x40, 0x82, 0xA2, 0xC0, 0xE0, 0xF0, 0x00, 0x11] {
        let mut decoder = Decoder::server(1000);
        let result = decoder.decode(&mut BytesMut::from(&[first, 0][..]));
        assert!(result.is_err(), "{first:02x}");
    }
}

/// Who does not speak MQTT, or none that is spoken here, learns it with the byte that says so, and takes no room until then.
#[test]
fn the_beginning_is_judged_before_the_rest_is_there() {
    for (begin, is_wrong) in [
        (&b""[..], false),
        (b"\x00", false),
        (b"\x00\x04", false),
        (b"\x00\x06MQIs", false),
        (b"\x00\x04MQTT", false),
        (b"\x00\x04MQTT\x05", false),
        (b"\x00\x04MQTT\x84", false),
        (b"\x00\x06MQIsdp\x03\x02", false),
        (b"\x01", true),
        (b"\x00\x05", true),
        (b"\x00\x04MQI", true),
        (b"\x00\x04MQTT\x06", true),
        (b"\x00\x04MQTT\x03", true),
        (b"\x00\x06MQIsdp\x04", true),
        (&[0; 1_000], true),
    ] {
        let bytes = [b"\x10\xfb\xff\x0f", begin].concat();
        let mut decoder = Decoder::server(usize::MAX);
        let result = decoder.decode(&mut BytesMut::from(&bytes[..]));
        assert_eq!(result.is_err(), is_wrong, "{begin:?} {result:?}");
    }
}

/// CONNECT alone does not say who a client is: AUTH may come between (section 4.12).
#[test]
fn packets_are_small_until_the_client_is_known() {
    let connect = framed(0x10, b"\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x02ab");
    let large = b"\xf0\x80\x80\x40";
    let mut decoder = Decoder::server(8 << 20);
    let first = decoder.decode(&mut BytesMut::from(&connect[..]));
    assert!(matches!(first, Ok(Some(Packet::Connect(_)))));
    let error = decoder.decode(&mut BytesMut::from(&large[..]));
    assert!(matches!(error, Err(DecodeError::PacketTooLarge { .. })));
    decoder.client_is_known();
    assert_eq!(decoder.decode(&mut BytesMut::from(&large[..])), Ok(None));
}
