//! The handshakes of QoS 1 and 2 (sections 4.3, 4.4), packet identifiers (2.2.1), order (4.6).

use super::*;
use std::time::Duration;

fn ack(packet: &Publish) -> Ack {
    Ack::success(packet.packet_id.expect("a packet id"))
}

/// [MQTT-4.3.2-2] of 3.1.1, [MQTT-4.3.2-5] of 5
#[tokio::test(start_paused = true)]
async fn after_puback_the_packet_id_is_a_new_message_even_with_dup() {
    let server = Server::start().await;
    for (n, version) in BOTH.into_iter().enumerate() {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        for dup in [false, true, false] {
            client
                .send(packed(Publish {
                    dup,
                    ..numbered(1, "t", "x", 1)
                }))
                .await;
            assert_eq!(
                client.receive().await,
                Some(Packet::PubAck(Ack::success(id(1))))
            );
        }
        assert_eq!(server.memory.payloads("t").len(), 3 * (n + 1));
    }
}

/// [MQTT-4.3.3-2] of 3.1.1, [MQTT-4.3.3-10] to [MQTT-4.3.3-12] of 5
#[tokio::test(start_paused = true)]
async fn a_qos_2_message_is_taken_once_until_its_pubrel() {
    let server = Server::start().await;
    for (n, version) in BOTH.into_iter().enumerate() {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        let mut watcher = server.clean("w").await;
        watcher.subscribe("t", 0).await;
        for round in 0..2 {
            for dup in [false, true, true] {
                client
                    .send(packed(Publish {
                        dup,
                        ..numbered(7, "t", "x", 2)
                    }))
                    .await;
                assert_eq!(
                    client.receive().await,
                    Some(Packet::PubRec(Ack::success(id(7))))
                );
            }
            watcher.take().await;
            watcher.nothing().await;
            client.send(Packet::PubRel(Ack::success(id(7)))).await;
            assert_eq!(
                client.receive().await,
                Some(Packet::PubComp(Ack::success(id(7))))
            );
            assert_eq!(server.memory.payloads("t").len(), 2 * n + round + 1);
        }
    }
}

/// [MQTT-4.3.3-9] of 5
#[tokio::test(start_paused = true)]
async fn after_a_refusing_pubrec_the_packet_id_is_free() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    client.send(packed(numbered(1, "guarded/x", "x", 2))).await;
    let refused = Ack::new(id(1), ReasonCode::NOT_AUTHORIZED);
    assert_eq!(client.receive().await, Some(Packet::PubRec(refused)));
    client.send(packed(numbered(1, "t", "x", 2))).await;
    assert_eq!(
        client.receive().await,
        Some(Packet::PubRec(Ack::success(id(1))))
    );
    assert_eq!(server.memory.payloads("t").len(), 1);
}

/// [MQTT-4.3.3-13] of 5: the handshake goes on although the message has expired
#[tokio::test(start_paused = true)]
async fn an_expired_message_finishes_its_handshake() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let properties = Properties {
        message_expiry_interval: Some(1),
        ..Properties::default()
    };
    client
        .send(packed(Publish {
            properties,
            ..numbered(1, "t", "x", 2)
        }))
        .await;
    assert_eq!(
        client.receive().await,
        Some(Packet::PubRec(Ack::success(id(1))))
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    client.send(Packet::PubRel(Ack::success(id(1)))).await;
    assert_eq!(
        client.receive().await,
        Some(Packet::PubComp(Ack::success(id(1))))
    );
}

/// [MQTT-4.3.3-7] of 5: what was sent once is sent again, expired or not
#[tokio::test(start_paused = true)]
async fn a_message_in_flight_does_not_expire() {
    for qos in [1, 2] {
        let server = Server::start().await;
        let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
        client.subscribe("t", qos).await;
        let mut sender = server.clean("s").await;
        let properties = Properties {
            message_expiry_interval: Some(1),
            ..Properties::default()
        };
        sender
            .publish_packet(Publish {
                properties,
                ..publish("t", "x", qos)
            })
            .await;
        let first = client.receive_publish().await;
        client.vanish().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
        let again = client.receive_publish().await;
        assert!(again.dup && again.packet_id == first.packet_id);
    }
}

/// [MQTT-4.4.0-1]: with its packet id, at a reconnect, at no other time
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_within_a_connection() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.subscribe("t", 2).await;
        let mut sender = server.clean("s").await;
        sender.publish("t", "1", 1).await;
        sender.publish("t", "2", 2).await;
        sender.publish("t", "3", 2).await;
        let first = client.receive_publish().await;
        let second = client.receive_publish().await;
        let third = client.receive_publish().await;
        client.send(Packet::PubRec(ack(&third))).await;
        assert_eq!(client.receive().await, Some(Packet::PubRel(ack(&third))));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            client.nothing().await;
        }
        client.vanish().await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        for sent in [first, second] {
            assert_eq!(
                client.receive_publish().await,
                Publish { dup: true, ..sent },
                "[MQTT-3.3.1-1]"
            );
        }
        assert_eq!(
            client.receive().await,
            Some(Packet::PubRel(ack(&third))),
            "[MQTT-4.3.3-6]"
        );
        client.nothing().await;
    }
}

/// [MQTT-4.4.0-2] of 5
#[tokio::test(start_paused = true)]
async fn a_refused_message_is_not_sent_again() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    client.subscribe("t", 2).await;
    let mut sender = server.clean("s").await;
    for qos in [1, 2] {
        sender.publish("t", "x", qos).await;
        let got = client.receive_publish().await;
        let no = Ack {
            reason_code: ReasonCode::UNSPECIFIED_ERROR,
            ..ack(&got)
        };
        let answer = if qos == 1 {
            Packet::PubAck(no)
        } else {
            Packet::PubRec(no)
        };
        client.send(answer).await;
        client.nothing().await;
    }
    client.vanish().await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    client.nothing().await;
}

/// [MQTT-2.2.1-4] of 5, [MQTT-2.3.1-4] of 3.1.1: a packet id is not given again before its handshake is over
#[tokio::test(start_paused = true)]
async fn packet_ids_in_flight_differ() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.subscribe("t", 2).await;
        let mut sender = server.clean("s").await;
        let mut open = std::collections::BTreeSet::new();
        for n in 0..300u32 {
            sender.publish("t", "x", (n % 2 + 1) as u8).await;
            let got = client.receive_publish().await;
            let packet_id = got.packet_id.expect("an id");
            assert!(open.insert(packet_id), "{packet_id} is in flight");
            // Every third is answered at once, half of the others never.
            if n % 3 == 0 && got.qos == QoS::AtLeastOnce {
                client.send(Packet::PubAck(ack(&got))).await;
                open.remove(&packet_id);
            }
        }
    }
}

/// [MQTT-2.2.1-5] of 5, [MQTT-2.3.1-6] of 3.1.1: acknowledgements for what is not there. 5 has a code for it
#[tokio::test(start_paused = true)]
async fn unknown_packet_ids() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        let not_found = match version {
            Version::V5 => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            _ => ReasonCode::SUCCESS,
        };
        client.send(Packet::PubAck(Ack::success(id(9)))).await;
        client.send(Packet::PubComp(Ack::success(id(9)))).await;
        client.send(Packet::PubRel(Ack::success(id(9)))).await;
        assert_eq!(
            client.receive().await,
            Some(Packet::PubComp(Ack::new(id(9), not_found)))
        );
        client.send(Packet::PubRec(Ack::success(id(9)))).await;
        assert_eq!(
            client.receive().await,
            Some(Packet::PubRel(Ack::new(id(9), not_found)))
        );
        client.nothing().await;
    }
}

/// Section 3.7.2.1: "not an error during recovery"
#[tokio::test(start_paused = true)]
async fn a_pubrel_that_is_repeated_after_a_reconnect_is_answered_with_success() {
    let server = Server::start().await;
    for version in BOTH {
        let client_id = format!("{version:?}");
        let (mut client, _) = server.connect(lasting(version, &client_id)).await;
        client.publish("t", "x", 2).await;
        client.vanish().await;
        let (mut client, connack) = server.connect(lasting(version, &client_id)).await;
        assert!(connack.session_present);
        // As if PUBCOMP had got lost.
        client.send(Packet::PubRel(Ack::success(id(1)))).await;
        let released = Packet::PubComp(Ack::success(id(1)));
        assert_eq!(client.receive().await, Some(released));
    }
    assert_eq!(server.memory.payloads("t").len(), 2);
}

/// [MQTT-4.6.0-4]; [MQTT-4.6.0-6] of 3.1.1 asks it of the server
#[tokio::test(start_paused = true)]
async fn pubrels_come_in_the_order_of_the_pubrecs() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.subscribe("t", 2).await;
        let mut sender = server.clean("s").await;
        let mut acks = Vec::new();
        for _ in 0..20 {
            sender.publish("t", "x", 2).await;
        }
        for _ in 0..20 {
            acks.push(ack(&client.receive_publish().await));
        }
        for ack in &acks {
            client.send(Packet::PubRec(ack.clone())).await;
        }
        for ack in acks {
            assert_eq!(client.receive().await, Some(Packet::PubRel(ack)));
        }
    }
}

/// [MQTT-4.6.0-2], [MQTT-4.6.0-3]; [MQTT-4.6.0-6] of 3.1.1 asks it of the server
#[tokio::test(start_paused = true)]
async fn answers_come_in_the_order_of_the_publishes() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        for n in 1..=60u16 {
            client
                .send(packed(numbered(n, "t", "x", (n % 2 + 1) as u8)))
                .await;
        }
        for n in 1..=60u16 {
            let expected = Ack::success(id(n));
            let expected = if n % 2 == 0 {
                Packet::PubAck(expected)
            } else {
                Packet::PubRec(expected)
            };
            assert_eq!(client.receive().await, Some(expected));
        }
    }
}

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6]: of one client, on one topic, at one QoS
#[tokio::test(start_paused = true)]
async fn every_topic_is_ordered() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.subscribe("a/#", 2).await;
        client.subscribe("b/#", 1).await;
        let (mut one, _) = server.connect(clean(version, "one")).await;
        let (mut two, _) = server.connect(clean(version, "two")).await;
        let mut expected: std::collections::BTreeMap<(String, u8), Vec<u32>> = Default::default();
        for n in 0..200u32 {
            let qos = (n % 3) as u8;
            let name = if n % 2 == 0 { "a/1" } else { "b/1" };
            one.publish(name, &format!("one {qos} {n}"), qos).await;
            two.publish(name, &format!("two {qos} {n}"), qos).await;
            for from in ["one", "two"] {
                expected
                    .entry((format!("{from}{name}"), qos))
                    .or_default()
                    .push(n);
            }
        }
        let mut got: std::collections::BTreeMap<(String, u8), Vec<u32>> = Default::default();
        let mut count = 0;
        while count < 400 {
            let packet = match client.receive().await {
                Some(Packet::Publish(packet)) => *packet,
                Some(Packet::PubRel(ack)) => {
                    client.send(Packet::PubComp(ack)).await;
                    continue;
                }
                other => panic!("{other:?}"),
            };
            count += 1;
            let text = String::from_utf8_lossy(&packet.payload).into_owned();
            let parts: Vec<&str> = text.split(' ').collect();
            let from = format!("{}{}", parts[0], packet.topic.as_ref().expect("a topic"));
            let key = (from, parts[1].parse().expect("a QoS"));
            got.entry(key)
                .or_default()
                .push(parts[2].parse().expect("a number"));
            match packet.qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => client.send(Packet::PubAck(ack(&packet))).await,
                QoS::ExactlyOnce => client.send(Packet::PubRec(ack(&packet))).await,
            }
        }
        assert_eq!(got, expected);
    }
}

/// [MQTT-4.5.0-1]: to everybody whose subscription matches, there or away
#[tokio::test(start_paused = true)]
async fn a_message_goes_to_everybody_whose_subscription_matches() {
    for version in BOTH {
        let server = Server::start().await;
        for n in 0..10 {
            let (mut client, _) = server.connect(lasting(version, &format!("away{n}"))).await;
            client
                .subscribe(if n % 2 == 0 { "t/1" } else { "+/1" }, 1)
                .await;
            client.vanish().await;
        }
        let mut there = Vec::new();
        for n in 0..10 {
            let (mut client, _) = server.connect(clean(version, &format!("there{n}"))).await;
            client
                .subscribe(if n % 2 == 0 { "t/1" } else { "t/#" }, 1)
                .await;
            there.push(client);
        }
        let mut sender = server.clean("s").await;
        sender.publish("t/1", "x", 1).await;
        for mut client in there {
            assert_eq!(client.take().await, "x");
        }
        for n in 0..10 {
            let (mut client, _) = server.connect(lasting(version, &format!("away{n}"))).await;
            assert_eq!(client.take().await, "x");
        }
    }
}
