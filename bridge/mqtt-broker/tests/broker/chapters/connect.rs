//! CONNECT (section 3.1).

use super::*;
use bytes::{Bytes, BytesMut};
use mqtt_broker::Limits;
use std::time::Duration;

/// [MQTT-3.1.0-1], [MQTT-3.14.0-1]
#[tokio::test(start_paused = true)]
async fn what_is_not_connect_is_closed_without_a_word() {
    let server = Server::start().await;
    for version in BOTH {
        for bytes in [
            &b"\xc0\x00"[..],
            b"\x30\x04\x00\x01t\x00",
            b"\x82\x06\x00\x01\x00\x01t\x00",
            b"\xe0\x00",
            b"\x20\x02\x00\x00",
            b"\xf0\x00",
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            let mut client = server.open(version);
            client.send_bytes(bytes).await;
            assert_eq!(client.receive().await, None, "{bytes:02x?}");
        }
    }
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-3], [MQTT-3.1.4-1] and, of 5, [MQTT-3.14.0-1]: the vectors of the codec have every case.
#[tokio::test(start_paused = true)]
async fn a_connect_that_is_wrong_is_closed_without_connack() {
    let server = Server::start().await;
    for bytes in [
        &b"\x10\x0d\x00\x04MQXX\x04\x02\x00\x00\x00\x01a"[..],
        b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a",
        b"\x10\x0d\x00\x04MQTT\x04\x22\x00\x00\x00\x01a",
        b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x01aX",
        b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01a",
        b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02a",
    ] {
        let mut client = server.open(Version::V311);
        client.send_bytes(bytes).await;
        assert_eq!(client.receive().await, None, "{bytes:02x?}");
    }
}

/// [MQTT-3.1.2-2]: up to 5 in the form of 3.1.1, above it in the form of 5, whose reader can read it.
#[tokio::test(start_paused = true)]
async fn protocol_levels_that_are_not_there() {
    let server = Server::start().await;
    for (level, version, code) in [
        (0, Version::V311, 1),
        (3, Version::V311, 1),
        (6, Version::V5, 0x84),
        (0x85, Version::V5, 0x84),
    ] {
        let mut client = server.open(version);
        let mut bytes = *b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
        bytes[8] = level;
        client.send_bytes(&bytes).await;
        let Some(Packet::ConnAck(connack)) = client.receive().await else {
            panic!("no CONNACK to level {level}")
        };
        assert_eq!(connack.reason_code.0, code, "level {level}");
        assert_eq!(client.receive().await, None, "closed");
    }
}

/// [MQTT-3.1.2-4] of 5, [MQTT-3.1.2-6] of 3.1.1: subscriptions, what is in flight, and packet ids are gone.
#[tokio::test(start_paused = true)]
async fn a_clean_start_keeps_nothing() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.subscribe("t", 1).await;
        let mut sender = server.clean("s").await;
        sender.publish("t", "in flight", 1).await;
        client.receive_publish().await;
        client.send(packed(numbered(9, "q", "first", 2))).await;
        client.receive().await;
        client.vanish().await;
        sender.publish("t", "while away", 1).await;

        let (mut client, connack) = server.connect(clean(version, "c")).await;
        assert!(!connack.session_present);
        sender.publish("t", "no subscription", 1).await;
        client.nothing().await;
        client.send(packed(numbered(9, "q", "second", 2))).await;
        assert_eq!(
            client.receive().await,
            Some(Packet::PubRec(Ack::success(id(9))))
        );
        assert_eq!(server.memory.payloads("q").len(), 2, "a new message");
        client.subscribe("t", 1).await;
        client.vanish().await;
        let (_, connack) = server.connect(lasting(version, "c")).await;
        assert!(!connack.session_present, "it ended with its connection");
    }
}

/// [MQTT-3.1.2-5] and [MQTT-3.1.2-6] of 5, [MQTT-3.1.2-4] and [MQTT-3.1.2-5] of 3.1.1, [MQTT-3.1.2-23] of 5, [MQTT-3.1.4-4]
#[tokio::test(start_paused = true)]
async fn a_session_is_resumed_or_made() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, connack) = server.connect(lasting(version, "c")).await;
        assert!(!connack.session_present);
        client.subscribe("t", 2).await;
        client.vanish().await;
        let mut sender = server.clean("s").await;
        for qos in [1, 2] {
            sender.publish("t", &qos.to_string(), qos).await;
        }
        let (mut client, connack) = server.connect(lasting(version, "c")).await;
        assert!(connack.session_present);
        assert_eq!(client.take().await, "1");
        assert_eq!(client.take().await, "2");
        sender.publish("t", "and now", 1).await;
        assert_eq!(client.take().await, "and now");
    }
}

/// [MQTT-3.1.2-7] to [MQTT-3.1.2-17] of 3.1.1 as far as they are about wills; [MQTT-3.1.2-14], [MQTT-3.1.2-15] of 5
#[tokio::test(start_paused = true)]
async fn a_will_has_its_qos_and_its_retain_flag() {
    for version in BOTH {
        let server = Server::start().await;
        let mut watcher = server.clean("w").await;
        watcher.subscribe("will/#", 2).await;
        for (n, (qos, retain)) in [
            (0, false),
            (1, false),
            (2, false),
            (0, true),
            (1, true),
            (2, true),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("will/{n}");
            let will = will(&name, 0).map(|will| Will {
                qos: QoS::from_u8(qos).expect("a QoS"),
                retain,
                ..will
            });
            let (client, _) = server
                .connect(Connect {
                    will,
                    ..clean(version, "c")
                })
                .await;
            client.vanish().await;
            let got = watcher.receive_publish().await;
            assert_eq!((got.topic, got.qos as u8), (Some(topic(&name)), qos));
            assert!(!got.retain, "to who is subscribed already");
            let mut later = server.clean("later").await;
            later.subscribe(&name, 2).await;
            if retain {
                let got = later.receive_publish().await;
                assert!(got.retain && got.payload == "gone" && got.qos as u8 == qos);
            }
            later.nothing().await;
        }
    }
}

/// [MQTT-3.1.2-10], [MQTT-3.1.2-12] of 3.1.1: once; and never without the flag
#[tokio::test(start_paused = true)]
async fn a_will_is_published_once_and_only_if_there_is_one() {
    for version in BOTH {
        let server = Server::start().await;
        let mut watcher = server.clean("w").await;
        watcher.subscribe("#", 1).await;
        let with = Connect {
            will: will("will/x", 0),
            ..lasting(version, "c")
        };
        let (client, _) = server.connect(with).await;
        client.vanish().await;
        assert_eq!(watcher.take().await, "gone");
        let (client, connack) = server.connect(lasting(version, "c")).await;
        assert!(connack.session_present);
        client.vanish().await;
        tokio::time::sleep(Duration::from_secs(2000)).await;
        watcher.nothing().await;
    }
}

/// [MQTT-3.1.2-8] of 3.1.1: whatever ends the connection, except DISCONNECT
#[tokio::test(start_paused = true)]
async fn a_will_is_published_after_a_protocol_error_too() {
    for version in BOTH {
        let server = Server::start().await;
        let mut watcher = server.clean("w").await;
        watcher.subscribe("will/#", 1).await;
        let with = Connect {
            will: will("will/x", 0),
            ..clean(version, "c")
        };
        let (mut client, _) = server.connect(with).await;
        client.send_bytes(b"\x36\x00").await;
        assert_eq!(watcher.take().await, "gone");
    }
}

/// [MQTT-3.1.3-10] of 5, and the other properties of a will
#[tokio::test(start_paused = true)]
async fn a_will_has_its_properties() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("will/#", 1).await;
    let properties = Properties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        content_type: Some("text/plain".into()),
        response_topic: Some(topic("r")),
        correlation_data: Some(Bytes::from_static(b"\x00\xff")),
        user_properties: vec![
            ("b".into(), "1".into()),
            ("a".into(), "2".into()),
            ("b".into(), "0".into()),
        ],
        ..Properties::default()
    };
    let with = will("will/x", 0).map(|will| Will {
        properties: properties.clone(),
        ..will
    });
    let (client, _) = server
        .connect(Connect {
            will: with,
            ..v5("c")
        })
        .await;
    client.vanish().await;
    assert_eq!(watcher.receive_publish().await.properties, properties);
}

/// [MQTT-3.1.2-24] of 3.1.1, [MQTT-3.1.2-22] and [MQTT-3.2.2-22] of 5; 0 turns it off
#[tokio::test(start_paused = true)]
async fn the_clients_keep_alive_counts() {
    let server = Server::start().await;
    for version in BOTH {
        for (seconds, closed) in [(0u16, None), (1, Some(1_500)), (60, Some(90_000))] {
            let with = Connect {
                keep_alive: seconds,
                ..clean(version, "c")
            };
            let (mut client, connack) = server.connect(with).await;
            assert_eq!(connack.properties.server_keep_alive, None);
            let started = tokio::time::Instant::now();
            match closed {
                None => {
                    tokio::time::sleep(Duration::from_secs(100_000)).await;
                    client.send(Packet::PingReq).await;
                    assert_eq!(client.receive().await, Some(Packet::PingResp));
                }
                Some(after) => {
                    while client.receive().await.is_some() {}
                    let alive = started.elapsed().as_millis();
                    assert!(
                        (after..after + 100).contains(&alive),
                        "{seconds} s: {alive} ms"
                    );
                }
            }
        }
    }
}

/// [MQTT-3.2.2-21] is the client's; that the server means what it says is ours
#[tokio::test(start_paused = true)]
async fn the_servers_keep_alive_counts_where_it_gave_one() {
    let limits = Limits {
        max_keep_alive: 10,
        ..Limits::default()
    };
    let server = Server::over(std::sync::Arc::new(crate::memory::Memory::new()), limits).await;
    for asked in [0, 11, 65_535] {
        let (mut client, connack) = server
            .connect(Connect {
                keep_alive: asked,
                ..v5("c")
            })
            .await;
        assert_eq!(connack.properties.server_keep_alive, Some(10));
        let started = tokio::time::Instant::now();
        client.closed_with(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
        assert_eq!(started.elapsed().as_secs(), 15);
    }
}

/// [MQTT-3.1.3-2], [MQTT-3.1.3-5]: 1 to 23 bytes of letters and digits; more and other characters too
#[tokio::test(start_paused = true)]
async fn client_ids() {
    let server = Server::start().await;
    let long = "x".repeat(65_535);
    for version in BOTH {
        let names = [
            "a",
            "A",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
            "with space/and+others#é𝄞",
            &long,
        ];
        for name in names {
            let (mut client, connack) = server.connect(lasting(version, name)).await;
            assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
            assert!(!connack.session_present, "nobody else's: {name}");
            client.subscribe("t", 1).await;
            client.disconnect().await;
            let (client, connack) = server.connect(lasting(version, name)).await;
            assert!(connack.session_present);
            client.disconnect().await;
            let (client, _) = server.connect(clean(version, name)).await;
            client.disconnect().await;
        }
    }
}

/// [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16] of 5; [MQTT-3.1.3-6] of 3.1.1
#[tokio::test(start_paused = true)]
async fn a_client_without_an_id_gets_one_of_its_own() {
    let server = Server::start().await;
    let mut given = std::collections::BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let (client, connack) = server.connect(lasting(Version::V5, "")).await;
        let id = connack
            .properties
            .assigned_client_identifier
            .expect("an id");
        assert!(given.insert(id), "given before");
        clients.push(client);
        let (client, connack) = server.connect(clean(Version::V311, "")).await;
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
        clients.push(client);
    }
    let connections = &server.broker.metrics().connections;
    assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 40);
    // Used as if the client had brought it: with it, it finds its session again.
    for client in clients {
        client.vanish().await;
    }
    for id in given {
        let (_, connack) = server.connect(lasting(Version::V5, &id)).await;
        assert!(connack.session_present);
        assert_eq!(connack.properties.assigned_client_identifier, None);
    }
}

/// [MQTT-3.1.4-5] of 3.1.1, [MQTT-3.1.4-6] of 5
#[tokio::test(start_paused = true)]
async fn nothing_behind_a_refused_connect_is_looked_at() {
    let server = Server::start().await;
    for version in BOTH {
        let connect = Connect {
            user_name: Some("alice".into()),
            password: Some(Bytes::from_static(b"wrong")),
            ..clean(version, "c")
        };
        let mut bytes = BytesMut::new();
        encode(&Packet::Connect(Box::new(connect)), version, &mut bytes);
        encode(&packed(numbered(1, "t", "x", 1)), version, &mut bytes);
        let mut client = server.open(version);
        client.send_bytes(&bytes).await;
        assert!(matches!(client.receive().await, Some(Packet::ConnAck(_))));
        assert_eq!(client.receive().await, None);
        assert!(server.memory.payloads("t").is_empty());
    }
}

/// Section 3.1.4: clients need not wait for CONNACK
#[tokio::test(start_paused = true)]
async fn packets_may_come_right_behind_connect() {
    let server = Server::start().await;
    for version in BOTH {
        let mut bytes = BytesMut::new();
        encode(
            &Packet::Connect(Box::new(clean(version, "c"))),
            version,
            &mut bytes,
        );
        encode(&subscribe(1, &[("t", 0)]), version, &mut bytes);
        encode(&packed(numbered(2, "t", "x", 1)), version, &mut bytes);
        encode(&Packet::PingReq, version, &mut bytes);
        let mut client = server.open(version);
        client.send_bytes(&bytes).await;
        assert!(matches!(client.receive().await, Some(Packet::ConnAck(_))));
        assert!(matches!(client.receive().await, Some(Packet::SubAck(_))));
        let mut rest = Vec::new();
        for _ in 0..3 {
            rest.push(client.receive().await.expect("a packet"));
        }
        assert!(
            rest.iter()
                .any(|packet| matches!(packet, Packet::PubAck(_)))
        );
        assert!(
            rest.iter()
                .any(|packet| matches!(packet, Packet::Publish(_)))
        );
        assert!(rest.contains(&Packet::PingResp));
    }
}

/// [MQTT-3.1.4-2] of 3.1.1, [MQTT-3.1.4-3] of 5: also across versions, also with a clean start
#[tokio::test(start_paused = true)]
async fn the_same_client_id_again_closes_the_older_connection() {
    for older in BOTH {
        for newer in BOTH {
            let server = Server::start().await;
            let (mut first, _) = server.connect(clean(older, "c")).await;
            let (mut second, connack) = server.connect(clean(newer, "c")).await;
            assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
            match older {
                Version::V5 => first.closed_with(ReasonCode::SESSION_TAKEN_OVER).await,
                _ => assert_eq!(first.receive().await, None),
            }
            second.send(Packet::PingReq).await;
            assert_eq!(second.receive().await, Some(Packet::PingResp));
        }
    }
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25] of 5: not only PUBLISH
#[tokio::test(start_paused = true)]
async fn no_packet_is_larger_than_the_client_takes() {
    let server = Server::start().await;
    let with = |size| Connect {
        properties: Properties {
            maximum_packet_size: Some(size),
            ..Properties::default()
        },
        ..v5("c")
    };
    let mut tiny = server.open(Version::V5);
    tiny.send(Packet::Connect(Box::new(with(4)))).await;
    assert_eq!(tiny.receive().await, None, "not even CONNACK");

    let (mut client, _) = server.connect(with(100)).await;
    let filters: Vec<String> = (0..200).map(|n| format!("t/{n}")).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|name| (name.as_str(), 0)).collect();
    client.send(subscribe(1, &filters)).await;
    client.send(Packet::PingReq).await;
    assert_eq!(
        client.receive().await,
        Some(Packet::PingResp),
        "SUBACK would have more than 200 bytes"
    );
    let mut sender = server.clean("s").await;
    sender.publish("t/7", &"x".repeat(100), 1).await;
    sender.publish("t/7", "small", 1).await;
    assert_eq!(
        client.take().await,
        "small",
        "the subscription is there; the larger message is not sent"
    );
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25] of 5: what is sent again has to fit into what this connection takes, and counts as acknowledged where it does not
#[tokio::test(start_paused = true)]
async fn what_is_sent_again_is_no_larger_than_the_client_takes_now() {
    let server = Server::start().await;
    let with = |size| {
        let mut connect = lasting(Version::V5, "c");
        connect.properties.maximum_packet_size = size;
        connect.properties.receive_maximum = Some(3);
        connect
    };
    let (mut client, _) = server.connect(with(None)).await;
    client.subscribe("t", 2).await;
    let mut sender = server.clean("s").await;
    let large = "x".repeat(100);
    for (text, qos) in [(&*large, 1), ("small", 1), (&*large, 2)] {
        sender.publish("t", text, qos).await;
        client.receive_publish().await;
    }
    client.vanish().await;
    sender.publish("t", "later", 2).await;
    for size in [Some(100), None] {
        let (mut client, _) = server.connect(with(size)).await;
        for text in ["small", "later"] {
            assert_eq!(client.receive_publish().await.payload, text);
        }
        client.nothing().await;
        client.vanish().await;
    }
    let dropped = &server.broker.metrics().dropped;
    assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
}

/// [MQTT-3.1.2-29] of 5: the reason string and the user properties of each packet are in the tests of `fit.rs`
#[tokio::test(start_paused = true)]
async fn refusals_are_not_explained_to_who_does_not_ask() {
    let server = Server::start().await;
    let properties = Properties {
        request_problem_information: Some(0),
        ..Properties::default()
    };
    let (mut client, _) = server
        .connect(Connect {
            properties,
            ..v5("c")
        })
        .await;
    client.send(packed(numbered(1, "guarded/x", "x", 1))).await;
    client.send(packed(numbered(2, "guarded/x", "x", 2))).await;
    client.send(Packet::PubRel(Ack::success(id(7)))).await;
    client.send(subscribe(3, &[("forbidden/x", 1)])).await;
    client.send(unsubscribe(4, &["never"])).await;
    for _ in 0..5 {
        let properties = match client.receive().await {
            Some(Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack)) => {
                ack.properties
            }
            Some(Packet::SubAck(suback)) => suback.properties,
            Some(Packet::UnsubAck(unsuback)) => unsuback.properties,
            other => panic!("{other:?}"),
        };
        assert!(properties.is_empty(), "{properties:?}");
    }
}

/// [MQTT-3.1.2-28] of 5
#[tokio::test(start_paused = true)]
async fn response_information_is_not_given_unasked() {
    let server = Server::start().await;
    for asked in [None, Some(0)] {
        let properties = Properties {
            request_response_information: asked,
            ..Properties::default()
        };
        let (_, connack) = server
            .connect(Connect {
                properties,
                ..v5("c")
            })
            .await;
        assert_eq!(connack.properties.response_information, None);
    }
}
