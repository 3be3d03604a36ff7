//! Properties (section 2.2.2): which packet may have which, how often, and what they may say.

use crate::*;

/// Identifier, one value, and the packets of table 2-4 that may carry it: C = CONNECT, W = will, A = CONNACK, P = PUBLISH,
/// K = the four acknowledgements, S = SUBSCRIBE, s = SUBACK, U = UNSUBSCRIBE, u = UNSUBACK, D = DISCONNECT, X = AUTH.
const TABLE: [(u8, &[u8], &str); 27] = [
    (0x01, b"\x01", "PW"),
    (0x02, b"\x00\x00\x00\x01", "PW"),
    (0x03, b"\x00\x01c", "PW"),
    (0x08, b"\x00\x01r", "PW"),
    (0x09, b"\x00\x01d", "PW"),
    (0x0B, b"\x01", "PS"),
    (0x11, b"\x00\x00\x00\x01", "CAD"),
    (0x12, b"\x00\x01i", "A"),
    (0x13, b"\x00\x01", "A"),
    (0x15, b"\x00\x01m", "CAX"),
    (0x16, b"\x00\x01d", "CAX"),
    (0x17, b"\x01", "C"),
    (0x18, b"\x00\x00\x00\x01", "W"),
    (0x19, b"\x01", "C"),
    (0x1A, b"\x00\x01o", "A"),
    (0x1C, b"\x00\x01f", "AD"),
    (0x1F, b"\x00\x01s", "AKsuDX"),
    (0x21, b"\x00\x01", "CA"),
    (0x22, b"\x00\x01", "CA"),
    (0x23, b"\x00\x01", "P"),
    (0x24, b"\x01", "A"),
    (0x25, b"\x01", "A"),
    (0x26, b"\x00\x01n\x00\x01v", "CWAPKSsUuDX"),
    (0x27, b"\x00\x00\x00\x01", "CA"),
    (0x28, b"\x01", "A"),
    (0x29, b"\x01", "A"),
    (0x2A, b"\x01", "A"),
];

/// Every packet that has properties, around these.
fn around(properties: &[u8]) -> Vec<(char, Vec<u8>)> {
    let p = [&[properties.len() as u8], properties].concat();
    let join = |parts: &[&[u8]]| parts.concat();
    vec![
        (
            'C',
            framed(
                0x10,
                &join(&[b"\x00\x04MQTT\x05\x02\x00\x00", &p, b"\x00\x01a"]),
            ),
        ),
        (
            'W',
            framed(
                0x10,
                &join(&[
                    b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01a",
                    &p,
                    b"\x00\x01w\x00\x00",
                ]),
            ),
        ),
        ('A', framed(0x20, &join(&[b"\x00\x00", &p]))),
        ('P', framed(0x30, &join(&[b"\x00\x01t", &p]))),
        ('K', framed(0x40, &join(&[b"\x00\x01\x00", &p]))),
        ('K', framed(0x50, &join(&[b"\x00\x01\x00", &p]))),
        ('K', framed(0x62, &join(&[b"\x00\x01\x00", &p]))),
        ('K', framed(0x70, &join(&[b"\x00\x01\x00", &p]))),
        (
            'S',
            framed(0x82, &join(&[b"\x00\x01", &p, b"\x00\x01t\x00"])),
        ),
        ('s', framed(0x90, &join(&[b"\x00\x01", &p, b"\x00"]))),
        ('U', framed(0xA2, &join(&[b"\x00\x01", &p, b"\x00\x01t"]))),
        ('u', framed(0xB0, &join(&[b"\x00\x01", &p, b"\x00"]))),
        ('D', framed(0xE0, &join(&[b"\x00", &p]))),
        ('X', framed(0xF0, &join(&[b"\x18", &p]))),
    ]
}

#[test]
fn each_packet_takes_the_properties_of_the_table() {
    for (id, value, packets) in TABLE {
        let one = [&[id], value].concat();
        for (kind, bytes) in around(&one) {
            // Data without a method is another rule.
            let bytes = match (id, kind) {
                (0x16, 'C') => around(b"\x15\x00\x01m\x16\x00\x01d")[0].1.clone(),
                _ => bytes,
            };
            if packets.contains(kind) {
                assert!(
                    matches!(decode(V5, &bytes), Ok(Some(_))),
                    "{id:02x} in {kind}: {:?}",
                    decode(V5, &bytes)
                );
            } else {
                refused(&format!("{id:02x} in {kind}"), V5, &bytes, PROTOCOL);
            }
        }
    }
}

/// Only user properties, and subscription identifiers from a server, may be there twice.
#[test]
fn no_property_is_there_twice() {
    for (id, value, packets) in TABLE {
        let twice = [&[id], value, &[id], value].concat();
        for (kind, bytes) in around(&twice) {
            if !packets.contains(kind) {
                continue;
            }
            if id == 0x26 || (id == 0x0B && kind == 'P') {
                assert!(
                    matches!(decode(V5, &bytes), Ok(Some(_))),
                    "{id:02x} in {kind}"
                );
            } else {
                refused(&format!("{id:02x} twice in {kind}"), V5, &bytes, PROTOCOL);
            }
        }
    }
}

#[test]
fn what_is_not_a_property() {
    let known: Vec<u8> = TABLE.iter().map(|(id, _, _)| *id).collect();
    for id in (0..128u8).filter(|id| !known.contains(id)) {
        for (kind, bytes) in around(&[id, 0, 0, 0, 0]) {
            assert!(decode(V5, &bytes).is_err(), "{id:02x} in {kind}");
        }
    }
    for (kind, bytes) in around(b"\x81\x01\x00") {
        refused(
            &format!("an identifier of two bytes in {kind}"),
            V5,
            &bytes,
            MALFORMED,
        );
    }
}

#[test]
fn properties_that_are_cut() {
    for (id, value, packets) in TABLE {
        let one = [&[id], value].concat();
        for cut in 1..one.len() {
            for (kind, bytes) in around(&one[..cut]) {
                if packets.contains(kind) {
                    refused(&format!("{id:02x} cut in {kind}"), V5, &bytes, MALFORMED);
                }
            }
        }
    }
}
