use crate::client::*;
use bytes::Bytes;
use mqtt_broker::Limits;
use mqtt_codec::*;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn connack_says_what_the_server_does() {
    let limits = Limits {
        max_keep_alive: 60,
        max_session_expiry: 3600,
        ..Limits::default()
    };
    let server = Server::over(std::sync::Arc::new(crate::memory::Memory::new()), limits).await;
    let properties = Properties {
        session_expiry_interval: Some(u32::MAX),
        ..Properties::default()
    };
    let (client, connack) = server
        .connect(Connect {
            properties,
            ..v5("")
        })
        .await;
    let p = connack.properties;
    assert_eq!(p.server_keep_alive, Some(60));
    assert_eq!(p.session_expiry_interval, Some(3600));
    assert_eq!(p.shared_subscription_available, Some(1));
    assert!(p.assigned_client_identifier.is_some_and(|id| id.len() > 16));
    client.disconnect().await;
    let (_, connack) = server.connect(v311("")).await;
    assert_eq!(
        connack.reason_code,
        ReasonCode::SUCCESS,
        "3.1.1, section 3.1.3.1: no id, clean"
    );
}

#[tokio::test(start_paused = true)]
async fn refused_connections() {
    let server = Server::start().await;
    let user = |name: &str, password: &'static [u8]| Connect {
        user_name: Some(name.into()),
        password: Some(Bytes::from_static(password)),
        ..v5("c")
    };
    let method = Properties {
        authentication_method: Some("SCRAM".into()),
        ..Properties::default()
    };
    for (connect, code) in [
        (user("alice", b"wrong"), 0x86),
        (user("mallory", b""), 0x87),
        (
            Connect {
                version: Version::V311,
                ..user("alice", b"wrong")
            },
            4,
        ),
        (
            Connect {
                version: Version::V311,
                ..user("mallory", b"")
            },
            5,
        ),
        (
            Connect {
                clean_start: false,
                ..v311("")
            },
            2,
        ),
        (
            Connect {
                properties: method,
                ..v5("c")
            },
            0x8C,
        ),
    ] {
        let (mut client, connack) = server.connect(connect).await;
        assert_eq!(connack.reason_code.0, code);
        assert_eq!(client.receive().await, None, "closed [MQTT-3.2.2-7]");
    }
    let (client, connack) = server.connect(user("alice", b"secret")).await;
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    client.disconnect().await;
}

#[tokio::test(start_paused = true)]
async fn unknown_versions_and_silence() {
    let server = Server::start().await;
    let mut future = server.open(Version::V5);
    future
        .send_bytes(b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x01a")
        .await;
    let Some(Packet::ConnAck(connack)) = future.receive().await else {
        panic!("no CONNACK")
    };
    assert_eq!(
        connack.reason_code,
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION
    );
    let mut silent = server.open(Version::V5);
    let started = tokio::time::Instant::now();
    assert_eq!(silent.receive().await, None);
    assert!(started.elapsed() >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_second_connect_ends_the_connection() {
    let server = Server::start().await;
    for connect in [v5("c"), v311("c")] {
        for again in [connect.client_id.as_str(), "another"] {
            let (mut client, _) = server.connect(connect.clone()).await;
            let second = Connect {
                client_id: again.to_owned(),
                ..connect.clone()
            };
            client.send(Packet::Connect(Box::new(second))).await;
            match connect.version {
                Version::V5 => client.closed_with(ReasonCode::PROTOCOL_ERROR).await,
                _ => assert_eq!(client.receive().await, None),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn our_receive_maximum() {
    let limits = Limits {
        receive_maximum: 3,
        receive_limit: 3,
        ..Limits::default()
    };
    let server = Server::over(std::sync::Arc::new(crate::memory::Memory::new()), limits).await;
    let mut client = server.clean("c").await;
    for n in 1..=4 {
        let packet = Publish {
            packet_id: Some(id(n)),
            ..publish("t", "x", 2)
        };
        client.send(Packet::Publish(Box::new(packet))).await;
    }
    for n in 1..=3 {
        assert_eq!(
            client.receive().await,
            Some(Packet::PubRec(Ack::success(id(n))))
        );
    }
    client
        .closed_with(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED)
        .await;
}
