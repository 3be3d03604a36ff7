//! PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7).

use crate::*;

type Make = fn(Ack) -> Packet;

/// First byte, the packet, and the reason codes of its table.
const KINDS: [(u8, Make, &[u8]); 4] = [
    (0x40, Packet::PubAck, PUBLISH_CODES),
    (0x50, Packet::PubRec, PUBLISH_CODES),
    (0x62, Packet::PubRel, &[0x00, 0x92]),
    (0x70, Packet::PubComp, &[0x00, 0x92]),
];
const PUBLISH_CODES: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];

#[test]
fn valid_acknowledgements() {
    for (first, packet, codes) in KINDS {
        for version in [V3, V5] {
            valid(
                "packet id",
                version,
                &framed(first, b"\x12\x34"),
                packet(Ack::success(id(0x1234))),
            );
        }
        for code in codes.iter().filter(|code| **code != 0) {
            let ack = Ack::new(id(1), ReasonCode(*code));
            valid(
                "reason code",
                V5,
                &framed(first, &[0, 1, *code, 0]),
                packet(ack),
            );
        }
        let properties = Properties {
            reason_string: Some("s".into()),
            user_properties: vec![("n".into(), "v".into())],
            ..Properties::default()
        };
        let ack = Ack {
            packet_id: id(1),
            reason_code: ReasonCode::SUCCESS,
            properties,
        };
        valid(
            "properties",
            V5,
            &framed(
                first,
                b"\x00\x01\x00\x0b\x1f\x00\x01s\x26\x00\x01n\x00\x01v",
            ),
            packet(ack),
        );
    }
}

/// Both may be left out, also when the other end would have written them (section 3.4.2.1).
#[test]
fn reason_code_and_property_length_may_be_missing() {
    for (first, packet, _) in KINDS {
        for body in [&b"\x00\x01"[..], b"\x00\x01\x00", b"\x00\x01\x00\x00"] {
            let result = decode(V5, &framed(first, body));
            assert_eq!(result, Ok(Some(packet(Ack::success(id(1))))), "{body:?}");
        }
    }
}

#[test]
fn hostile_acknowledgements() {
    for (first, _, codes) in KINDS {
        for (clause, version, body, code) in [
            ("no packet id", V3, &b""[..], MALFORMED),
            ("half a packet id", V3, b"\x00", MALFORMED),
            ("more than a packet id", V3, b"\x00\x01\x00", MALFORMED),
            ("no packet id", V5, b"", MALFORMED),
            (
                "bytes behind the properties",
                V5,
                b"\x00\x01\x00\x00\x00",
                MALFORMED,
            ),
            (
                "a property length beyond the end",
                V5,
                b"\x00\x01\x00\x01",
                MALFORMED,
            ),
            (
                "a property of PUBLISH",
                V5,
                b"\x00\x01\x00\x02\x01\x01",
                PROTOCOL,
            ),
            (
                "the reason string twice",
                V5,
                b"\x00\x01\x00\x06\x1f\x00\x00\x1f\x00\x00",
                PROTOCOL,
            ),
        ] {
            refused(clause, version, &framed(first, body), code);
        }
        // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
        for code in (0..=255u8).filter(|code| !codes.contains(code)) {
            refused(
                "a code of no table",
                V5,
                &framed(first, &[0, 1, code]),
                PROTOCOL,
            );
        }
    }
}
