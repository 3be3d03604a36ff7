//! CONNACK (section 3.2).

use super::*;
use bytes::Bytes;

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

/// [MQTT-3.2.2-9], [MQTT-3.2.2-12], [MQTT-3.2.2-13] of 5 do not apply: QoS 2 and retained messages are there, also for wills
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
