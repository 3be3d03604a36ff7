//! SUBSCRIBE and SUBACK (sections 3.8, 3.9).

use super::*;
use mqtt_broker::Limits;

/// [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-4], [MQTT-3.8.4-5], [MQTT-3.9.3-1], [MQTT-3.9.3-2] of 3.1.1; [MQTT-3.8.4-1], [MQTT-3.8.4-2],
/// [MQTT-3.8.4-5] to [MQTT-3.8.4-7], [MQTT-3.9.3-1], [MQTT-3.9.3-2] of 5
#[tokio::test(start_paused = true)]
async fn one_suback_with_a_code_for_each_filter_in_order() {
    let server = Server::start().await;
    for (version, no) in [(Version::V311, 0x80), (Version::V5, 0x87)] {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        let filters = [
            ("a", 2),
            ("forbidden/1", 1),
            ("b/#", 0),
            ("+/c", 1),
            ("forbidden/2", 0),
            ("a", 1),
        ];
        client.send(subscribe(65_535, &filters)).await;
        let Some(Packet::SubAck(suback)) = client.receive().await else {
            panic!("no SUBACK")
        };
        assert_eq!(suback.packet_id, id(65_535));
        let codes: Vec<u8> = suback.reason_codes.iter().map(|code| code.0).collect();
        assert_eq!(codes, [2, no, 0, 1, no, 1]);
        client.nothing().await;
        // As if they had come one by one: the last of "a" counts.
        let mut sender = server.clean("s").await;
        for name in ["a", "b", "x/c", "forbidden/1"] {
            sender.publish(name, name, 2).await;
        }
        let mut got = Vec::new();
        for _ in 0..3 {
            let packet = client.receive_publish().await;
            got.push((
                String::from_utf8_lossy(&packet.payload).into_owned(),
                packet.qos as u8,
            ));
        }
        got.sort();
        assert_eq!(got, [("a".into(), 1), ("b".into(), 0), ("x/c".into(), 1)]);
        client.nothing().await;
    }
}

/// [MQTT-3.8.4-3] of 3.1.1, [MQTT-3.8.4-3], [MQTT-3.8.4-4] of 5: replaced, with the retained message again, and nothing lost between
#[tokio::test(start_paused = true)]
async fn the_same_filter_again_replaces_the_subscription() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut sender, _) = server.connect(clean(version, "s")).await;
        sender
            .publish_packet(Publish {
                retain: true,
                ..publish("t", "kept", 1)
            })
            .await;
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.subscribe("t", 0).await;
        assert_eq!(client.receive_publish().await.qos, QoS::AtMostOnce);
        client.subscribe("t", 1).await;
        let again = client.receive_publish().await;
        assert!(again.retain && again.qos == QoS::AtLeastOnce && again.payload == "kept");
        client
            .send(Packet::PubAck(Ack::success(
                again.packet_id.expect("an id"),
            )))
            .await;
        // One subscription: one copy, at the new QoS; and many replacements in a stream of messages lose none of it.
        for n in 0..60u32 {
            sender.publish("t", &n.to_string(), 1).await;
            if n % 3 == 0 {
                client.send(subscribe(1000 + n as u16, &[("t", 1)])).await;
            }
        }
        let mut got = Vec::new();
        while got.len() < 60 {
            match client.receive().await {
                Some(Packet::SubAck(_)) => {}
                Some(Packet::Publish(packet)) => {
                    if !packet.retain {
                        got.push(String::from_utf8_lossy(&packet.payload).into_owned());
                    }
                    client
                        .send(Packet::PubAck(Ack::success(
                            packet.packet_id.expect("an id"),
                        )))
                        .await;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

/// [MQTT-3.3.5-1] of 3.1.1, [MQTT-3.3.4-2] of 5: the highest of all that match
#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_have_the_highest_qos() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.subscribe("a/#", 0).await;
        client.subscribe("a/b", 2).await;
        client.subscribe("+/b", 1).await;
        let mut sender = server.clean("s").await;
        sender.publish("a/b", "x", 2).await;
        assert_eq!(client.receive_publish().await.qos, QoS::ExactlyOnce);
        client.nothing().await;
    }
}

/// [MQTT-3.3.4-3] to [MQTT-3.3.4-5]: the same number twice if two subscriptions have it; none if none has one; the new one after a
/// replacement
#[tokio::test(start_paused = true)]
async fn subscription_identifiers() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let mut sender = server.clean("s").await;
    client
        .subscribe_with("a/+", options(0), Some(268_435_455))
        .await;
    client
        .subscribe_with("a/b", options(0), Some(268_435_455))
        .await;
    client.subscribe_with("a/#", options(0), None).await;
    client.subscribe_with("b", options(0), Some(1)).await;
    client.subscribe_with("b", options(0), Some(2)).await;
    client.subscribe_with("c", options(0), Some(3)).await;
    client.subscribe_with("c", options(0), None).await;
    for (name, expected) in [
        ("a/b", vec![268_435_455, 268_435_455]),
        ("a/x", vec![268_435_455]),
        ("a/x/y", vec![]),
        ("b", vec![2]),
        ("c", vec![]),
    ] {
        sender.publish(name, "x", 0).await;
        let got = client.receive_publish().await;
        assert_eq!(got.properties.subscription_identifiers, expected, "{name}");
    }
}

/// Section 3.3.2.3.8: with the retained messages too, and after a reconnect
#[tokio::test(start_paused = true)]
async fn subscription_identifiers_are_part_of_the_session() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    sender
        .publish_packet(Publish {
            retain: true,
            ..publish("t", "x", 0)
        })
        .await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    client.subscribe_with("t", options(1), Some(7)).await;
    assert_eq!(
        client
            .receive_publish()
            .await
            .properties
            .subscription_identifiers,
        [7]
    );
    client.vanish().await;
    sender.publish("t", "x", 1).await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    assert_eq!(
        client
            .receive_publish()
            .await
            .properties
            .subscription_identifiers,
        [7]
    );
}

fn no_local() -> SubscriptionOptions {
    SubscriptionOptions {
        no_local: true,
        ..options(1)
    }
}

/// [MQTT-3.8.3-3] of 5, over a reconnect of either side and with a wildcard; a retained message of one's own too
#[tokio::test(start_paused = true)]
async fn no_local_keeps_ones_own_messages_away() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    client.subscribe_with("a/#", no_local(), None).await;
    client.publish("a/1", "own", 1).await;
    client.vanish().await;
    let mut other = server.clean("o").await;
    other.publish("a/1", "other", 1).await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    assert_eq!(client.take().await, "other");
    client
        .publish_packet(Publish {
            retain: true,
            ..publish("a/2", "own", 1)
        })
        .await;
    client.subscribe_with("a/#", no_local(), None).await;
    client.nothing().await;
}

/// [MQTT-3.8.3-3] of 5: whenever it was published, and by which session of the client
#[tokio::test(start_paused = true)]
async fn no_local_keeps_away_what_was_retained_before_the_subscription() {
    let server = Server::start().await;
    let mut other = server.clean("o").await;
    other.publish_packet(retained("a/2", "other", 1)).await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    client.publish_packet(retained("a/1", "own", 1)).await;
    client.subscribe_with("a/+", no_local(), None).await;
    assert_eq!(client.take().await, "other");
    client.nothing().await;
    client.vanish().await;
    // Another session of the same client, and another process.
    let server = Server::over(server.memory, Limits::default()).await;
    let mut client = server.clean("c").await;
    client.subscribe_with("a/+", no_local(), None).await;
    assert_eq!(client.take().await, "other");
    client.nothing().await;
    // Without No Local it is as any other.
    client.subscribe("a/1", 1).await;
    assert_eq!(client.take().await, "own");
}

/// [MQTT-3.8.3-3] of 5: a will is its client's
#[tokio::test(start_paused = true)]
async fn no_local_keeps_ones_own_will_away() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("a/#", 1).await;
    let mut connect = lasting(Version::V5, "c");
    connect.will = will("a/will", 0).map(|will| Will {
        retain: true,
        ..will
    });
    let (mut client, _) = server.connect(connect).await;
    client.subscribe_with("a/#", no_local(), None).await;
    client.vanish().await;
    assert_eq!(watcher.take().await, "gone");
    let mut other = server.clean("o").await;
    other.publish("a/1", "from another", 1).await;
    let (mut client, connack) = server.connect(lasting(Version::V5, "c")).await;
    assert!(connack.session_present);
    assert_eq!(client.take().await, "from another");
    client.nothing().await;
    // It is retained, too.
    client.subscribe_with("a/will", no_local(), None).await;
    client.nothing().await;
}

/// Records go from an edge to the core with what marks them.
#[tokio::test(start_paused = true)]
async fn no_local_is_about_the_clients_of_one_server() {
    let server = Server::start().await;
    let limits = Limits::default().of_server("edge");
    let edge = Server::over(server.memory.clone(), limits).await;
    let mut there = edge.clean("c").await;
    there
        .publish_packet(retained("a", "of the edge's c", 1))
        .await;
    let mut here = server.clean("c").await;
    here.subscribe_with("a", no_local(), None).await;
    assert_eq!(here.take().await, "of the edge's c");
}

/// [MQTT-3.8.3-4] of 3.1.1, [MQTT-3.8.3-5] of 5 and what else is malformed: `vectors/subscribe.rs` has every case
#[tokio::test(start_paused = true)]
async fn a_malformed_subscribe_ends_the_connection_and_subscribes_to_nothing() {
    let server = Server::start().await;
    for (version, bytes) in [
        (
            Version::V311,
            &b"\x82\x0a\x00\x01\x00\x01t\x01\x00\x01u\x03"[..],
        ),
        (Version::V311, b"\x80\x06\x00\x01\x00\x01t\x01"),
        (Version::V311, b"\x82\x02\x00\x01"),
        (
            Version::V5,
            b"\x82\x0b\x00\x01\x00\x00\x01t\x01\x00\x01u\x41",
        ),
        (Version::V5, b"\x83\x07\x00\x01\x00\x00\x01t\x01"),
        (Version::V5, b"\x82\x03\x00\x01\x00"),
    ] {
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.send_bytes(bytes).await;
        match client.receive().await {
            Some(Packet::Disconnect(_)) if version == Version::V5 => {
                assert_eq!(client.receive().await, None)
            }
            other => assert_eq!(other, None, "{bytes:02x?}"),
        }
        let mut sender = server.clean("s").await;
        sender.publish("t", "x", 1).await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.nothing().await;
        client.vanish().await;
        let (client, _) = server.connect(clean(version, "c")).await;
        client.disconnect().await;
    }
}

/// [MQTT-3.8.4-3] of 3.1.1, [MQTT-3.8.4-3], [MQTT-3.3.4-3] of 5: what the newer one says is what the session keeps, also where it is less
#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_replaced_by_a_lower_qos_stays_so() {
    for version in BOTH {
        let identifier = |n| (version == Version::V5).then_some(n);
        for restart in [false, true] {
            let mut server = Server::start().await;
            let (mut client, _) = server.connect(lasting(version, "c")).await;
            for (qos, n) in [(2, 5), (1, 9)] {
                let code = client
                    .subscribe_with("t", options(qos), identifier(n))
                    .await;
                assert_eq!(code, ReasonCode(qos));
            }
            if restart {
                client.kill_server_side().await;
                server = Server::over(server.memory, Limits::default()).await;
            } else {
                client.vanish().await;
            }
            let mut sender = server.clean("s").await;
            sender.publish("t", "while away", 2).await;
            let (mut client, connack) = server.connect(lasting(version, "c")).await;
            assert!(connack.session_present);
            sender.publish("t", "now", 2).await;
            for payload in ["while away", "now"] {
                let got = client.receive_publish().await;
                assert_eq!((got.qos, got.dup), (QoS::AtLeastOnce, false));
                assert_eq!(got.payload, payload);
                let expected: Vec<u32> = identifier(9).into_iter().collect();
                assert_eq!(got.properties.subscription_identifiers, expected);
            }
            client.subscribe_with("t", options(0), identifier(3)).await;
            sender.publish("t", "as it comes", 2).await;
            let got = client.receive_publish().await;
            assert_eq!((got.qos, got.packet_id), (QoS::AtMostOnce, None));
            let expected: Vec<u32> = identifier(3).into_iter().collect();
            assert_eq!(got.properties.subscription_identifiers, expected);
            client.nothing().await;
        }
    }
}

/// [MQTT-3.3.4-5] of 5: a shared subscription beside an ordinary one, and a retained message for each filter it matches
#[tokio::test(start_paused = true)]
async fn each_copy_has_the_identifier_of_its_subscription() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    for (filter, identifier) in [("$share/g/t", 1), ("t", 2), ("#", 3)] {
        client
            .subscribe_with(filter, options(0), Some(identifier))
            .await;
    }
    let mut sender = server.clean("s").await;
    sender.publish("t", "x", 0).await;
    let mut got = Vec::new();
    for _ in 0..2 {
        let mut identifiers = client
            .receive_publish()
            .await
            .properties
            .subscription_identifiers;
        identifiers.sort();
        got.push(identifiers);
    }
    got.sort();
    assert_eq!(got, [vec![1], vec![2, 3]]);
    client.nothing().await;

    sender.publish_packet(retained("r/1", "kept", 0)).await;
    let mut later = server.clean("later").await;
    for (filter, identifier) in [("r/+", 4), ("r/1", 5), ("+/1", 6)] {
        later
            .subscribe_with(filter, options(0), Some(identifier))
            .await;
        let copy = later.receive_publish().await;
        assert!(copy.retain);
        assert_eq!(copy.properties.subscription_identifiers, [identifier]);
    }
    later.nothing().await;
}
