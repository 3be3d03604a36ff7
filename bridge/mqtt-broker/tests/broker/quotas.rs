//! Quotas, which a client finds as it left them.

use crate::client::*;
use access_rules::Who;
use bytes::{Bytes, BytesMut};
use mqtt_codec::*;
use quota::{Each, Quota, Quotas};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

fn of_each_user(messages: Option<u64>, bytes: Option<u64>) -> Vec<Quota> {
    vec![Quota {
        who: Who::default(),
        each: Each::User,
        connections: None,
        messages,
        bytes,
    }]
}

fn ann(id: &str) -> Connect {
    Connect {
        user_name: Some("ann".into()),
        ..v5(id)
    }
}

fn with_will(id: &str) -> Connect {
    Connect {
        will: will("will/x", 0),
        ..ann(id)
    }
}

/// CONNECT and a message together, and their answers.
async fn connect_and_publish(server: &Server, connect: Connect) -> Client {
    let mut client = server.open(Version::V5);
    let mut both = BytesMut::new();
    encode(&Packet::Connect(Box::new(connect)), Version::V5, &mut both);
    let packet_id = Some(client.next_id());
    let message = Publish {
        packet_id,
        ..publish("t", "x", 1)
    };
    encode(&Packet::Publish(Box::new(message)), Version::V5, &mut both);
    client.send_bytes(&both).await;
    let connack = client.receive().await;
    assert!(matches!(connack, Some(Packet::ConnAck(_))), "{connack:?}");
    let acknowledged = client.receive().await;
    assert!(
        matches!(acknowledged, Some(Packet::PubAck(_))),
        "{acknowledged:?}"
    );
    client
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_with_a_message_is_not_ahead_of_who_stays() {
    let server = Server::with_quotas(Quotas::new(of_each_user(Some(1), None))).await;
    let begun = Instant::now();
    for n in 0..6 {
        // By another client id, and by taking over its own connection.
        connect_and_publish(&server, ann(if n % 2 == 0 { "a" } else { "b" })).await;
    }
    // One is there at once, and one is overdrawn.
    assert!(begun.elapsed() >= Duration::from_secs(4));
    assert_eq!(server.memory.payloads("t").len(), 6);
}

#[tokio::test(start_paused = true)]
async fn connect_is_read_at_the_rate_of_all_bytes() {
    let server = Server::with_quotas(Quotas::new(of_each_user(None, Some(1_000)))).await;
    let begun = Instant::now();
    let large = Connect {
        password: Some(Bytes::from(vec![b'x'; 5_000])),
        ..ann("a")
    };
    connect_and_publish(&server, large).await;
    assert!(begun.elapsed() >= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn wills_are_messages() {
    let quotas = Quotas::new(of_each_user(Some(1), None));
    let server = Server::with_quotas(quotas.clone()).await;
    let begun = Instant::now();
    for n in 0..6 {
        let (client, _) = server.connect(with_will(&format!("c{n}"))).await;
        client.vanish().await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(4));
    assert_eq!(server.memory.payloads("will").len(), 6);
    assert!(quotas.counts().delayed > 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_it_is_let_in_leaves_no_will() {
    let server = Server::with_quotas(Quotas::new(of_each_user(Some(1), None))).await;
    for n in 0..2 {
        connect_and_publish(&server, ann(&format!("c{n}"))).await;
    }
    let begun = Instant::now();
    let mut held = server.open(Version::V5);
    let connect = Packet::Connect(Box::new(with_will("held")));
    held.send(connect.clone()).await;
    let mut other = server.open(Version::V5);
    tokio::task::yield_now().await;
    other.send(connect).await;
    assert_eq!(held.receive().await, None, "it is taken over");
    other.vanish().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    server.clean("later").await;
    assert!(server.memory.payloads("will").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_will_waits_once_however_busy_others_of_its_user_are() {
    let server = Server::with_quotas(Quotas::new(of_each_user(Some(1), None))).await;
    let mut busy = JoinSet::new();
    for n in 0..2 {
        let (mut client, _) = server.connect(ann(&format!("busy{n}"))).await;
        busy.spawn(async move {
            loop {
                client.publish("t", "x", 1).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (_client, connack) = server.connect(with_will("c")).await;
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn a_will_waits_for_half_a_minute_at_most_and_one_that_is_refused_counts_as_none() {
    let quotas = Quotas::new(of_each_user(Some(1), Some(1_000)));
    let server = Server::with_quotas(quotas.clone()).await;
    // Its own bytes are made up for when it is connected.
    let large = Connect {
        password: Some(Bytes::from(vec![b'x'; 46_000])),
        ..with_will("large")
    };
    let begun = Instant::now();
    let (_large, connack) = server.connect(large).await;
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    for (version, code) in [(Version::V5, 0x97), (Version::V311, 3)] {
        for _ in 0..30 {
            let connect = Connect {
                version,
                ..with_will("c")
            };
            let (_, connack) = server.connect(connect).await;
            assert_eq!(connack.reason_code, ReasonCode(code));
        }
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(quotas.counts().refused, 60);
    // Of those who were refused the bytes count, and no will does.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let (client, connack) = server.connect(with_will("c")).await;
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    assert!(begun.elapsed() >= Duration::from_secs(45));
    client.vanish().await;
    server.clean("later").await;
    assert_eq!(server.memory.payloads("will").len(), 1);
}
