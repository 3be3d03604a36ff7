//! SUBSCRIBE and SUBACK (sections 3.8, 3.9).

use crate::*;

fn entry(text: &str, byte: u8) -> SubscribeFilter {
    SubscribeFilter {
        filter: filter(text),
        options: SubscriptionOptions::from_u8(byte).expect("options"),
    }
}

fn subscribe(filters: Vec<SubscribeFilter>, properties: Properties) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id: id(10),
        properties,
        filters,
    })
}

#[test]
fn valid_subscribes() {
    let none = Properties::default;
    valid(
        "3.8.3",
        V3,
        &framed(0x82, b"\x00\x0a\x00\x03a/#\x01"),
        subscribe(vec![entry("a/#", 1)], none()),
    );
    valid(
        "3.8.3: three",
        V3,
        &framed(0x82, b"\x00\x0a\x00\x01a\x00\x00\x01+\x01\x00\x01#\x02"),
        subscribe(vec![entry("a", 0), entry("+", 1), entry("#", 2)], none()),
    );
    valid(
        "3.8.3: the same twice",
        V3,
        &framed(0x82, b"\x00\x0a\x00\x01a\x00\x00\x01a\x01"),
        subscribe(vec![entry("a", 0), entry("a", 1)], none()),
    );
    // Every combination of the options.
    for byte in (0..0x30u8).filter(|byte| byte & 3 != 3) {
        valid(
            "3.8.3.1",
            V5,
            &framed(0x82, &[0, 10, 0, 0, 1, b'a', byte]),
            subscribe(vec![entry("a", byte)], none()),
        );
    }
    let properties = Properties {
        subscription_identifiers: vec![268_435_455],
        user_properties: vec![("n".into(), "v".into())],
        ..Properties::default()
    };
    valid(
        "3.8.2.1",
        V5,
        &framed(
            0x82,
            b"\x00\x0a\x0c\x0b\xff\xff\xff\x7f\x26\x00\x01n\x00\x01v\x00\x01a\x00",
        ),
        subscribe(vec![entry("a", 0)], properties),
    );
    valid(
        "4.8.2: shared",
        V5,
        &framed(0x82, b"\x00\x0a\x00\x00\x0a$share/g/a\x01"),
        subscribe(vec![entry("$share/g/a", 1)], none()),
    );
}

#[test]
fn hostile_subscribes() {
    let name = ReasonCode::TOPIC_FILTER_INVALID;
    for (clause, body, code) in [
        ("3.8.3-3: no filter", &b"\x00\x01"[..], PROTOCOL),
        ("a filter without QoS", b"\x00\x01\x00\x01t", MALFORMED),
        ("a filter that is cut", b"\x00\x01\x00\x09t", MALFORMED),
        ("3-8.3-4: QoS 3", b"\x00\x01\x00\x01t\x03", MALFORMED),
        (
            "3-8.3-4: the first reserved bit",
            b"\x00\x01\x00\x01t\x04",
            MALFORMED,
        ),
        (
            "3-8.3-4: the last reserved bit",
            b"\x00\x01\x00\x01t\x80",
            MALFORMED,
        ),
        (
            "3-8.3-4: in the second filter",
            b"\x00\x01\x00\x01t\x00\x00\x01t\x08",
            MALFORMED,
        ),
        ("4.7.3-1: an empty filter", b"\x00\x01\x00\x00\x00", name),
        (
            "4.7.1-2: # not at the end",
            b"\x00\x01\x00\x03#/a\x00",
            name,
        ),
        ("4.7.1-2: # behind text", b"\x00\x01\x00\x02a#\x00", name),
        ("4.7.1-2: ##", b"\x00\x01\x00\x02##\x00", name),
        ("4.7.1-3: + behind text", b"\x00\x01\x00\x02a+\x00", name),
        ("4.7.1-3: + before text", b"\x00\x01\x00\x03+a/\x00", name),
        ("4.7.1-3: ++", b"\x00\x01\x00\x02++\x00", name),
    ] {
        refused(clause, V3, &framed(0x82, body), code);
    }
    for (clause, body, code) in [
        ("3.8.3-2: no filter", &b"\x00\x01\x00"[..], PROTOCOL),
        ("2.2.2-1: no property length", b"\x00\x01", MALFORMED),
        ("3.8.3: QoS 3", b"\x00\x01\x00\x00\x01t\x03", MALFORMED),
        ("3.8.3-5: bit 6", b"\x00\x01\x00\x00\x01t\x40", MALFORMED),
        ("3.8.3-5: bit 7", b"\x00\x01\x00\x00\x01t\x80", MALFORMED),
        (
            "3.8.3.1: retain handling 3",
            b"\x00\x01\x00\x00\x01t\x30",
            PROTOCOL,
        ),
        (
            "3.8.3-4: No Local on a shared subscription",
            b"\x00\x01\x00\x00\x0a$share/g/a\x05",
            PROTOCOL,
        ),
        (
            "3.8.2.1.2: identifier 0",
            b"\x00\x01\x02\x0b\x00\x00\x01t\x00",
            PROTOCOL,
        ),
        (
            "3.8.2.1.2: two identifiers",
            b"\x00\x01\x04\x0b\x01\x0b\x02\x00\x01t\x00",
            PROTOCOL,
        ),
        (
            "a property of PUBLISH",
            b"\x00\x01\x02\x01\x01\x00\x01t\x00",
            PROTOCOL,
        ),
    ] {
        refused(clause, V5, &framed(0x82, body), code);
    }
}

#[test]
fn valid_subacks() {
    let suback = |codes: &[u8], properties| {
        Packet::SubAck(SubAck {
            packet_id: id(10),
            properties,
            reason_codes: codes.iter().map(|code| ReasonCode(*code)).collect(),
        })
    };
    valid(
        "3.9.3",
        V3,
        b"\x90\x06\x00\x0a\x00\x01\x02\x80",
        suback(&[0, 1, 2, 0x80], Properties::default()),
    );
    let all = [
        0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
    ];
    valid(
        "3.9.3: every code",
        V5,
        &framed(0x90, &[&[0, 10, 0][..], &all].concat()),
        suback(&all, Properties::default()),
    );
    let properties = Properties {
        reason_string: Some("s".into()),
        user_properties: vec![("n".into(), "v".into())],
        ..Properties::default()
    };
    valid(
        "3.9.2.1",
        V5,
        &framed(0x90, b"\x00\x0a\x0b\x1f\x00\x01s\x26\x00\x01n\x00\x01v\x00"),
        suback(&[0], properties),
    );
    // What 5 can say and 3.1.1 can not [MQTT-3.9.3-2].
    let mut out = BytesMut::new();
    encode(
        &suback(&[1, 0x87, 0x9E], Properties::default()),
        V3,
        &mut out,
    );
    assert_eq!(&out[..], b"\x90\x05\x00\x0a\x01\x80\x80");
    for (clause, version, body, code) in [
        ("no code", V3, &b"\x00\x0a"[..], PROTOCOL),
        ("no code", V5, b"\x00\x0a\x00", PROTOCOL),
        ("no packet id", V3, b"", MALFORMED),
        ("3.9.3-2", V3, b"\x00\x0a\x03", PROTOCOL),
        ("3.9.3-2", V3, b"\x00\x0a\x87", PROTOCOL),
        ("3.9.3-2 of 5", V5, b"\x00\x0a\x00\x92", PROTOCOL),
        (
            "a topic alias",
            V5,
            b"\x00\x0a\x03\x23\x00\x01\x00",
            PROTOCOL,
        ),
    ] {
        refused(clause, version, &framed(0x90, body), code);
    }
}
