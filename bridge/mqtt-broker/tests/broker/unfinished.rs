//! Packets whose rest is to come: all connections together have so much room for them.

use crate::client::*;
use crate::memory::Memory;
use bytes::{Bytes, BytesMut};
use mqtt_broker::Limits;
use mqtt_broker::extra::Extra;
use mqtt_codec::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The largest packet, and what a broker has for unfinished ones, so that one of those fits.
const LARGEST: usize = 1 << 20;

async fn server(unfinished_bytes: usize) -> Server {
    let limits = Limits {
        maximum_packet_size: LARGEST as u32,
        ..Limits::default()
    };
    let extra = Extra {
        unfinished_bytes,
        sys_interval: None,
        ..Extra::default()
    };
    Server::extended(Arc::new(Memory::new()), limits, extra).await
}

fn bytes(packet: Packet, version: Version) -> Bytes {
    let mut out = BytesMut::new();
    encode(&packet, version, &mut out);
    out.freeze()
}

/// PUBLISH, nearly as large as it may be.
fn large(version: Version) -> Bytes {
    let packet = Publish {
        packet_id: Some(id(1)),
        payload: Bytes::from(vec![b'x'; LARGEST - 100]),
        ..publish("t", "", 1)
    };
    bytes(Packet::Publish(Box::new(packet)), version)
}

/// CONNECT of nearly 200 KiB.
fn large_connect(id: &str) -> Bytes {
    let long = "x".repeat(65_000);
    let connect = Connect {
        user_name: Some(long.clone()),
        password: Some(Bytes::from(long.clone())),
        will: Some(Will {
            payload: Bytes::from(long),
            ..will("t", 0).expect("a will")
        }),
        ..v5(id)
    };
    bytes(Packet::Connect(Box::new(connect)), Version::V5)
}

async fn acknowledged(client: &mut Client) {
    let acknowledged = Packet::PubAck(Ack::success(id(1)));
    assert_eq!(client.receive().await, Some(acknowledged));
}

/// Until the server has read what there is.
async fn read() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_leave_large_packets_unfinished_share_the_room() {
    let server = server(LARGEST * 4 / 3).await;
    let packet = large(Version::V5);
    let mut first = server.clean("first").await;
    first.send_bytes(&packet[..40_000]).await;
    read().await;
    // For what is small there is always room: a packet, and the beginning of a large one.
    let mut small = server.clean("small").await;
    small.publish("t", &"x".repeat(30_000), 1).await;
    small.send_bytes(&packet[..30_000]).await;
    read().await;
    let mut second = server.clean("second").await;
    second.send_bytes(&packet[..40_000]).await;
    second.closed_with(ReasonCode::QUOTA_EXCEEDED).await;
    let (mut old, _) = server.connect(v311("old")).await;
    old.send_bytes(&large(Version::V311)[..40_000]).await;
    assert_eq!(old.receive().await, None);
    // Who has room has it for the whole packet.
    first.send_bytes(&packet[40_000..]).await;
    acknowledged(&mut first).await;
    small.send_bytes(&packet[30_000..]).await;
    acknowledged(&mut small).await;
    // It is given back by who leaves in the middle, too.
    let mut third = server.clean("third").await;
    third.send_bytes(&packet[..500_000]).await;
    third.vanish().await;
    let mut fourth = server.clean("fourth").await;
    for _ in 0..3 {
        fourth.send_bytes(&packet).await;
        acknowledged(&mut fourth).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_packet_that_is_allowed_has_room_in_every_broker() {
    let server = server(1).await;
    let mut client = server.clean("c").await;
    client.send_bytes(&large(Version::V5)).await;
    acknowledged(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_packet_has_room_in_a_broker_as_it_is() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    client.publish("t", &"x".repeat(8 << 20), 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_yet_shares_less_room() {
    let server = server(LARGEST).await;
    let mut first = server.open(Version::V5);
    first.send_bytes(&large_connect("first")[..100_000]).await;
    read().await;
    let mut second = server.open(Version::V5);
    let begun = Instant::now();
    second.send_bytes(&large_connect("second")[..40_000]).await;
    assert_eq!(second.receive().await, None);
    assert_eq!(begun.elapsed(), Duration::ZERO, "closed at once");
    // Who is known has its own.
    let mut known = server.clean("known").await;
    known.send_bytes(&large(Version::V5)).await;
    acknowledged(&mut known).await;
    for part in [&large_connect("first")[100_000..], &large_connect("third")] {
        first.send_bytes(part).await;
        match first.receive().await {
            Some(Packet::ConnAck(connack)) => assert_eq!(connack.reason_code, ReasonCode::SUCCESS),
            other => panic!("no CONNACK but {other:?}"),
        }
        first = server.open(Version::V5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_packet_whose_rest_does_not_come_is_not_waited_for_for_ever() {
    let server = server(LARGEST).await;
    let mut idle = server.clean("idle").await;
    let mut client = server.clean("c").await;
    let packet = large(Version::V5);
    for part in packet.chunks(300_000).take(3) {
        client.send_bytes(part).await;
        sleep(Duration::from_secs(50)).await;
    }
    let begun = Instant::now();
    client.closed_with(ReasonCode::QUOTA_EXCEEDED).await;
    assert!(begun.elapsed() <= Duration::from_secs(60));
    idle.publish("t", "x", 1).await;
}

#[tokio::test(start_paused = true)]
async fn nor_is_one_that_comes_a_byte_now_and_then() {
    let server = server(LARGEST).await;
    let mut client = server.clean("c").await;
    let packet = large(Version::V5);
    let (first, rest) = packet.split_at(100_000);
    client.send_bytes(first).await;
    let mut bytes = rest.chunks(1).take(50);
    let said = loop {
        client.send_bytes(bytes.next().expect("an answer")).await;
        let answer = timeout(Duration::from_secs(50), client.receive());
        if let Ok(said) = answer.await {
            break said;
        }
    };
    let full = Disconnect::new(ReasonCode::QUOTA_EXCEEDED);
    assert_eq!(said, Some(Packet::Disconnect(full)));
}
