//! What leaves is what the client takes: no packet above its Maximum Packet Size [MQTT-3.1.2-24], no reason strings where it
//! asked for none [MQTT-3.1.2-29].

use bytes::BytesMut;
use mqtt_codec::{Connect, Packet, Properties, Version, encode};

/// What a client's CONNECT says about the packets it gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    pub version: Version,
    /// Bytes of a whole packet.
    pub maximum_packet_size: usize,
    /// Request Problem Information: reason strings and user properties are wanted everywhere.
    pub problem_information: bool,
}

impl Fit {
    pub fn of(connect: &Connect) -> Fit {
        let properties = &connect.properties;
        let size = properties.maximum_packet_size;
        Fit {
            version: connect.version,
            maximum_packet_size: size.map_or(usize::MAX, |size| size as usize),
            problem_information: properties.request_problem_information != Some(0),
        }
    }

    /// For a client of which nothing but the version is known.
    pub fn unlimited(version: Version) -> Fit {
        Fit {
            version,
            maximum_packet_size: usize::MAX,
            problem_information: true,
        }
    }

    /// Appends the packet. What explains it (reason string, user properties) is left out where the client does not want it or
    /// where the packet would be too large with it. `false` = too large without it too: nothing was appended.
    pub fn encode(&self, packet: &Packet, out: &mut BytesMut) -> bool {
        let start = out.len();
        let always = matches!(
            packet,
            Packet::Publish(_) | Packet::ConnAck(_) | Packet::Disconnect(_)
        );
        if self.problem_information || always || !is_explained(packet) {
            encode(packet, self.version, out);
            if out.len() - start <= self.maximum_packet_size {
                return true;
            }
            out.truncate(start);
            if !is_explained(packet) {
                return false;
            }
        }
        encode(&unexplained(packet.clone()), self.version, out);
        let fits = out.len() - start <= self.maximum_packet_size;
        if !fits {
            out.truncate(start);
        }
        fits
    }
}

/// The properties of which reason string and user properties explain the packet: not those of PUBLISH, which are the message's.
fn explained(packet: &mut Packet) -> Option<&mut Properties> {
    match packet {
        Packet::ConnAck(p) => Some(&mut p.properties),
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            Some(&mut p.properties)
        }
        Packet::SubAck(p) => Some(&mut p.properties),
        Packet::UnsubAck(p) => Some(&mut p.properties),
        Packet::Disconnect(p) => Some(&mut p.properties),
        Packet::Auth(p) => Some(&mut p.properties),
        _ => None,
    }
}

fn is_explained(packet: &Packet) -> bool {
    let properties = match packet {
        Packet::ConnAck(p) => &p.properties,
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            &p.properties
        }
        Packet::SubAck(p) => &p.properties,
        Packet::UnsubAck(p) => &p.properties,
        Packet::Disconnect(p) => &p.properties,
        Packet::Auth(p) => &p.properties,
        _ => return false,
    };
    properties.reason_string.is_some() || !properties.user_properties.is_empty()
}

fn unexplained(mut packet: Packet) -> Packet {
    if let Some(properties) = explained(&mut packet) {
        properties.reason_string = None;
        properties.user_properties.clear();
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_codec::*;

    fn fit(maximum_packet_size: usize, problem_information: bool) -> Fit {
        Fit {
            version: Version::V5,
            maximum_packet_size,
            problem_information,
        }
    }

    fn explained_properties() -> Properties {
        Properties {
            reason_string: Some("because of this and that".into()),
            user_properties: vec![("name".into(), "value".into())],
            ..Properties::default()
        }
    }

    /// Every packet a server sends that can say why, with the reason string and with the user property.
    fn packets() -> Vec<Packet> {
        let properties = explained_properties;
        let ack = || Ack {
            packet_id: PacketId::MIN,
            reason_code: ReasonCode::QUOTA_EXCEEDED,
            properties: properties(),
        };
        let rel = || Ack {
            reason_code: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            ..ack()
        };
        vec![
            Packet::ConnAck(Box::new(ConnAck {
                session_present: false,
                reason_code: ReasonCode::NOT_AUTHORIZED,
                properties: properties(),
            })),
            Packet::PubAck(ack()),
            Packet::PubRec(ack()),
            Packet::PubRel(rel()),
            Packet::PubComp(rel()),
            Packet::SubAck(SubAck {
                packet_id: PacketId::MIN,
                properties: properties(),
                reason_codes: vec![ReasonCode::NOT_AUTHORIZED],
            }),
            Packet::UnsubAck(UnsubAck {
                packet_id: PacketId::MIN,
                properties: properties(),
                reason_codes: vec![ReasonCode::SUCCESS],
            }),
            Packet::Disconnect(Disconnect {
                reason_code: ReasonCode::NOT_AUTHORIZED,
                properties: properties(),
            }),
            Packet::Auth(Auth {
                reason_code: ReasonCode(0x18),
                properties: Properties {
                    authentication_method: Some("M".into()),
                    ..properties()
                },
            }),
        ]
    }

    fn read(out: &BytesMut) -> Packet {
        let mut decoder = Decoder::with_version(Version::V5, usize::MAX);
        let packet = decoder.decode(&mut out.clone()).expect("valid");
        packet.expect("all of it")
    }

    /// [MQTT-3.2.2-19], [MQTT-3.4.2-2] and the same of each packet: what explains it goes first, then the packet.
    #[test]
    fn what_explains_a_packet_is_left_out_where_it_would_be_too_large() {
        for packet in packets() {
            let mut whole = BytesMut::new();
            assert!(fit(usize::MAX, true).encode(&packet, &mut whole));
            assert_eq!(read(&whole), packet);
            let mut exact = BytesMut::new();
            assert!(fit(whole.len(), true).encode(&packet, &mut exact));
            assert_eq!(exact, whole);
            let mut less = BytesMut::new();
            assert!(fit(whole.len() - 1, true).encode(&packet, &mut less));
            assert_eq!(read(&less), unexplained(packet.clone()));
            let mut nothing = BytesMut::from(&b"before"[..]);
            assert!(!fit(less.len() - 1, true).encode(&packet, &mut nothing));
            assert_eq!(&nothing[..], b"before");
        }
    }

    /// [MQTT-3.1.2-29]
    #[test]
    fn nothing_is_explained_to_who_does_not_ask_except_in_connack_and_disconnect() {
        for packet in packets() {
            let mut out = BytesMut::new();
            assert!(fit(usize::MAX, false).encode(&packet, &mut out));
            let kept = matches!(packet, Packet::ConnAck(_) | Packet::Disconnect(_));
            let expected = if kept { packet } else { unexplained(packet) };
            assert_eq!(read(&out), expected);
        }
    }
}
