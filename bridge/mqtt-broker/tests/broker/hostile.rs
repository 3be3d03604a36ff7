//! Input that no client sends, and that must cost the server nothing but the connection.

use crate::client::*;
use bytes::BytesMut;
use mqtt_codec::*;
use std::time::Duration;
use tokio::time::timeout;

/// A small generator: the same bytes on every run of a seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_closes_the_connection_and_nothing_else() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0x1234_5678_9abc_u64);
    println!("SEED={seed}");
    let mut noise = Noise(seed);
    let server = Server::start().await;
    let mut witness = server.clean("witness").await;
    for round in 0..300 {
        let mut client = if round % 2 == 0 {
            server.open(Version::V5)
        } else {
            server.clean("victim").await
        };
        let bytes: Vec<u8> = (0..noise.next() % 200)
            .map(|_| noise.next() as u8)
            .collect();
        client.send_bytes(&bytes).await;
        client.vanish().await;
    }
    witness.send(Packet::PingReq).await;
    assert_eq!(witness.receive().await, Some(Packet::PingResp));
    assert_eq!(
        server
            .broker
            .metrics()
            .connections
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn lengths_are_believed_only_up_to_the_limits() {
    let server = Server::start().await;
    let mut early = server.open(Version::V5);
    early.send_bytes(b"\x10\xff\xff\xff\x7f").await;
    assert_eq!(early.receive().await, None);
    for (bytes, code) in [
        (&b"\x30\xff\xff\xff\x7f"[..], ReasonCode::PACKET_TOO_LARGE),
        (b"\x30\xff\xff\xff\xff", ReasonCode::MALFORMED_PACKET),
        (b"\x30\x04\x00\x09ab", ReasonCode::MALFORMED_PACKET),
        (b"\x30\x04\x00\x01#\x00", ReasonCode::TOPIC_NAME_INVALID),
        (b"\x36\x00", ReasonCode::MALFORMED_PACKET),
        (b"\x00\x00", ReasonCode::MALFORMED_PACKET),
        (b"\x80\x00", ReasonCode::MALFORMED_PACKET),
        (b"\x82\x03\x00\x01\x00", ReasonCode::PROTOCOL_ERROR),
        (b"\x20\x03\x00\x00\x00", ReasonCode::PROTOCOL_ERROR),
        (b"\xf0\x00", ReasonCode::PROTOCOL_ERROR),
    ] {
        let mut client = server.clean("c").await;
        client.send_bytes(bytes).await;
        client.closed_with(code).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_may_come_one_by_one() {
    let server = Server::start().await;
    let mut client = server.open(Version::V311);
    for byte in b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a\xc0\x00" {
        client.send_bytes(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(matches!(client.receive().await, Some(Packet::ConnAck(_))));
    assert_eq!(client.receive().await, Some(Packet::PingResp));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_not_read_while_its_answers_wait_for_a_save() {
    const ACKS: usize = 100_000;
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("t", 2).await;
    server.clean("s").await.publish("t", "x", 2).await;
    let first = client.receive_publish().await.packet_id.expect("an id");
    server.memory.saves_wait.send_replace(true);
    let mut flood = BytesMut::new();
    for _ in 0..ACKS {
        let ack = Packet::PubRec(Ack::success(first));
        encode(&ack, Version::V311, &mut flood);
    }
    // So much is in the socket, and what the server has taken from it.
    let mut sent = 0;
    while let Some(some) = flood.chunks(1_000).nth(sent) {
        let sending = client.send_bytes(some);
        if timeout(Duration::from_secs(1), sending).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 300, "the server took {sent} of 400 KB");
    server.memory.saves_wait.send_replace(false);
    for _ in 0..sent * 250 {
        let released = Some(Packet::PubRel(Ack::success(first)));
        assert_eq!(client.receive().await, released);
    }
}
