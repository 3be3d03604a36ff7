use crate::client::*;
use bytes::BytesMut;
use mqtt_codec::*;
use mqtt_session::{ClientId, Session};
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("will/#", 1).await;
    let (polite, _) = server
        .connect(Connect {
            will: will("will/polite", 0),
            ..v311("a")
        })
        .await;
    polite.disconnect().await;
    watcher.nothing().await;
    let (lost, _) = server
        .connect(Connect {
            will: will("will/lost", 0),
            ..v311("a")
        })
        .await;
    lost.vanish().await;
    assert_eq!(
        watcher.receive_publish().await.topic,
        Some(topic("will/lost"))
    );
    // 0x04: goodbye, but with the will.
    let (mut wishing, _) = server
        .connect(Connect {
            will: will("will/wish", 0),
            ..v5("b")
        })
        .await;
    wishing
        .send(Packet::Disconnect(Disconnect::new(
            ReasonCode::DISCONNECT_WITH_WILL_MESSAGE,
        )))
        .await;
    assert_eq!(
        watcher.receive_publish().await.topic,
        Some(topic("will/wish"))
    );
}

/// mosquitto's bridges have such a will, where nobody told them not to.
#[tokio::test(start_paused = true)]
async fn a_bridge_of_mosquitto_gets_in_with_its_will_and_others_do_not_speak_for_the_server() {
    let server = Server::start().await;
    for (topic_name, code) in [
        ("$SYS/broker/connection/bridge/state", ReasonCode::SUCCESS),
        ("$SYS/broker/uptime", ReasonCode::TOPIC_NAME_INVALID),
    ] {
        let connect = Connect {
            will: will(topic_name, 0),
            ..v5("a")
        };
        let (client, connack) = server.connect(connect).await;
        assert_eq!(connack.reason_code, code, "{topic_name}");
        client.vanish().await;
    }
    assert!(server.memory.payloads("$SYS").is_empty());
}

pub fn lasting(id: &str, expiry: u32, delay: u32) -> Connect {
    let properties = Properties {
        session_expiry_interval: Some(expiry),
        ..Properties::default()
    };
    Connect {
        properties,
        clean_start: false,
        will: will("will/x", delay),
        ..v5(id)
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_tells_that_the_will_is_gone_for_good() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(lasting("a", 60, 5)).await;
    client
        .send(Packet::Disconnect(Disconnect::new(
            ReasonCode::NORMAL_DISCONNECTION,
        )))
        .await;
    assert_eq!(client.receive().await, None);
    // What a process that dies now leaves behind.
    let saved = server.memory.stored_session("a").expect("it is stored");
    let session = Session::from_bytes(ClientId::new("a"), saved.bytes).unwrap();
    assert!(!session.has_will());
}

#[tokio::test(start_paused = true)]
async fn the_will_delay() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("will/#", 1).await;
    let started = tokio::time::Instant::now();
    let (client, _) = server.connect(lasting("a", 1000, 30)).await;
    client.vanish().await;
    // Back in time: no will [MQTT-3.1.3-9].
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (client, _) = server.connect(lasting("a", 1000, 30)).await;
    watcher.nothing().await;
    client.vanish().await;
    watcher.take().await;
    assert!(started.elapsed() >= Duration::from_secs(50));
    // The end of the session comes before the delay is over.
    let (client, _) = server.connect(lasting("b", 10, 3000)).await;
    client.vanish().await;
    let before = started.elapsed();
    watcher.take().await;
    assert!(started.elapsed() - before < Duration::from_secs(20));
}

/// [MQTT-3.1.2-7], [MQTT-3.1.2-8], [MQTT-3.1.4-3] of 5, [MQTT-3.1.2-8] of 3.1.1: the older connection ends by the newer one, and its session or not
#[tokio::test(start_paused = true)]
async fn the_will_of_a_connection_that_is_taken_over() {
    let old = Connect {
        clean_start: false,
        will: will("will/x", 0),
        ..v311("a")
    };
    for (older, clean_start, published) in [
        (lasting("a", 1000, 0), false, true),
        (lasting("a", 1000, 0), true, true),
        (lasting("a", 1000, 30), false, false),
        (lasting("a", 1000, 30), true, true),
        (lasting("a", 0, 30), false, true), // its session ends with it
        (old.clone(), false, true),
        (old, true, true),
    ] {
        let server = Server::start().await;
        let mut watcher = server.clean("w").await;
        watcher.subscribe("will/#", 1).await;
        let newer = Connect {
            clean_start,
            will: None,
            ..older.clone()
        };
        let (mut first, _) = server.connect(older).await;
        watcher.nothing().await;
        let (mut second, _) = server.connect(newer.clone()).await;
        let said = format!("{newer:?}");
        if published {
            let got = tokio::time::timeout(Duration::from_secs(1), watcher.take());
            assert_eq!(got.await.as_deref(), Ok("gone"), "{said}");
        }
        // Neither later nor again.
        tokio::time::sleep(Duration::from_secs(2000)).await;
        watcher.nothing().await;
        match newer.version {
            Version::V5 => first.closed_with(ReasonCode::SESSION_TAKEN_OVER).await,
            _ => assert_eq!(first.receive().await, None, "{said}"),
        }
        second.send(Packet::PingReq).await;
        assert_eq!(second.receive().await, Some(Packet::PingResp));
        second.vanish().await;
        watcher.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_survives_the_process() {
    let server = Server::start().await;
    let (client, _) = server.connect(lasting("a", 1000, 0)).await;
    client.kill_server_side().await;
    let server = Server::over(server.memory, Default::default()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.memory.payloads("will").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_a_clean_start_ends_is_there_until_its_will_is() {
    let server = Server::start().await;
    let (client, _) = server.connect(lasting("a", 1000, 30)).await;
    client.vanish().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.memory.hold(true);
    let clean = server.connect(v5("a"));
    let published = async {
        while server.memory.held() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What a process that dies now leaves behind: the will is published after the start.
        let saved = server.memory.stored_session("a").expect("it is stored");
        let session = Session::from_bytes(ClientId::new("a"), saved.bytes).unwrap();
        assert!(session.has_will());
        server.memory.hold(false);
    };
    let ((_client, connack), ()) = tokio::join!(clean, published);
    assert!(!connack.session_present);
    assert_eq!(server.memory.payloads("will").len(), 1);
    assert_eq!(server.memory.stored_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_taken_away_ends_with_its_will() {
    let server = Server::start().await;
    let (client, _) = server.connect(lasting("a", 1000, 30)).await;
    client.vanish().await;
    let id = ClientId::new("a");
    assert_eq!(server.broker.delete_session(&id).await, Ok(true));
    assert_eq!(server.memory.payloads("will").len(), 1);
    assert_eq!(server.memory.stored_sessions(), 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.memory.payloads("will").len(), 1, "and once only");
}

#[tokio::test(start_paused = true)]
async fn keep_alive() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("will/#", 1).await;
    let connect = Connect {
        keep_alive: 10,
        will: will("will/k", 0),
        ..v5("c")
    };
    let (mut client, _) = server.connect(connect).await;
    let started = tokio::time::Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(14)).await;
        client.send(Packet::PingReq).await;
        assert_eq!(client.receive().await, Some(Packet::PingResp));
    }
    client.closed_with(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
    let alive = started.elapsed();
    assert!(
        (57..58).contains(&alive.as_secs()),
        "one and a half periods after the last packet: {alive:?}"
    );
    watcher.take().await;
}

/// Its end of the connection is never shut.
struct Unshut(DuplexStream);

impl AsyncRead for Unshut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Unshut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_while_a_connection_still_ends_is_done_after_it() {
    for (expiry, delay, published) in [(60, 1, 1), (1, 0, 1), (1, 60, 1)] {
        let server = Server::start().await;
        let (mut near, far) = tokio::io::duplex(4096);
        let broker = server.broker.clone();
        let serving = tokio::spawn(async move { broker.serve(Unshut(far)).await });
        let connect = Packet::Connect(Box::new(lasting("a", expiry, delay)));
        let mut out = BytesMut::new();
        encode(&connect, Version::V5, &mut out);
        near.write_all(&out).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(server.memory.stored_session("a").is_some());
        server.memory.slow.store(1500, Relaxed);
        assert!(server.broker.kick(&ClientId::new("a")));
        serving.await.unwrap();
        server.memory.slow.store(0, Relaxed);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let will = server.memory.payloads("will").len();
        assert_eq!(will, published, "{expiry} {delay}");
        let is_over = server.memory.stored_session("a").is_none();
        assert_eq!(is_over, expiry < 60, "{expiry} {delay}");
    }
}

/// Each is a write that waits for the disk: one after the other, ten thousand take minutes.
#[tokio::test(start_paused = true)]
async fn after_a_restart_many_sessions_and_wills_go_to_the_disk_together() {
    const CLIENTS: u64 = 150;
    const SLOW_MS: u64 = 1000;
    let server = Server::start().await;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let connect = lasting(&format!("c{n}"), 10_000, 1_000);
        clients.push(server.connect(connect).await.0);
    }
    for client in clients {
        client.kill_server_side().await;
    }
    server.memory.slow.store(SLOW_MS, Relaxed);
    let part = Duration::from_millis(CLIENTS * SLOW_MS) / 10;
    let began = Instant::now();
    let server = Server::over(server.memory, Default::default()).await;
    assert!(began.elapsed() < part, "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    tokio::time::sleep(part).await;
    assert_eq!(server.memory.payloads("will").len() as u64, CLIENTS);
}
