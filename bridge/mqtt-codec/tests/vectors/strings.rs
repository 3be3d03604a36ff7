//! Section 1.5: strings wherever the protocol has one.

use crate::*;

/// What is not UTF-8 as section 1.5.4 (1.5.3 of 3.1.1) has it.
const WRONG: [(&str, &[u8]); 9] = [
    ("a null character", b"a\x00b"),
    ("the first surrogate, U+D800", b"\xed\xa0\x80"),
    ("the last surrogate, U+DFFF", b"\xed\xbf\xbf"),
    ("a pair of surrogates", b"\xed\xa0\xbd\xed\xb8\x80"),
    ("overlong /", b"\xc0\xaf"),
    ("overlong null", b"\xc0\x80"),
    ("above U+10FFFF", b"\xf4\x90\x80\x80"),
    ("a continuation alone", b"\x80"),
    ("cut inside a character", b"\xe2\x82"),
];

fn text(value: &[u8]) -> Vec<u8> {
    let mut out = (value.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(value);
    out
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// One property, with the length before it.
fn property(id: u8, value: &[u8]) -> Vec<u8> {
    joined(&[&[value.len() as u8 + 1, id], value])
}

/// Every packet with a string, around this one.
fn around(value: &[u8]) -> Vec<(&'static str, Version, Vec<u8>)> {
    let s = text(value);
    let v4: &[u8] = b"\x00\x04MQTT\x04";
    let v5: &[u8] = b"\x00\x04MQTT\x05";
    let in_connect = |id| joined(&[v5, b"\x02\x00\x00", &property(id, &s), b"\x00\x01a"]);
    let in_will = |id| {
        joined(&[
            v5,
            b"\x06\x00\x00\x00\x00\x01a",
            &property(id, &s),
            b"\x00\x01w\x00\x01x",
        ])
    };
    let in_publish = |id| joined(&[b"\x00\x01t", &property(id, &s)]);
    let pair = |first: &[u8], second: &[u8]| joined(&[&text(first), &text(second)]);
    let user = |first: &[u8], second: &[u8]| {
        joined(&[b"\x00\x01t", &property(0x26, &pair(first, second))])
    };
    vec![
        (
            "client id",
            V3,
            framed(0x10, &joined(&[v4, b"\x02\x00\x00", &s])),
        ),
        (
            "client id",
            V5,
            framed(0x10, &joined(&[v5, b"\x02\x00\x00\x00", &s])),
        ),
        (
            "will topic",
            V3,
            framed(
                0x10,
                &joined(&[v4, b"\x06\x00\x00\x00\x01a", &s, b"\x00\x01x"]),
            ),
        ),
        (
            "will topic",
            V5,
            framed(
                0x10,
                &joined(&[v5, b"\x06\x00\x00\x00\x00\x01a\x00", &s, b"\x00\x01x"]),
            ),
        ),
        (
            "user name",
            V3,
            framed(0x10, &joined(&[v4, b"\x82\x00\x00\x00\x01a", &s])),
        ),
        (
            "user name",
            V5,
            framed(0x10, &joined(&[v5, b"\x82\x00\x00\x00\x00\x01a", &s])),
        ),
        ("authentication method", V5, framed(0x10, &in_connect(0x15))),
        ("content type of a will", V5, framed(0x10, &in_will(0x03))),
        ("response topic of a will", V5, framed(0x10, &in_will(0x08))),
        ("topic name", V3, framed(0x30, &s)),
        ("topic name", V5, framed(0x30, &joined(&[&s, b"\x00"]))),
        ("content type", V5, framed(0x30, &in_publish(0x03))),
        ("response topic", V5, framed(0x30, &in_publish(0x08))),
        (
            "name of a user property",
            V5,
            framed(0x30, &user(value, b"v")),
        ),
        (
            "value of a user property",
            V5,
            framed(0x30, &user(b"n", value)),
        ),
        (
            "topic filter",
            V3,
            framed(0x82, &joined(&[b"\x00\x01", &s, b"\x00"])),
        ),
        (
            "topic filter",
            V5,
            framed(0x82, &joined(&[b"\x00\x01\x00", &s, b"\x00"])),
        ),
        (
            "filter of UNSUBSCRIBE",
            V3,
            framed(0xA2, &joined(&[b"\x00\x01", &s])),
        ),
        (
            "filter of UNSUBSCRIBE",
            V5,
            framed(0xA2, &joined(&[b"\x00\x01\x00", &s])),
        ),
        (
            "reason string",
            V5,
            framed(0x40, &joined(&[b"\x00\x01\x80", &property(0x1F, &s)])),
        ),
        (
            "reason string",
            V5,
            framed(0xE0, &joined(&[b"\x00", &property(0x1F, &s)])),
        ),
        (
            "authentication method of AUTH",
            V5,
            framed(0xF0, &joined(&[b"\x18", &property(0x15, &s)])),
        ),
    ]
}

#[test]
fn strings_that_are_not_utf_8_end_the_connection() {
    for (what, value) in WRONG {
        for (place, version, bytes) in around(value) {
            refused(
                &format!("1.5.4: {what} in {place}"),
                version,
                &bytes,
                MALFORMED,
            );
        }
    }
}

/// U+FEFF is a character like any other [MQTT-1.5.4-3]; so are characters outside the basic plane and control characters.
#[test]
fn strings_are_taken_as_they_are() {
    for value in [
        "\u{feff}",
        "a\u{feff}b",
        "𝄞",
        "\u{1}\u{7f}\u{9f}",
        "\u{ffff}",
        " ",
    ] {
        for (place, version, bytes) in around(value.as_bytes()) {
            let packet = decode(version, &bytes).expect(place).expect("all of it");
            let mut out = BytesMut::new();
            encode(&packet, version, &mut out);
            assert_eq!(&out[..], &bytes[..], "{value:?} in {place}");
        }
    }
}

#[test]
fn a_string_longer_than_the_packet() {
    for (place, version, mut bytes) in around(b"abc") {
        // The last bytes are cut off, the length of the packet is true: the length of the string is not.
        let cut = bytes.len() - 2 - usize::from(place.contains("will"));
        bytes.truncate(cut);
        bytes[1] = (cut - 2) as u8;
        assert!(decode(version, &bytes).is_err(), "{place}");
    }
}
