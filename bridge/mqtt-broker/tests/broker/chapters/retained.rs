//! The RETAIN flag (section 3.3.1.3) in both versions.

use super::*;

async fn kept(server: &Server, version: Version, name: &str) -> Option<(String, u8)> {
    let (mut client, _) = server.connect(clean(version, "looks")).await;
    client.subscribe(name, 2).await;
    let Some(Packet::Publish(got)) = soon(&mut client).await else {
        return None;
    };
    assert!(got.retain, "[MQTT-3.3.1-8]");
    Some((
        String::from_utf8_lossy(&got.payload).into_owned(),
        got.qos as u8,
    ))
}

/// [MQTT-3.3.1-5] to [MQTT-3.3.1-8], [MQTT-3.3.1-10] to [MQTT-3.3.1-12] of 3.1.1; [MQTT-3.3.1-5] to [MQTT-3.3.1-8] of 5
#[tokio::test(start_paused = true)]
async fn the_last_message_with_the_flag_is_kept_with_its_qos() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut sender, _) = server.connect(clean(version, "s")).await;
        assert_eq!(kept(&server, version, "r").await, None);
        for (payload, qos) in [("one", 1), ("two", 2), ("zero", 0), ("one again", 1)] {
            sender.publish_packet(retained("r", payload, qos)).await;
            assert_eq!(
                kept(&server, version, "r").await,
                Some((payload.to_owned(), qos))
            );
        }
        sender.publish("r", "without the flag", 1).await;
        sender.publish("r", "", 1).await;
        assert_eq!(
            kept(&server, version, "r").await,
            Some(("one again".to_owned(), 1))
        );
        sender.publish_packet(retained("r", "", 1)).await;
        assert_eq!(kept(&server, version, "r").await, None);
        sender.publish_packet(retained("never", "", 1)).await;
        assert_eq!(kept(&server, version, "never").await, None);
    }
}

/// [MQTT-3.3.1-10] of 3.1.1, [MQTT-3.3.1-6] of 5: who is subscribed gets the empty message, as any other
#[tokio::test(start_paused = true)]
async fn an_empty_retained_message_is_delivered() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.subscribe("r", 1).await;
        client.publish_packet(retained("r", "x", 0)).await;
        client.publish_packet(retained("r", "", 0)).await;
        for payload in ["x", ""] {
            let got = client.receive_publish().await;
            assert!(!got.retain && got.payload == payload, "[MQTT-3.3.1-9]");
        }
    }
}

/// [MQTT-3.3.1-6], [MQTT-3.3.1-9] of 3.1.1; [MQTT-3.3.1-9], [MQTT-3.3.1-12] of 5: one for each topic that matches
#[tokio::test(start_paused = true)]
async fn a_wildcard_brings_all_that_match() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut sender, _) = server.connect(clean(version, "s")).await;
        for name in ["r/1", "r/2", "r", "r/2/3", "x/1", "$r/1"] {
            sender.publish_packet(retained(name, name, 1)).await;
        }
        for (filter, expected) in [
            ("r/+", vec!["r/1", "r/2"]),
            ("r/#", vec!["r", "r/1", "r/2", "r/2/3"]),
            ("+/1", vec!["r/1", "x/1"]),
            ("#", vec!["r", "r/1", "r/2", "r/2/3", "x/1"]),
            ("$r/#", vec!["$r/1"]),
        ] {
            let (mut client, _) = server.connect(clean(version, "c")).await;
            client.subscribe(filter, 1).await;
            let mut got = Vec::new();
            for _ in &expected {
                got.push(client.take().await);
            }
            got.sort();
            assert_eq!(got, expected, "{filter}");
            client.nothing().await;
        }
    }
}

/// [MQTT-3.1.2-7] of 3.1.1: they are no part of the session; section 4.1 of 5
#[tokio::test(start_paused = true)]
async fn retained_messages_outlive_the_session() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut sender, _) = server.connect(clean(version, "s")).await;
        sender.publish_packet(retained("r", "x", 1)).await;
        sender.disconnect().await;
        let (sender, _) = server.connect(clean(version, "s")).await;
        sender.vanish().await;
        assert_eq!(kept(&server, version, "r").await, Some(("x".to_owned(), 1)));
    }
}

/// [MQTT-3.3.1-13] of 5
#[tokio::test(start_paused = true)]
async fn retain_as_published_says_what_the_publisher_said() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let as_published = SubscriptionOptions {
        retain_as_published: true,
        ..options(1)
    };
    client.subscribe_with("r", as_published, None).await;
    let mut sender = server.clean("s").await;
    for retain in [true, false, true] {
        sender
            .publish_packet(Publish {
                retain,
                ..publish("r", "x", 0)
            })
            .await;
        assert_eq!(client.receive_publish().await.retain, retain);
    }
}

/// [MQTT-3.8.4-6] of 3.1.1, [MQTT-3.8.4-8] of 5
#[tokio::test(start_paused = true)]
async fn the_qos_of_a_retained_message_is_the_lower_one() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut sender, _) = server.connect(clean(version, "s")).await;
        for qos in 0..=2u8 {
            sender.publish_packet(retained("r", "x", qos)).await;
            for granted in 0..=2u8 {
                let (mut client, _) = server.connect(clean(version, "c")).await;
                client.subscribe("r", granted).await;
                let got = client.receive_publish().await;
                assert_eq!(got.qos as u8, qos.min(granted));
            }
        }
    }
}

/// [MQTT-3.3.1-10] of 5: a subscription that came back with its session is not new, also in another process
#[tokio::test(start_paused = true)]
async fn retain_handling_1_knows_the_subscriptions_of_a_resumed_session() {
    let handling = |retain_handling| SubscriptionOptions {
        retain_handling,
        ..options(1)
    };
    for restart in [false, true] {
        let mut server = Server::start().await;
        let mut sender = server.clean("s").await;
        for name in ["a/1", "b/1"] {
            sender.publish_packet(retained(name, name, 1)).await;
        }
        let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
        client
            .subscribe_with("a/+", handling(RetainHandling::DoNotSend), None)
            .await;
        client.nothing().await;
        if restart {
            client.kill_server_side().await;
            server = Server::over(server.memory, Default::default()).await;
        } else {
            client.vanish().await;
        }
        let (mut client, connack) = server.connect(lasting(Version::V5, "c")).await;
        assert!(connack.session_present);
        let if_new = handling(RetainHandling::SendIfNew);
        client.subscribe_with("a/+", if_new, None).await;
        client.nothing().await;
        client.subscribe_with("b/+", if_new, None).await;
        assert_eq!(client.take().await, "b/1");
        client.nothing().await;
    }
}
