use crate::client::*;
use bytes::Bytes;
use mqtt_broker::Backend;
use mqtt_broker::backend::ClientId;
use mqtt_codec::*;
use std::sync::atomic::Ordering;

#[tokio::test(start_paused = true)]
async fn every_qos_to_every_qos() {
    let server = Server::start().await;
    let mut sender = server.clean("sender").await;
    for granted in 0..=2u8 {
        let mut receiver = server.clean(&format!("receiver{granted}")).await;
        receiver.subscribe("a/#", granted).await;
        for qos in 0..=2u8 {
            sender.publish("a/b", &format!("{qos}"), qos).await;
            let got = receiver.receive_publish().await;
            assert_eq!(got.qos as u8, qos.min(granted), "section 3.8.4");
            assert!(!got.retain && !got.dup);
            match got.packet_id {
                None => {}
                Some(packet_id) if got.qos == QoS::AtLeastOnce => {
                    receiver.send(Packet::PubAck(Ack::success(packet_id))).await;
                }
                Some(packet_id) => {
                    receiver.send(Packet::PubRec(Ack::success(packet_id))).await;
                    assert_eq!(
                        receiver.receive().await,
                        Some(Packet::PubRel(Ack::success(packet_id)))
                    );
                    receiver
                        .send(Packet::PubComp(Ack::success(packet_id)))
                        .await;
                }
            }
        }
        receiver.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn publishes_are_pipelined_and_acknowledged_in_order() {
    let server = Server::start().await;
    let mut receiver = server.clean("receiver").await;
    receiver.subscribe("#", 1).await;
    let mut sender = server.clean("sender").await;
    for n in 1..=500u16 {
        let packet_id = Some(id(n));
        let packet = Publish {
            packet_id,
            ..publish("t", &n.to_string(), 1)
        };
        sender.send(Packet::Publish(Box::new(packet))).await;
    }
    for n in 1..=500u16 {
        assert_eq!(
            sender.receive().await,
            Some(Packet::PubAck(Ack::success(id(n))))
        );
    }
    for n in 1..=500u16 {
        assert_eq!(receiver.take().await, n.to_string());
    }
    receiver.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_qos_2_publish_is_stored_once_also_over_a_reconnect() {
    let server = Server::start().await;
    let (mut sender, _) = server.persistent("sender").await;
    let packet = Publish {
        packet_id: Some(id(9)),
        ..publish("t", "once", 2)
    };
    sender.send(Packet::Publish(Box::new(packet.clone()))).await;
    sender
        .send(Packet::Publish(Box::new(Publish {
            dup: true,
            ..packet.clone()
        })))
        .await;
    for _ in 0..2 {
        assert_eq!(
            sender.receive().await,
            Some(Packet::PubRec(Ack::success(id(9))))
        );
    }
    sender.kill_server_side().await;

    let server = Server::over(server.memory, Default::default()).await;
    let (mut sender, present) = server.persistent("sender").await;
    assert!(present);
    sender
        .send(Packet::Publish(Box::new(Publish {
            dup: true,
            ..packet.clone()
        })))
        .await;
    assert_eq!(
        sender.receive().await,
        Some(Packet::PubRec(Ack::success(id(9))))
    );
    for _ in 0..2 {
        sender.send(Packet::PubRel(Ack::success(id(9)))).await;
        assert_eq!(
            sender.receive().await,
            Some(Packet::PubComp(Ack::success(id(9))))
        );
    }
    assert_eq!(
        server.memory.payloads("t"),
        vec![Bytes::from_static(b"once")]
    );
    // Released: the same id is a new message.
    sender.send(Packet::Publish(Box::new(packet))).await;
    assert_eq!(
        sender.receive().await,
        Some(Packet::PubRec(Ack::success(id(9))))
    );
    assert_eq!(server.memory.payloads("t").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn refused_publishes() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    for (n, topic, qos, code) in [
        (1, "quota", 1, ReasonCode::QUOTA_EXCEEDED),
        (2, "forbidden", 2, ReasonCode::NOT_AUTHORIZED),
    ] {
        let packet = Publish {
            packet_id: Some(id(n)),
            ..publish(topic, "x", qos)
        };
        client.send(Packet::Publish(Box::new(packet))).await;
        let ack = Ack::new(id(n), code);
        let expected = if qos == 1 {
            Packet::PubAck(ack)
        } else {
            Packet::PubRec(ack)
        };
        assert_eq!(client.receive().await, Some(expected));
    }
    for (topic, disk_is_full) in [("quota", false), ("t", true)] {
        server.memory.full.store(disk_is_full, Ordering::Relaxed);
        for qos in 0..=2 {
            let (mut old, _) = server.connect(v311("old")).await;
            let packet = Publish {
                packet_id: (qos > 0).then(|| id(1)),
                ..publish(topic, "x", qos)
            };
            old.send(Packet::Publish(Box::new(packet))).await;
            if qos == 0 {
                old.nothing().await;
                old.send(Packet::PingReq).await;
                assert_eq!(old.receive().await, Some(Packet::PingResp), "not closed");
            } else {
                // 3.1.1 can not say no: closed without PUBACK, PUBREC.
                assert_eq!(old.receive().await, None, "{topic}, QoS {qos}");
            }
        }
        assert!(server.memory.payloads(topic).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn all_properties_of_a_message_arrive() {
    let server = Server::start().await;
    let mut receiver = server.clean("receiver").await;
    receiver.subscribe("t", 1).await;
    let mut sender = server.clean("sender").await;
    let properties = Properties {
        payload_format_indicator: Some(1),
        content_type: Some("text/plain".into()),
        response_topic: Some(topic("answers/1")),
        correlation_data: Some(Bytes::from_static(&[0, 255])),
        user_properties: vec![
            ("b".into(), "1".into()),
            ("a".into(), "2".into()),
            ("b".into(), "".into()),
        ],
        message_expiry_interval: Some(10),
        ..Properties::default()
    };
    sender
        .publish_packet(Publish {
            properties: properties.clone(),
            ..publish("t", "", 1)
        })
        .await;
    let got = receiver.receive_publish().await;
    assert_eq!(got.properties, properties);
    assert!(got.payload.is_empty());
}

#[tokio::test(start_paused = true)]
async fn messages_expire_and_the_interval_is_decremented() {
    let server = Server::start().await;
    let (sub, _) = server.connect(persistent_v5("sub")).await;
    let mut sub = sub;
    sub.subscribe("t", 1).await;
    sub.disconnect().await;
    let mut sender = server.clean("sender").await;
    for (text, seconds) in [("short", 5), ("long", 60)] {
        let properties = Properties {
            message_expiry_interval: Some(seconds),
            ..Properties::default()
        };
        sender
            .publish_packet(Publish {
                properties,
                ..publish("t", text, 1)
            })
            .await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    let (mut sub, _) = server.connect(persistent_v5("sub")).await;
    let got = sub.receive_publish().await;
    assert_eq!(&got.payload[..], b"long");
    assert_eq!(got.properties.message_expiry_interval, Some(40));
    sub.nothing().await;
}

/// [MQTT-3.3.2-5]: those that wait behind a save of the session are over when it is done. They leave room for others, and no alias that was never said.
#[tokio::test(start_paused = true)]
async fn messages_that_expire_behind_a_save_are_not_sent() {
    let server = Server::start().await;
    let mut connect = persistent_v5("sub");
    connect.properties.receive_maximum = Some(2);
    connect.properties.topic_alias_maximum = Some(1);
    let (mut sub, _) = server.connect(connect.clone()).await;
    sub.subscribe("some/topic", 2).await;
    sub.nothing().await;
    server.memory.slow.store(10_000, Ordering::Relaxed);
    let mut sender = server.clean("sender").await;
    for (text, qos, seconds) in [("0", 2, 5), ("1", 0, 5), ("2", 1, 5), ("3", 1, 60)] {
        let properties = Properties {
            message_expiry_interval: Some(seconds),
            ..Properties::default()
        };
        let message = publish("some/topic", text, qos);
        sender
            .publish_packet(Publish {
                properties,
                ..message
            })
            .await;
    }
    let got = sub.receive_publish().await;
    assert_eq!(got.payload, "3");
    let said = (got.topic, got.properties.topic_alias);
    assert_eq!(said, (Some(topic("some/topic")), Some(1)));
    sub.nothing().await;
    let dropped = server.broker.metrics().dropped.load(Ordering::Relaxed);
    assert_eq!(dropped, 3);
    // And they are done with.
    sub.vanish().await;
    let (mut sub, _) = server.connect(connect).await;
    let got = sub.receive_publish().await;
    assert!(got.dup && got.payload == "3");
    sub.nothing().await;
}

fn persistent_v5(id: &str) -> Connect {
    let properties = Properties {
        session_expiry_interval: Some(1000),
        ..Properties::default()
    };
    Connect {
        properties,
        clean_start: false,
        ..v5(id)
    }
}

#[tokio::test(start_paused = true)]
async fn topic_aliases() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    client.subscribe("t/#", 0).await;
    let with = |name: Option<&str>, alias: u16| Publish {
        topic: name.map(topic),
        properties: Properties {
            topic_alias: Some(alias),
            ..Properties::default()
        },
        ..publish("x", "p", 0)
    };
    client
        .send(Packet::Publish(Box::new(with(Some("t/1"), 3))))
        .await;
    client.send(Packet::Publish(Box::new(with(None, 3)))).await;
    for _ in 0..2 {
        let got = client.receive_publish().await;
        assert_eq!(got.topic, Some(topic("t/1")));
        assert_eq!(got.properties, Properties::default());
    }
    client
        .send(Packet::Publish(Box::new(with(Some("t/1"), 65))))
        .await;
    client.closed_with(ReasonCode::TOPIC_ALIAS_INVALID).await;
    let mut other = server.clean("d").await;
    other.send(Packet::Publish(Box::new(with(None, 3)))).await;
    other.closed_with(ReasonCode::PROTOCOL_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_pubrel_that_does_not_wait_for_pubrec_releases_what_was_stored() {
    for connect in [v5("c"), v311("c")] {
        let server = Server::start().await;
        let (mut client, _) = server.connect(connect).await;
        server.memory.hold(true);
        for round in 0..2 {
            let packet = Publish {
                packet_id: Some(id(7)),
                ..publish("t", &round.to_string(), 2)
            };
            client.send(Packet::Publish(Box::new(packet))).await;
            client.send(Packet::PubRel(Ack::success(id(7)))).await;
            client.nothing().await;
            server.memory.commit(1, |_| Ok(()));
            let done = Ack::success(id(7));
            assert_eq!(client.receive().await, Some(Packet::PubRec(done.clone())));
            assert_eq!(client.receive().await, Some(Packet::PubComp(done)));
            let left = server.memory.unreleased(&ClientId::new("c")).await;
            assert!(left.expect("readable").is_empty());
        }
        assert_eq!(server.memory.payloads("t"), ["0", "1"]);
    }
}
