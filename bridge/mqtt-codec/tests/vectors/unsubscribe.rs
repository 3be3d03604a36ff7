//! UNSUBSCRIBE and UNSUBACK (sections 3.10, 3.11).

use crate::*;

fn unsubscribe(filters: &[&str], properties: Properties) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(10),
        properties,
        filters: filters.iter().map(|text| filter(text)).collect(),
    })
}

#[test]
fn valid_unsubscribes() {
    let none = Properties::default;
    valid(
        "3.10.3",
        V3,
        b"\xa2\x07\x00\x0a\x00\x03a/#",
        unsubscribe(&["a/#"], none()),
    );
    valid(
        "3.10.3: two",
        V3,
        b"\xa2\x08\x00\x0a\x00\x01a\x00\x01+",
        unsubscribe(&["a", "+"], none()),
    );
    valid(
        "3.10.3",
        V5,
        b"\xa2\x06\x00\x0a\x00\x00\x01a",
        unsubscribe(&["a"], none()),
    );
    let properties = Properties {
        user_properties: vec![("n".into(), "v".into())],
        ..none()
    };
    valid(
        "3.10.2.1",
        V5,
        b"\xa2\x0d\x00\x0a\x07\x26\x00\x01n\x00\x01v\x00\x01a",
        unsubscribe(&["a"], properties),
    );
}

#[test]
fn hostile_unsubscribes() {
    let name = ReasonCode::TOPIC_FILTER_INVALID;
    for (clause, version, body, code) in [
        ("3.10.3-2", V3, &b"\x00\x01"[..], PROTOCOL),
        ("3.10.3-2 of 5", V5, b"\x00\x01\x00", PROTOCOL),
        ("no packet id", V3, b"", MALFORMED),
        ("2.2.2-1: no property length", V5, b"\x00\x01", MALFORMED),
        ("a filter that is cut", V3, b"\x00\x01\x00\x09t", MALFORMED),
        ("half a length", V3, b"\x00\x01\x00\x01t\x00", MALFORMED),
        ("4.7.3-1: an empty filter", V3, b"\x00\x01\x00\x00", name),
        ("4.7.1-1", V5, b"\x00\x01\x00\x00\x02#a", name),
        (
            "a subscription identifier",
            V5,
            b"\x00\x01\x02\x0b\x01\x00\x01t",
            PROTOCOL,
        ),
    ] {
        refused(clause, version, &framed(0xA2, body), code);
    }
}

#[test]
fn unsubacks() {
    let unsuback = |codes: &[u8], properties| {
        Packet::UnsubAck(UnsubAck {
            packet_id: id(10),
            properties,
            reason_codes: codes.iter().map(|code| ReasonCode(*code)).collect(),
        })
    };
    valid(
        "3.11",
        V3,
        b"\xb0\x02\x00\x0a",
        unsuback(&[], Properties::default()),
    );
    let all = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    valid(
        "3.11.3: every code",
        V5,
        &framed(0xB0, &[&[0, 10, 0][..], &all].concat()),
        unsuback(&all, Properties::default()),
    );
    let properties = Properties {
        reason_string: Some("s".into()),
        ..Properties::default()
    };
    valid(
        "3.11.2.1",
        V5,
        &framed(0xB0, b"\x00\x0a\x04\x1f\x00\x01s\x11"),
        unsuback(&[0x11], properties),
    );
    // 3.1.1 has no codes: what there is to say is not written.
    let mut out = BytesMut::new();
    encode(&unsuback(&[0x11], Properties::default()), V3, &mut out);
    assert_eq!(&out[..], b"\xb0\x02\x00\x0a");
    for (clause, version, body, code) in [
        ("no packet id", V3, &b"\x00"[..], MALFORMED),
        ("a body", V3, b"\x00\x0a\x00", MALFORMED),
        ("no code", V5, b"\x00\x0a\x00", PROTOCOL),
        ("3.11.3-2", V5, b"\x00\x0a\x00\x01", PROTOCOL),
        (
            "a topic alias",
            V5,
            b"\x00\x0a\x03\x23\x00\x01\x00",
            PROTOCOL,
        ),
    ] {
        refused(clause, version, &framed(0xB0, body), code);
    }
}
