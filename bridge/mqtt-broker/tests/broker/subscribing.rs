use crate::client::*;
use bytes::BytesMut;
use mqtt_codec::*;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn wildcards_and_dollar_topics() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    client.subscribe("+/b", 1).await;
    client.subscribe("#", 1).await;
    let mut sender = server.clean("s").await;
    for name in ["a/b", "$internal/b", "/b", "c"] {
        sender.publish(name, name, 1).await;
    }
    let mut got = [
        client.take().await,
        client.take().await,
        client.take().await,
    ];
    got.sort();
    assert_eq!(
        got,
        ["/b", "a/b", "c"],
        "each once, although two filters match"
    );
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_deliver_once_with_all_identifiers() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let qos = |n| SubscriptionOptions {
        qos: QoS::from_u8(n).expect("a QoS"),
        ..Default::default()
    };
    client.subscribe_with("a/+", qos(1), Some(1)).await;
    client.subscribe_with("a/b", qos(2), Some(7)).await;
    let mut sender = server.clean("s").await;
    sender.publish("a/b", "x", 2).await;
    let got = client.receive_publish().await;
    let mut identifiers = got.properties.subscription_identifiers;
    identifiers.sort();
    assert_eq!((got.qos, identifiers), (QoS::ExactlyOnce, vec![1, 7]));
}

#[tokio::test(start_paused = true)]
async fn a_new_subscription_gets_no_history() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    sender.publish("t/a", "old", 1).await;
    let mut client = server.clean("c").await;
    client.subscribe("t/a", 1).await;
    sender.publish("t/b", "not for c", 1).await;
    client.subscribe("t/b", 1).await;
    sender.publish("t/b", "new", 1).await;
    assert_eq!(client.take().await, "new");
    client.unsubscribe("t/b").await;
    sender.publish("t/b", "nobody", 1).await;
    sender.publish("t/a", "still", 1).await;
    assert_eq!(client.take().await, "still");
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn no_local() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let options = SubscriptionOptions {
        no_local: true,
        qos: QoS::AtLeastOnce,
        ..Default::default()
    };
    client.subscribe_with("t", options, None).await;
    client.publish("t", "own", 1).await;
    let mut other = server.clean("o").await;
    other.publish("t", "other", 1).await;
    assert_eq!(client.take().await, "other");
    client.nothing().await;
}

/// In no standard: see `Connect::is_bridge`. What a bridge sends it does not get back, and a retained message stays one over it.
#[tokio::test(start_paused = true)]
async fn a_bridge_of_mosquitto() {
    for version in [Version::V31, Version::V311] {
        let server = Server::start().await;
        let bridge = Connect {
            version,
            is_bridge: true,
            ..v311("bridge")
        };
        let (mut client, _) = server.connect(bridge).await;
        client.subscribe("t", 1).await;
        client.subscribe("$share/g/s", 1).await;
        client.publish("t", "own", 1).await;
        let mut other = server.clean("o").await;
        let retained = Publish {
            retain: true,
            ..publish("t", "other", 1)
        };
        other.publish_packet(retained).await;
        let got = client.receive_publish().await;
        assert!(got.retain && got.payload == "other");
        client
            .send(Packet::PubAck(Ack::success(got.packet_id.expect("an id"))))
            .await;
        client.publish("s", "of a group", 0).await;
        assert_eq!(client.take().await, "of a group");
        client.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retained_messages() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    for (name, payload) in [("r/1", "one"), ("r/2", "two"), ("r/2", "")] {
        sender
            .publish_packet(Publish {
                retain: true,
                ..publish(name, payload, 1)
            })
            .await;
    }
    let mut client = server.clean("c").await;
    client.subscribe("r/+", 1).await;
    let got = client.receive_publish().await;
    assert!(got.retain && got.payload == "one", "[MQTT-3.3.1-8]");
    client
        .send(Packet::PubAck(Ack::success(got.packet_id.expect("an id"))))
        .await;
    client.nothing().await;

    // An existing subscription gets it as any other message [MQTT-3.3.1-12], unless it asked for Retain As Published.
    let mut as_published = server.clean("rap").await;
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..Default::default()
    };
    as_published.subscribe_with("r/+", options, None).await;
    as_published.nothing().await;
    sender
        .publish_packet(Publish {
            retain: true,
            ..publish("r/3", "three", 1)
        })
        .await;
    assert!(!client.receive_publish().await.retain);
    assert!(as_published.receive_publish().await.retain);
}

#[tokio::test(start_paused = true)]
async fn retain_handling() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    client
        .publish_packet(Publish {
            retain: true,
            ..publish("r", "kept", 1)
        })
        .await;
    let handling = |retain_handling| SubscriptionOptions {
        retain_handling,
        ..Default::default()
    };
    for (mode, expected) in [
        (RetainHandling::DoNotSend, false),
        (RetainHandling::SendIfNew, false),
        (RetainHandling::Send, true),
        (RetainHandling::Send, true),
    ] {
        client.subscribe_with("r", handling(mode), None).await;
        if expected {
            assert_eq!(client.take().await, "kept", "{mode:?}");
        }
        client.nothing().await;
    }
    client.unsubscribe("r").await;
    client
        .subscribe_with("r", handling(RetainHandling::SendIfNew), None)
        .await;
    assert_eq!(client.take().await, "kept");
}

#[tokio::test(start_paused = true)]
async fn refused_subscriptions() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    for (filter, code) in [
        ("$share/g", ReasonCode::TOPIC_FILTER_INVALID),
        ("$share/g/", ReasonCode::TOPIC_FILTER_INVALID),
        ("$share//t", ReasonCode::TOPIC_FILTER_INVALID),
        ("$share/+/t", ReasonCode::TOPIC_FILTER_INVALID),
        ("$share/#", ReasonCode::TOPIC_FILTER_INVALID),
        ("$share/g/forbidden/#", ReasonCode::NOT_AUTHORIZED),
        ("forbidden/#", ReasonCode::NOT_AUTHORIZED),
    ] {
        assert_eq!(
            client
                .subscribe_with(filter, Default::default(), None)
                .await,
            code
        );
    }
    let (mut old, _) = server.connect(v311("old")).await;
    assert_eq!(
        old.subscribe_with("$share/g", Default::default(), None)
            .await,
        ReasonCode(0x80)
    );
}

#[tokio::test(start_paused = true)]
async fn the_clients_receive_maximum_and_packet_size_are_kept() {
    let server = Server::start().await;
    let properties = Properties {
        receive_maximum: Some(2),
        maximum_packet_size: Some(64),
        ..Properties::default()
    };
    let (mut client, _) = server
        .connect(Connect {
            properties,
            ..v5("c")
        })
        .await;
    client.subscribe("t", 2).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", &"x".repeat(100), 1).await;
    for n in 1..=4 {
        sender.publish("t", &n.to_string(), n % 2 + 1).await;
    }
    let first = client.receive_publish().await;
    let second = client.receive_publish().await;
    assert_eq!(
        (&first.payload[..], &second.payload[..]),
        (&b"1"[..], &b"2"[..]),
        "the large one is left out"
    );
    client.nothing().await;
    client
        .send(Packet::PubAck(Ack::success(
            second.packet_id.expect("an id"),
        )))
        .await;
    assert_eq!(&client.receive_publish().await.payload[..], b"3");
    client.nothing().await;
    assert_eq!(
        server
            .broker
            .metrics()
            .dropped
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

/// `#` is to have all of it, though another filter begins at its end now.
#[tokio::test(start_paused = true)]
async fn a_new_subscription_takes_nothing_of_a_new_stream_from_the_others() {
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("#", 1).await;
    // While the first of these is saved there is a new stream, and the second comes before anything else is looked at.
    server.memory.slow.store(1000, Ordering::Relaxed);
    let mut packets = BytesMut::new();
    for (packet_id, filter) in [(11, "other/x"), (12, "news/y")] {
        let filter = TopicFilter::new(filter).expect("a filter");
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..Default::default()
        };
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: id(packet_id),
            properties: Properties::default(),
            filters: vec![SubscribeFilter { filter, options }],
        });
        encode(&subscribe, Version::V311, &mut packets);
    }
    client.send_bytes(&packets).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut sender = server.clean("s").await;
    sender.publish("news/x", "first", 1).await;
    for _ in 0..2 {
        assert!(matches!(client.receive().await, Some(Packet::SubAck(_))));
    }
    assert_eq!(client.take().await, "first");
    sender.publish("news/y", "second", 1).await;
    assert_eq!(client.take().await, "second");
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn the_filters_of_a_session_have_a_bound_in_bytes() {
    let server = Server::start().await;
    for connect in [v5("c"), v311("c")] {
        // Of a refusal 3.1.1 has one code.
        let refused = match connect.version {
            Version::V5 => ReasonCode::QUOTA_EXCEEDED,
            _ => ReasonCode(0x80),
        };
        let (mut client, _) = server.connect(connect).await;
        let filter = |n: u32| match n % 2 {
            0 => format!("{n:09}/{}", "x".repeat(64 * 1024 - 64)),
            _ => format!("$share/g/{n:09}/{}", "x".repeat(64 * 1024 - 64)),
        };
        let options = SubscriptionOptions::default();
        for n in 0..64 {
            let code = client.subscribe_with(&filter(n), options, None).await;
            assert_eq!(code, ReasonCode::SUCCESS, "{n}");
        }
        let code = client.subscribe_with(&filter(64), options, None).await;
        assert_eq!(code, refused);
        // One that is there takes nothing, nor does a short one, and what is gone makes room.
        client.subscribe(&filter(0), 1).await;
        client.subscribe("short", 1).await;
        client.unsubscribe(&filter(1)).await;
        client.subscribe(&filter(64), 0).await;
    }
}
