//! CONNACK (section 3.2).

use crate::*;

fn connack(session_present: bool, code: u8, properties: Properties) -> Packet {
    Packet::ConnAck(Box::new(ConnAck {
        session_present,
        reason_code: ReasonCode(code),
        properties,
    }))
}

#[test]
fn valid_connacks() {
    let none = Properties::default;
    valid(
        "3.2.2-2",
        V3,
        b"\x20\x02\x00\x00",
        connack(false, 0, none()),
    );
    valid("3.2.2-2", V3, b"\x20\x02\x01\x00", connack(true, 0, none()));
    valid(
        "least",
        V5,
        b"\x20\x03\x00\x00\x00",
        connack(false, 0, none()),
    );
    valid(
        "session present",
        V5,
        b"\x20\x03\x01\x00\x00",
        connack(true, 0, none()),
    );
    valid(
        "3.2.2-7",
        V5,
        b"\x20\x03\x00\x87\x00",
        connack(false, 0x87, none()),
    );
    for code in CODES {
        valid(
            "3.2.2-8",
            V5,
            &[0x20, 3, 0, code, 0],
            connack(false, code, none()),
        );
    }
    let properties = Properties {
        session_expiry_interval: Some(1),
        receive_maximum: Some(2),
        maximum_qos: Some(1),
        retain_available: Some(0),
        maximum_packet_size: Some(3),
        assigned_client_identifier: Some("i".into()),
        topic_alias_maximum: Some(4),
        reason_string: Some("s".into()),
        user_properties: vec![("n".into(), "v".into())],
        wildcard_subscription_available: Some(1),
        subscription_identifier_available: Some(0),
        shared_subscription_available: Some(1),
        server_keep_alive: Some(5),
        response_information: Some("o".into()),
        server_reference: Some("f".into()),
        authentication_method: Some("m".into()),
        authentication_data: Some(Bytes::from_static(b"d")),
        ..Properties::default()
    };
    let body = b"\x00\x00\x3c\x11\x00\x00\x00\x01\x12\x00\x01i\x13\x00\x05\x15\x00\x01m\x16\x00\x01d\x1a\x00\x01o\x1c\x00\x01f\x1f\x00\x01s\x21\x00\x02\x22\x00\x04\x24\x01\x25\x00\x26\x00\x01n\x00\x01v\x27\x00\x00\x00\x03\x28\x01\x29\x00\x2a\x01";
    valid(
        "3.2.2.3: every property",
        V5,
        &framed(0x20, body),
        connack(false, 0, properties),
    );
}

/// Table 3-1.
const CODES: [u8; 22] = [
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];

/// What 3.1.1 can say (section 3.2.2.3) of the reasons 5 has.
#[test]
fn reason_codes_become_return_codes() {
    for (reason, code) in [
        (ReasonCode::SUCCESS, 0u8),
        (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, 1),
        (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, 2),
        (ReasonCode::SERVER_UNAVAILABLE, 3),
        (ReasonCode::QUOTA_EXCEEDED, 3),
        (ReasonCode::BAD_USER_NAME_OR_PASSWORD, 4),
        (ReasonCode::NOT_AUTHORIZED, 5),
    ] {
        let mut out = BytesMut::new();
        encode(
            &connack(false, reason.0, Properties::default()),
            V3,
            &mut out,
        );
        assert_eq!(&out[..], [0x20, 2, 0, code]);
    }
}

#[test]
fn hostile_connacks() {
    for (clause, version, body, code) in [
        ("3.2.2-1", V3, &b"\x02\x00"[..], MALFORMED),
        ("3.2.2-1 of 5", V5, b"\x80\x00\x00", MALFORMED),
        ("no code", V3, b"\x00", MALFORMED),
        ("2.2.2-1: no property length", V5, b"\x00\x00", MALFORMED),
        ("bytes behind the end", V3, b"\x00\x00\x00", MALFORMED),
        ("bytes behind the end", V5, b"\x00\x00\x00\x00", MALFORMED),
        (
            "3.2.2.3.4: maximum QoS 2",
            V5,
            b"\x00\x00\x02\x24\x02",
            PROTOCOL,
        ),
        (
            "a will delay",
            V5,
            b"\x00\x00\x05\x18\x00\x00\x00\x01",
            PROTOCOL,
        ),
    ] {
        refused(clause, version, &framed(0x20, body), code);
    }
    for code in (0..=255).filter(|code| !CODES.contains(code)) {
        refused("3.2.2-8", V5, &framed(0x20, &[0, code, 0]), PROTOCOL);
    }
}
