//! What a client is told at the end comes to it, whatever it has sent meanwhile: over real sockets, with which a close can take it back.

use crate::client::*;
use crate::memory::Memory;
use bytes::BytesMut;
use mqtt_broker::Limits;
use mqtt_broker::extra::{Extra, Rates};
use mqtt_codec::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// A connection of `server` on which CONNECT was sent.
async fn connected(server: &Server, connect: Connect) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let broker = server.broker.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        broker.serve(stream).await;
    });
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let mut out = BytesMut::new();
    let version = connect.version;
    encode(&Packet::Connect(Box::new(connect)), version, &mut out);
    stream.write_all(&out).await.expect("to send");
    stream
}

/// All that comes until the stream ends, which it does in order, of a client that has still something to send.
async fn rest(stream: &mut TcpStream) -> Vec<Packet> {
    flood(stream).await;
    sleep(Duration::from_millis(20)).await;
    let error = stream.take_error().expect("a socket");
    assert!(error.is_none(), "{error:?}");
    let mut input = BytesMut::new();
    let reading = async { while stream.read_buf(&mut input).await.expect("no reset") > 0 {} };
    let ended = timeout(Duration::from_secs(5), reading).await;
    ended.expect("an end");
    let mut decoder = Decoder::with_version(Version::V5, usize::MAX);
    let mut packets = Vec::new();
    while let Some(packet) = decoder.decode(&mut input).expect("a packet") {
        packets.push(packet);
    }
    assert!(input.is_empty());
    packets
}

fn said(packet: Option<&Packet>) -> Option<ReasonCode> {
    match packet {
        Some(Packet::Disconnect(disconnect)) => Some(disconnect.reason_code),
        Some(Packet::ConnAck(connack)) => Some(connack.reason_code),
        _ => None,
    }
}

/// 64 KiB of publishes, far more than the server reads of a client at a time.
async fn flood(stream: &mut TcpStream) {
    let mut out = BytesMut::new();
    let packet = Packet::Publish(Box::new(publish("t", &"x".repeat(1_000), 0)));
    while out.len() < 64 * 1024 {
        encode(&packet, Version::V5, &mut out);
    }
    stream.write_all(&out).await.expect("to send");
}

async fn slow_server() -> Server {
    let rates = Rates {
        bytes: Some(1_000),
        ..Rates::default()
    };
    let extra = Extra {
        rates,
        sys_interval: None,
        ..Extra::default()
    };
    Server::extended(Arc::new(Memory::new()), Limits::default(), extra).await
}

#[tokio::test]
async fn a_client_that_sends_much_hears_that_the_server_stops() {
    let server = slow_server().await;
    let mut stream = connected(&server, v5("c")).await;
    // What the server reads at once, and what waits in the socket then.
    for _ in 0..2 {
        flood(&mut stream).await;
        sleep(Duration::from_millis(50)).await;
    }
    server.shutdown.cancel();
    // The last word is there: what is sent from now on comes behind it.
    stream.peek(&mut [0]).await.expect("a last word");
    let packets = rest(&mut stream).await;
    let shutting_down = Some(ReasonCode::SERVER_SHUTTING_DOWN);
    assert_eq!(said(packets.last()), shutting_down);
}

#[tokio::test]
async fn a_client_that_sends_much_hears_that_it_was_taken_over_and_holds_up_nobody() {
    let server = slow_server().await;
    let mut stream = connected(&server, v5("c")).await;
    for _ in 0..2 {
        flood(&mut stream).await;
        sleep(Duration::from_millis(50)).await;
    }
    // The old connection is still open at its other end.
    let _next = server.clean("c").await;
    stream.peek(&mut [0]).await.expect("a last word");
    let packets = rest(&mut stream).await;
    assert_eq!(said(packets.last()), Some(ReasonCode::SESSION_TAKEN_OVER));
}

#[tokio::test]
async fn who_is_refused_and_has_sent_more_hears_why() {
    let server = slow_server().await;
    let mallory = Connect {
        user_name: Some("mallory".into()),
        ..v5("c")
    };
    let mut stream = connected(&server, mallory).await;
    flood(&mut stream).await;
    sleep(Duration::from_millis(50)).await;
    let packets = rest(&mut stream).await;
    assert_eq!(said(packets.first()), Some(ReasonCode::NOT_AUTHORIZED));
}
