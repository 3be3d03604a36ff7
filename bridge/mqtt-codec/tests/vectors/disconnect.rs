//! DISCONNECT and AUTH (sections 3.14, 3.15).

use crate::*;

fn disconnect(code: u8, properties: Properties) -> Packet {
    Packet::Disconnect(Disconnect {
        reason_code: ReasonCode(code),
        properties,
    })
}

fn auth(code: u8, properties: Properties) -> Packet {
    Packet::Auth(Auth {
        reason_code: ReasonCode(code),
        properties,
    })
}

const DISCONNECT_CODES: [u8; 30] = [
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
    0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

#[test]
fn disconnects() {
    for version in [V3, V5] {
        valid(
            "3.14",
            version,
            b"\xe0\x00",
            disconnect(0, Properties::default()),
        );
    }
    for code in DISCONNECT_CODES.into_iter().filter(|code| *code != 0) {
        valid(
            "3.14.2.1",
            V5,
            &[0xE0, 2, code, 0],
            disconnect(code, Properties::default()),
        );
    }
    let properties = Properties {
        session_expiry_interval: Some(7),
        server_reference: Some("f".into()),
        reason_string: Some("s".into()),
        user_properties: vec![("n".into(), "v".into())],
        ..Properties::default()
    };
    valid(
        "3.14.2.2: every property",
        V5,
        &framed(
            0xE0,
            b"\x00\x14\x11\x00\x00\x00\x07\x1c\x00\x01f\x1f\x00\x01s\x26\x00\x01n\x00\x01v",
        ),
        disconnect(0, properties),
    );
    assert_eq!(
        decode(V5, b"\xe0\x01\x04"),
        Ok(Some(disconnect(4, Properties::default()))),
        "3.14.2.2.1"
    );
    for (clause, version, body, code) in [
        ("a body", V3, &b"\x00"[..], MALFORMED),
        (
            "a property length beyond the end",
            V5,
            b"\x00\x01",
            MALFORMED,
        ),
        (
            "bytes behind the properties",
            V5,
            b"\x00\x00\x00",
            MALFORMED,
        ),
        (
            "3.14.2.2.2: the session expiry twice",
            V5,
            b"\x00\x0a\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01",
            PROTOCOL,
        ),
        (
            "a property of CONNECT",
            V5,
            b"\x00\x03\x21\x00\x01",
            PROTOCOL,
        ),
    ] {
        refused(clause, version, &framed(0xE0, body), code);
    }
    for code in (0..=255u8).filter(|code| !DISCONNECT_CODES.contains(code)) {
        refused("3.14.2-1", V5, &[0xE0, 1, code], PROTOCOL);
    }
}

#[test]
fn auths() {
    let method = || Properties {
        authentication_method: Some("M".into()),
        ..Properties::default()
    };
    for code in [0x00, 0x18, 0x19] {
        valid(
            "3.15.2.1",
            V5,
            &framed(0xF0, &[code, 4, 0x15, 0, 1, b'M']),
            auth(code, method()),
        );
    }
    let properties = Properties {
        authentication_data: Some(Bytes::from_static(b"\x00\xff")),
        reason_string: Some("s".into()),
        user_properties: vec![("n".into(), "v".into())],
        ..method()
    };
    valid(
        "3.15.2.2: every property",
        V5,
        &framed(
            0xF0,
            b"\x18\x14\x15\x00\x01M\x16\x00\x02\x00\xff\x1f\x00\x01s\x26\x00\x01n\x00\x01v",
        ),
        auth(0x18, properties),
    );
    valid(
        "3.15.2.1: nothing",
        V5,
        b"\xf0\x00",
        auth(0, Properties::default()),
    );
    for (clause, version, body, code) in [
        ("type 15 of 3.1.1", V3, &b"\x18\x00"[..], MALFORMED),
        ("cut", V5, b"\x18\x04\x15\x00\x02M", MALFORMED),
        (
            "bytes behind the properties",
            V5,
            b"\x18\x00\x00",
            MALFORMED,
        ),
        (
            "3.15.2.2.2: the method twice",
            V5,
            b"\x18\x08\x15\x00\x01M\x15\x00\x01M",
            PROTOCOL,
        ),
        (
            "a property of CONNECT",
            V5,
            b"\x18\x03\x21\x00\x01",
            PROTOCOL,
        ),
        ("3.15.2-1", V5, b"\x01", PROTOCOL),
        ("3.15.2-1", V5, b"\x80", PROTOCOL),
    ] {
        refused(clause, version, &framed(0xF0, body), code);
    }
}
