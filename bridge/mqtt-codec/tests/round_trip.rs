//! Random packets come back as they were, in pieces of any size; random bytes never panic. proptest prints the failing case.

use bytes::{Bytes, BytesMut};
use mqtt_codec::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß€𝄞 /]{0,12}"
}

fn topic() -> impl Strategy<Value = TopicName> {
    "[a-zäß/$]{1,20}".prop_filter_map("a topic", |text| TopicName::new(&text).ok())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    vec(prop_oneof!["[a-z$]{0,4}", Just("+".to_owned())], 1..4)
        .prop_filter_map("a filter", |levels| {
            TopicFilter::new(&levels.join("/")).ok()
        })
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_filter_map("not zero", PacketId::new)
}

fn user_properties() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..3)
}

prop_compose! {
    fn message_properties()(
        format in of(0..=1u8), expiry in of(any::<u32>()), content_type in of(text()), response_topic in of(topic()),
        correlation_data in of(data()), user_properties in user_properties(),
    ) -> Properties {
        Properties {
            payload_format_indicator: format, message_expiry_interval: expiry, content_type, response_topic,
            correlation_data, user_properties, ..Properties::default()
        }
    }
}

prop_compose! {
    fn publish()(
        qos in 0..=2u8, flags in any::<(bool, bool)>(), topic in topic(), id in id(), properties in message_properties(),
        alias in of(any::<u16>()), subscriptions in vec(1..=268_435_455u32, 0..3), payload in data(),
    ) -> Packet {
        let qos = QoS::from_u8(qos).unwrap_or_default();
        let some = qos != QoS::AtMostOnce;
        let properties = Properties { topic_alias: alias, subscription_identifiers: subscriptions, ..properties };
        Packet::Publish(Box::new(Publish {
            dup: flags.0 && some, qos, retain: flags.1, topic: Some(topic), packet_id: some.then_some(id), properties, payload,
        }))
    }
}

prop_compose! {
    fn connect()(
        clean_start in any::<bool>(), keep_alive in any::<u16>(), client_id in text(), user_name in of(text()), password in of(data()),
        will in of((topic(), data(), 0..=2u8, any::<bool>(), message_properties(), of(any::<u32>()))),
        expiry in of(any::<u32>()), receive in of(1..=u16::MAX), size in of(1..=u32::MAX), user_properties in user_properties(),
    ) -> Packet {
        Packet::Connect(Box::new(Connect {
            version: Version::V5, is_bridge: false, clean_start, keep_alive, client_id, user_name, password,
            will: will.map(|(topic, payload, qos, retain, properties, delay)| Will {
                topic, payload, qos: QoS::from_u8(qos).unwrap_or_default(), retain,
                properties: Properties { will_delay_interval: delay, ..properties },
            }),
            properties: Properties {
                session_expiry_interval: expiry, receive_maximum: receive, maximum_packet_size: size, user_properties,
                ..Properties::default()
            },
        }))
    }
}

prop_compose! {
    fn answer()(kind in 0..8, id in id(), code in any::<u8>(), reason_string in of(text()), user_properties in user_properties(),
        codes in vec(any::<u8>(), 1..5), present in any::<bool>()) -> Packet {
        // One of those the packet may have.
        let one_of = |list: &[u8], code: u8| ReasonCode(list[usize::from(code) % list.len()]);
        let code = match kind {
            0 | 1 => one_of(&[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99], code),
            2 | 3 => one_of(&[0x00, 0x92], code),
            6 => one_of(&[0x00, 0x04, 0x81, 0x8E, 0xA2], code),
            7 => one_of(&[0x00, 0x80, 0x88, 0x8A, 0x9F], code),
            _ => ReasonCode(code),
        };
        let properties = Properties { reason_string, user_properties, ..Properties::default() };
        let of_filter: &[u8] = if kind == 4 { &[0, 1, 2, 0x80, 0x87, 0xA2] } else { &[0, 0x11, 0x80, 0x91] };
        let reason_codes = codes.into_iter().map(|code| one_of(of_filter, code)).collect();
        let ack = Ack { packet_id: id, reason_code: code, properties: properties.clone() };
        match kind {
            0 => Packet::PubAck(ack),
            1 => Packet::PubRec(ack),
            2 => Packet::PubRel(ack),
            3 => Packet::PubComp(ack),
            4 => Packet::SubAck(SubAck { packet_id: id, properties, reason_codes }),
            5 => Packet::UnsubAck(UnsubAck { packet_id: id, properties, reason_codes }),
            6 => Packet::Disconnect(Disconnect { reason_code: code, properties }),
            _ => Packet::ConnAck(Box::new(ConnAck { session_present: present, reason_code: code, properties })),
        }
    }
}

prop_compose! {
    fn subscribe()(id in id(), identifier in of(1..=268_435_455u32), user_properties in user_properties(),
        filters in vec((filter(), 0..=2u8, any::<(bool, bool)>(), 0..=2u8), 1..4), remove in any::<bool>()) -> Packet {
        if remove {
            let filters = filters.into_iter().map(|(filter, ..)| filter).collect();
            let properties = Properties { user_properties, ..Properties::default() };
            return Packet::Unsubscribe(Unsubscribe { packet_id: id, properties, filters });
        }
        let properties = Properties { subscription_identifiers: identifier.into_iter().collect(), user_properties, ..Properties::default() };
        let filters = filters.into_iter().filter_map(|(filter, qos, flags, handling)| {
            let no_local = flags.0 && !filter.is_shared();
            let byte = qos | u8::from(no_local) << 2 | u8::from(flags.1) << 3 | handling << 4;
            Some(SubscribeFilter { filter, options: SubscriptionOptions::from_u8(byte).ok()? })
        }).collect();
        Packet::Subscribe(Subscribe { packet_id: id, properties, filters })
    }
}

proptest! {
    #[test]
    fn packets_come_back(packets in vec(prop_oneof![publish(), answer(), subscribe()], 1..5), connect in connect(), step in 1..50usize) {
        let mut wire = BytesMut::new();
        encode(&connect, Version::V5, &mut wire);
        for packet in &packets {
            let before = wire.len();
            encode(packet, Version::V5, &mut wire);
            if let Packet::Publish(publish) = packet {
                prop_assert_eq!(publish.encoded_len(Version::V5), wire.len() - before);
            }
        }
        let mut decoder = Decoder::server(usize::MAX);
        let mut input = BytesMut::new();
        let mut got = Vec::new();
        for piece in wire.chunks(step) {
            input.extend_from_slice(piece);
            while let Some(packet) = decoder.decode(&mut input).expect("valid") {
                got.push(packet);
            }
        }
        prop_assert_eq!(&got[0], &connect);
        prop_assert_eq!(&got[1..], &packets[..]);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        for mut decoder in [Decoder::with_version(version, 10_000), Decoder::server(10_000)] {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.decode(&mut input) {}
        }
    }

    #[test]
    fn damaged_packets_never_panic(packet in prop_oneof![publish(), answer(), subscribe()], at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut wire = BytesMut::new();
        encode(&packet, Version::V5, &mut wire);
        let index = at.index(wire.len());
        wire[index] = byte;
        for version in [Version::V5, Version::V311] {
            let mut input = wire.clone();
            let mut decoder = Decoder::with_version(version, 10_000);
            while let Ok(Some(_)) = decoder.decode(&mut input) {}
        }
    }
}
