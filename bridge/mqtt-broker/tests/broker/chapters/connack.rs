//! CONNACK (section 3.2).

use super::*;
use crate::memory::Memory;
use bytes::Bytes;
use mqtt_broker::Limits;
use std::sync::Arc;

/// [MQTT-3.2.0-1], [MQTT-3.2.0-2] of 5: first, and only once
#[tokio::test(start_paused = true)]
async fn connack_is_the_first_packet_and_comes_once() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.subscribe("t", 2).await;
        client.vanish().await;
        let mut sender = server.clean("s").await;
        for n in 0..50 {
            sender.publish("t", &n.to_string(), 1).await;
        }
        let mut client = server.open(version);
        client
            .send(Packet::Connect(Box::new(lasting(version, "c"))))
            .await;
        assert!(matches!(client.receive().await, Some(Packet::ConnAck(_))));
        for n in 0..50 {
            assert_eq!(client.take().await, n.to_string());
        }
        client.nothing().await;
    }
}

/// [MQTT-3.2.2-1] to [MQTT-3.2.2-3] of 3.1.1, [MQTT-3.2.2-2], [MQTT-3.2.2-3] of 5
#[tokio::test(start_paused = true)]
async fn session_present() {
    let server = Server::start().await;
    for version in BOTH {
        for (clean_start, there_was_one, expected) in [
            (true, false, false),
            (false, false, false),
            (false, true, true),
            (true, true, false),
        ] {
            let name = format!("{version:?}{clean_start}{there_was_one}");
            if there_was_one {
                let (client, _) = server.connect(lasting(version, &name)).await;
                client.disconnect().await;
            }
            let connect = Connect {
                clean_start,
                ..lasting(version, &name)
            };
            let (client, connack) = server.connect(connect).await;
            assert_eq!(connack.session_present, expected, "{name}");
            assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
            client.disconnect().await;
        }
    }
}

/// [MQTT-3.2.2-4], [MQTT-3.2.2-5] of 3.1.1, [MQTT-3.2.2-6], [MQTT-3.2.2-7] of 5; the session is not touched
#[tokio::test(start_paused = true)]
async fn a_refusal_says_no_session_and_closes() {
    let server = Server::start().await;
    for version in BOTH {
        let with = |password: &'static [u8]| Connect {
            user_name: Some("alice".into()),
            password: Some(Bytes::from_static(password)),
            ..lasting(version, "c")
        };
        let (client, _) = server.connect(with(b"secret")).await;
        client.disconnect().await;
        let (mut client, connack) = server.connect(with(b"wrong")).await;
        assert!(connack.reason_code != ReasonCode::SUCCESS && !connack.session_present);
        assert_eq!(client.receive().await, None);
        let (client, connack) = server.connect(with(b"secret")).await;
        assert!(connack.session_present);
        client.disconnect().await;
        let (client, _) = server.connect(clean(version, "c")).await;
        client.disconnect().await;
    }
}

/// [MQTT-3.2.2-9] to [MQTT-3.2.2-14] of 5, where QoS 2 or retained messages are switched off; 3.1.1 has no word for it
#[tokio::test(start_paused = true)]
async fn what_is_switched_off_is_said_and_refused() {
    for (version, maximum) in [
        (Version::V311, 0u8),
        (Version::V311, 1),
        (Version::V5, 0),
        (Version::V5, 1),
    ] {
        let limits = Limits {
            maximum_qos: QoS::from_u8(maximum).expect("a QoS"),
            retain_available: false,
            ..Limits::default()
        };
        let server = Server::over(Arc::new(Memory::new()), limits).await;
        let is_5 = version == Version::V5;
        let (mut client, connack) = server.connect(clean(version, "c")).await;
        let told = connack.properties;
        assert_eq!(told.maximum_qos, is_5.then_some(maximum));
        assert_eq!(told.retain_available, is_5.then_some(0));
        for asked in 0..=2 {
            let granted = client.subscribe_with("t", options(asked), None).await;
            assert_eq!(granted.0, asked.min(maximum), "[MQTT-3.2.2-10]");
        }
        let mut sender = server.clean("s").await;
        sender.publish("t", "x", maximum).await;
        assert_eq!(client.receive_publish().await.qos as u8, maximum);
        client.disconnect().await;
        for (qos, retain, code) in [
            (maximum + 1, false, ReasonCode::QOS_NOT_SUPPORTED),
            (2, false, ReasonCode::QOS_NOT_SUPPORTED),
            (0, true, ReasonCode::RETAIN_NOT_SUPPORTED),
        ] {
            let (mut client, _) = server.connect(clean(version, "c")).await;
            let mut message = publish("u", "x", qos);
            message.packet_id = (qos > 0).then(|| id(9));
            message.retain = retain;
            client.send(packed(message)).await;
            match version {
                Version::V5 => client.closed_with(code).await,
                _ => assert_eq!(client.receive().await, None, "QoS {qos}"),
            }
            let with = will("u", 0).map(|will| Will {
                qos: QoS::from_u8(qos).expect("a QoS"),
                retain,
                ..will
            });
            let connect = Connect {
                will: with,
                ..clean(version, "w")
            };
            let (mut client, connack) = server.connect(connect).await;
            // To 3.1.1: server unavailable.
            let expected = if is_5 { code } else { ReasonCode(3) };
            assert_eq!(connack.reason_code, expected, "[MQTT-3.2.2-12, 3.2.2-13]");
            assert_eq!(client.receive().await, None, "closed");
        }
        assert!(server.memory.payloads("u").is_empty(), "nothing is stored");
    }
}

/// What a server says that has everything: QoS 2 and retained messages, also for wills
#[tokio::test(start_paused = true)]
async fn everything_is_available() {
    let server = Server::start().await;
    let will = will("will/x", 0).map(|will| Will {
        qos: QoS::ExactlyOnce,
        retain: true,
        ..will
    });
    let (_, connack) = server.connect(Connect { will, ..v5("c") }).await;
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    let p = connack.properties;
    assert_eq!(p.maximum_qos, None, "2");
    assert_ne!(p.retain_available, Some(0));
    assert_ne!(p.wildcard_subscription_available, Some(0));
    assert_ne!(p.subscription_identifier_available, Some(0));
    assert_eq!(p.authentication_method, None);
}
