//! Chapter 2: the fixed header, packet identifiers; and the two packets that are nothing else: PINGREQ and PINGRESP.

use crate::*;

/// 3.1.1 section 2.2.2 and 5 section 2.1.3: every flag that is not the one of the table, for every packet but PUBLISH.
#[test]
fn reserved_flags_have_one_value() {
    let connect = b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
    for (kind, right, body) in [
        (1u8, 0u8, &connect[..]),
        (2, 0, b"\x00\x00"),
        (4, 0, b"\x00\x01"),
        (5, 0, b"\x00\x01"),
        (6, 2, b"\x00\x01"),
        (7, 0, b"\x00\x01"),
        (8, 2, b"\x00\x01\x00\x01a\x00"),
        (9, 0, b"\x00\x01\x00"),
        (10, 2, b"\x00\x01\x00\x01a"),
        (11, 0, b"\x00\x01"),
        (12, 0, b""),
        (13, 0, b""),
        (14, 0, b""),
    ] {
        for flags in 0..16 {
            let bytes = framed(kind << 4 | flags, body);
            let result = decode(V3, &bytes);
            assert_eq!(
                result.is_ok(),
                flags == right,
                "type {kind}, flags {flags:04b}"
            );
        }
    }
    for flags in 1..16 {
        refused("3.15.1-1", V5, &framed(0xF0 | flags, b""), MALFORMED);
        refused("3.14.1-1", V5, &framed(0xE0 | flags, b""), MALFORMED);
    }
    // SUBSCRIBE, UNSUBSCRIBE and PUBREL of version 5.
    for flags in (0..16).filter(|flags| *flags != 2) {
        refused(
            "3.8.1-1",
            V5,
            &framed(0x80 | flags, b"\x00\x01\x00\x00\x01a\x00"),
            MALFORMED,
        );
        refused(
            "3.10.1-1",
            V5,
            &framed(0xA0 | flags, b"\x00\x01\x00\x00\x01a"),
            MALFORMED,
        );
        refused("3.6.1-1", V5, &framed(0x60 | flags, b"\x00\x01"), MALFORMED);
    }
}

#[test]
fn packet_types_that_are_not_there() {
    for version in [V3, V5] {
        refused("2.1.2", version, b"\x00\x00", MALFORMED);
    }
    refused("2.2.1 of 3.1.1: type 15", V3, b"\xf0\x00", MALFORMED);
}

#[test]
fn remaining_length() {
    for (size, header) in [
        (2usize, &b"\x30\x02"[..]),
        (127, b"\x30\x7f"),
        (128, b"\x30\x80\x01"),
        (16_383, b"\x30\xff\x7f"),
        (16_384, b"\x30\x80\x80\x01"),
    ] {
        let mut bytes = header.to_vec();
        let name = size.min(100) - 2;
        bytes.extend_from_slice(&[0, name as u8]);
        bytes.extend(std::iter::repeat_n(b'x', name));
        bytes.resize(header.len() + size, 7);
        let result = decode(V3, &bytes);
        if size == 2 {
            assert!(result.is_err(), "an empty topic");
            continue;
        }
        let Ok(Some(packet)) = result else {
            panic!("{size}: {result:?}")
        };
        let mut out = BytesMut::new();
        encode(&packet, V3, &mut out);
        assert_eq!(&out[..], &bytes[..], "{size}");
    }
    for version in [V3, V5] {
        for bytes in [
            &b"\x30\x80\x00"[..],
            b"\x30\x82\x80\x00",
            b"\x30\xff\x80\x80\x00",
        ] {
            refused("1.5.5-1: not the shortest form", version, bytes, MALFORMED);
        }
        refused(
            "1.5.5: a fifth byte",
            version,
            b"\x30\x80\x80\x80\x80",
            MALFORMED,
        );
    }
}

/// [MQTT-2.3.1-1] of 3.1.1, [MQTT-2.2.1-3] of 5.
#[test]
fn packet_identifier_zero() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        for version in [V3, V5] {
            refused("2.2.1", version, &framed(first, b"\x00\x00"), MALFORMED);
            refused("2.2.1: cut", version, &framed(first, b"\x00"), MALFORMED);
        }
    }
    for version in [V3, V5] {
        for first in [0x32, 0x34] {
            refused(
                "PUBLISH",
                version,
                &framed(first, b"\x00\x01t\x00\x00\x00"),
                MALFORMED,
            );
        }
        refused(
            "SUBSCRIBE",
            version,
            &framed(0x82, b"\x00\x00\x00\x00\x01t\x00"),
            MALFORMED,
        );
        refused(
            "UNSUBSCRIBE",
            version,
            &framed(0xA2, b"\x00\x00\x00\x00\x01t"),
            MALFORMED,
        );
        refused(
            "SUBACK",
            version,
            &framed(0x90, b"\x00\x00\x00\x00"),
            MALFORMED,
        );
        refused("UNSUBACK", version, &framed(0xB0, b"\x00\x00"), MALFORMED);
    }
}

#[test]
fn pings() {
    for version in [Version::V31, V3, V5] {
        valid("3.12", version, b"\xc0\x00", Packet::PingReq);
        valid("3.13", version, b"\xd0\x00", Packet::PingResp);
        refused("3.12: a body", version, b"\xc0\x01\x00", MALFORMED);
        refused("3.13: a body", version, b"\xd0\x01\x00", MALFORMED);
    }
}
