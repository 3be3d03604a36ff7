//! PUBLISH (section 3.3) from one client to another.

use super::*;
use bytes::Bytes;
use std::time::Duration;

/// [MQTT-3.3.1-3], [MQTT-4.3.1-1]
#[tokio::test(start_paused = true)]
async fn dup_is_not_handed_on() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut receiver, _) = server.connect(clean(version, "r")).await;
        receiver.subscribe("t", 2).await;
        let (mut sender, _) = server.connect(clean(version, "s")).await;
        for qos in [1, 2] {
            let again = Publish {
                dup: true,
                ..numbered(1, "t", "x", qos)
            };
            sender.send(packed(again)).await;
            assert!(!receiver.receive_publish().await.dup);
        }
        sender.publish("t", "x", 0).await;
        let got = receiver.receive_publish().await;
        assert!(!got.dup && got.packet_id.is_none());
    }
}

/// [MQTT-3.3.2-3]: what arrives matches what was asked for, byte by byte what was sent
#[tokio::test(start_paused = true)]
async fn topic_and_payload_arrive_as_they_were() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut receiver, _) = server.connect(clean(version, "r")).await;
        receiver.subscribe("+/b/#", 0).await;
        let mut sender = server.clean("s").await;
        for name in ["a/b", "/b/", "ä b/b/\u{feff}", "a/b/c//d", "A/b"] {
            for payload in [&b""[..], b"\x00\xff\xfe", &[7; 100_000]] {
                let packet = Publish {
                    payload: Bytes::copy_from_slice(payload),
                    ..publish(name, "", 1)
                };
                sender.publish_packet(packet).await;
                let got = receiver.receive_publish().await;
                assert_eq!((got.topic, &got.payload[..]), (Some(topic(name)), payload));
            }
        }
    }
}

/// [MQTT-3.3.4-1]: nothing for QoS 0, PUBACK for 1, PUBREC for 2
#[tokio::test(start_paused = true)]
async fn the_answer_follows_from_the_qos() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.send(packed(publish("t", "x", 0))).await;
        client.nothing().await;
        client.send(packed(numbered(5, "t", "x", 1))).await;
        assert_eq!(
            client.receive().await,
            Some(Packet::PubAck(Ack::success(id(5))))
        );
        client.send(packed(numbered(6, "t", "x", 2))).await;
        assert_eq!(
            client.receive().await,
            Some(Packet::PubRec(Ack::success(id(6))))
        );
        client.nothing().await;
    }
}

/// [MQTT-3.3.2-2], [MQTT-4.7.1-1], [MQTT-3.3.2-14] of 5
#[tokio::test(start_paused = true)]
async fn wildcards_in_a_topic_name_end_the_connection() {
    let server = Server::start().await;
    for (version, bytes) in [
        (Version::V311, &b"\x30\x03\x00\x01#"[..]),
        (Version::V311, b"\x30\x05\x00\x03a/+"),
        (Version::V5, b"\x30\x04\x00\x01+\x00"),
        (Version::V5, b"\x30\x08\x00\x01t\x04\x08\x00\x01#"),
    ] {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.send_bytes(bytes).await;
        match version {
            Version::V5 => client.closed_with(ReasonCode::TOPIC_NAME_INVALID).await,
            _ => assert_eq!(client.receive().await, None),
        }
    }
    assert!(server.memory.payloads("t").is_empty());
}

/// [MQTT-3.3.4-6]
#[tokio::test(start_paused = true)]
async fn a_client_must_not_send_subscription_identifiers() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let properties = Properties {
        subscription_identifiers: vec![1],
        ..Properties::default()
    };
    client
        .send(packed(Publish {
            properties,
            ..numbered(1, "t", "x", 1)
        }))
        .await;
    client.closed_with(ReasonCode::PROTOCOL_ERROR).await;
    assert!(server.memory.payloads("t").is_empty());
}

fn aliased(name: Option<&str>, alias: u16) -> Packet {
    let properties = Properties {
        topic_alias: Some(alias),
        ..Properties::default()
    };
    packed(Publish {
        topic: name.map(topic),
        properties,
        ..publish("x", "p", 0)
    })
}

/// [MQTT-3.3.2-12]: every alias up to the maximum of CONNACK; an alias may be set anew
#[tokio::test(start_paused = true)]
async fn every_alias_up_to_the_maximum_is_taken() {
    let server = Server::start().await;
    let (mut client, connack) = server.connect(v5("c")).await;
    let maximum = connack.properties.topic_alias_maximum.expect("aliases");
    assert!(maximum > 0);
    client.subscribe("t/#", 0).await;
    for alias in 1..=maximum {
        client
            .send(aliased(Some(&format!("t/{alias}")), alias))
            .await;
    }
    for alias in 1..=maximum {
        client.send(aliased(None, alias)).await;
    }
    for _ in 0..2 {
        for alias in 1..=maximum {
            let got = client.receive_publish().await;
            assert_eq!(got.topic, Some(topic(&format!("t/{alias}"))));
        }
    }
    client.send(aliased(Some("t/anew"), 1)).await;
    client.send(aliased(None, 1)).await;
    for _ in 0..2 {
        assert_eq!(client.receive_publish().await.topic, Some(topic("t/anew")));
    }
    for wrong in [0, maximum + 1] {
        let mut client = server.clean("d").await;
        client.send(aliased(Some("t"), wrong)).await;
        client.closed_with(ReasonCode::TOPIC_ALIAS_INVALID).await;
    }
}

/// [MQTT-3.3.2-7]
#[tokio::test(start_paused = true)]
async fn aliases_end_with_the_connection() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    client.send(aliased(Some("t"), 1)).await;
    client.vanish().await;
    let (mut client, connack) = server.connect(lasting(Version::V5, "c")).await;
    assert!(connack.session_present);
    client.send(aliased(None, 1)).await;
    client.closed_with(ReasonCode::PROTOCOL_ERROR).await;
}

/// [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]: what the client said it takes, and none if it said nothing
#[tokio::test(start_paused = true)]
async fn no_alias_above_the_clients_maximum() {
    let server = Server::start().await;
    for maximum in [None, Some(0), Some(2)] {
        let properties = Properties {
            topic_alias_maximum: maximum,
            ..Properties::default()
        };
        let (mut client, _) = server
            .connect(Connect {
                properties,
                ..v5("c")
            })
            .await;
        client.subscribe("t/#", 1).await;
        let mut sender = server.clean("s").await;
        let mut known = std::collections::BTreeMap::new();
        for n in [1, 2, 3, 1, 2, 3, 3, 3] {
            let name = format!("t/{n}");
            sender.publish(&name, "x", 1).await;
            let got = client.receive_publish().await;
            let alias = got.properties.topic_alias;
            assert!(
                alias.is_none_or(|alias| alias > 0 && alias <= maximum.unwrap_or(0)),
                "{alias:?}"
            );
            if let (Some(alias), Some(topic)) = (alias, &got.topic) {
                known.insert(alias, topic.clone());
            }
            let meant = got.topic.or_else(|| known.get(&alias?).cloned());
            assert_eq!(meant, Some(topic(&name)));
            client
                .send(Packet::PubAck(Ack::success(got.packet_id.expect("an id"))))
                .await;
        }
    }
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-18], [MQTT-3.3.2-20]: also to a retained message's later subscriber, also over a
/// session that was away
#[tokio::test(start_paused = true)]
async fn properties_arrive_unaltered_at_once_retained_and_later() {
    let server = Server::start().await;
    let (mut away, _) = server.connect(lasting(Version::V5, "away")).await;
    away.subscribe("t", 1).await;
    away.vanish().await;
    let mut there = server.clean("there").await;
    there.subscribe("t", 1).await;
    let mut sender = server.clean("s").await;
    for format in [None, Some(0), Some(1)] {
        let properties = Properties {
            payload_format_indicator: format,
            content_type: Some("".into()),
            response_topic: Some(topic("r/ä")),
            correlation_data: Some(Bytes::from_static(&[0, 255])),
            user_properties: vec![
                ("b".into(), "".into()),
                ("".into(), "a".into()),
                ("b".into(), "".into()),
            ],
            ..Properties::default()
        };
        let packet = Publish {
            retain: true,
            properties: properties.clone(),
            ..publish("t", "x", 1)
        };
        sender.publish_packet(packet).await;
        let got = there.receive_publish().await;
        assert_eq!(got.properties, properties);
        there
            .send(Packet::PubAck(Ack::success(got.packet_id.expect("an id"))))
            .await;
        let mut later = server.clean("later").await;
        later.subscribe("t", 1).await;
        assert_eq!(later.receive_publish().await.properties, properties);
        let (mut back, _) = server.connect(lasting(Version::V5, "away")).await;
        let got = back.receive_publish().await;
        assert_eq!(got.properties, properties);
        back.send(Packet::PubAck(Ack::success(got.packet_id.expect("an id"))))
            .await;
        back.disconnect().await;
        // 3.1.1 has no properties; the message is the same.
        let (mut old, _) = server.connect(v311("old")).await;
        old.subscribe("t", 1).await;
        assert_eq!(old.take().await, "x");
    }
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6], for retained messages too
#[tokio::test(start_paused = true)]
async fn retained_messages_expire_and_say_what_is_left() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    let properties = Properties {
        message_expiry_interval: Some(60),
        ..Properties::default()
    };
    sender
        .publish_packet(Publish {
            retain: true,
            properties,
            ..publish("t", "x", 1)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut client = server.clean("c").await;
    client.subscribe("t", 1).await;
    let left = client
        .receive_publish()
        .await
        .properties
        .message_expiry_interval;
    assert_eq!(left, Some(40));
    tokio::time::sleep(Duration::from_secs(40)).await;
    let mut late = server.clean("d").await;
    late.subscribe("t", 1).await;
    late.nothing().await;
}

/// [MQTT-3.3.5-2] of 3.1.1 is in `access.rs`; 5 has a code for it. A refused message reaches nobody
#[tokio::test(start_paused = true)]
async fn a_refused_message_reaches_nobody() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("#", 0).await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.send(packed(publish("guarded/x", "x", 0))).await;
        client.send(packed(numbered(1, "guarded/x", "x", 1))).await;
        assert!(matches!(client.receive().await, Some(Packet::PubAck(_))));
        watcher.nothing().await;
    }
}
