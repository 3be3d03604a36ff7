//! PINGREQ (section 3.12).

use super::*;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Many: who is closed without need is so now and then only.
async fn with_keep_alive(server: &Server) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..16 {
        let connect = Connect {
            keep_alive: 10,
            ..lasting(Version::V5, &format!("c{n}"))
        };
        clients.push(server.connect(connect).await.0);
    }
    clients
}

async fn still_there(clients: &mut [Client]) {
    for client in clients {
        loop {
            match client.receive().await {
                Some(Packet::PingResp) => break,
                Some(Packet::PubAck(_) | Packet::SubAck(_) | Packet::Publish(_)) => {}
                other => panic!("no PINGRESP but {other:?}"),
            }
        }
    }
}

/// [MQTT-3.1.2-22]: a client whose PINGREQ nobody has read, because the disk is slow, is not silent
#[tokio::test(start_paused = true)]
async fn who_is_not_read_is_not_silent() {
    let server = Server::start().await;
    // A SUBSCRIBE waits behind a PUBLISH, or for the disk itself.
    for publishes in [true, false] {
        let mut clients = with_keep_alive(&server).await;
        server.memory.hold(publishes);
        server.memory.slow.store(20_000, Ordering::Relaxed);
        for (n, client) in clients.iter_mut().enumerate() {
            if publishes {
                client.send(packed(numbered(1, "x", "x", 1))).await;
            }
            client.send(subscribe(2, &[(&format!("t/{n}"), 0)])).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        for client in &mut clients {
            client.send(Packet::PingReq).await;
        }
        tokio::time::sleep(Duration::from_secs(9)).await;
        server.memory.slow.store(0, Ordering::Relaxed);
        server.memory.hold(false);
        still_there(&mut clients).await;
    }
}

/// [MQTT-3.1.2-22]: and neither is one that is not read because it does not take what waits for it
#[tokio::test(start_paused = true)]
async fn who_is_slow_is_not_silent() {
    let server = Server::start().await;
    let mut clients = with_keep_alive(&server).await;
    for client in &mut clients {
        client.subscribe("t", 0).await;
    }
    let mut sender = server.clean("s").await;
    for _ in 0..40 {
        sender.publish("t", &"x".repeat(16 * 1024), 1).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    for client in &mut clients {
        client.send(Packet::PingReq).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    still_there(&mut clients).await;
}

/// [MQTT-3.12.4-1]
#[tokio::test(start_paused = true)]
async fn a_pingreq_is_answered() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        for _ in 0..3 {
            client.send(Packet::PingReq).await;
            assert_eq!(client.receive().await, Some(Packet::PingResp));
        }
        client.nothing().await;
    }
}

/// [MQTT-4.1.0-2] of 3.1.1, [MQTT-4.1.0-1] of 5: whatever its expiry is
#[tokio::test(start_paused = true)]
async fn a_session_lasts_as_long_as_its_connection() {
    for (version, expiry) in [
        (Version::V311, None),
        (Version::V5, None),
        (Version::V5, Some(1)),
    ] {
        let server = Server::start().await;
        let mut connect = Connect {
            keep_alive: 10,
            ..clean(version, "c")
        };
        connect.properties.session_expiry_interval = expiry;
        let (mut client, _) = server.connect(connect).await;
        client.subscribe("t", 1).await;
        let taken = Packet::PubRec(Ack::success(id(700)));
        client.send(packed(numbered(700, "q", "x", 2))).await;
        assert_eq!(client.receive().await.as_ref(), Some(&taken));
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_secs(14)).await;
            client.send(Packet::PingReq).await;
            assert_eq!(client.receive().await, Some(Packet::PingResp));
        }
        let mut sender = server.clean("s").await;
        sender.publish("t", "x", 1).await;
        assert_eq!(client.take().await, "x");
        client.send(packed(numbered(700, "q", "x", 2))).await;
        assert_eq!(client.receive().await, Some(taken));
        assert_eq!(server.memory.payloads("q").len(), 1, "it is known");
    }
}
