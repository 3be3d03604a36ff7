//! DISCONNECT (section 3.14).

use super::*;
use mqtt_broker::backend::PublishError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// [MQTT-3.14.4-3]; with 0x04 it is published
#[tokio::test(start_paused = true)]
async fn a_normal_disconnect_takes_the_will_away() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("will/#", 1).await;
    for version in BOTH {
        for code in [0x00, 0x04, 0x80] {
            let with = Connect {
                will: will("will/x", 0),
                ..lasting(version, "c")
            };
            let (mut client, _) = server.connect(with).await;
            client
                .send(Packet::Disconnect(Disconnect::new(ReasonCode(code))))
                .await;
            assert_eq!(client.receive().await, None, "the server closes too");
            if version == Version::V5 && code != 0 {
                assert_eq!(watcher.take().await, "gone", "{code:02x}");
            }
            tokio::time::sleep(Duration::from_secs(2000)).await;
            watcher.nothing().await;
        }
    }
}

fn goodbye(code: u8, session_expiry_interval: Option<u32>) -> Packet {
    let properties = Properties {
        session_expiry_interval,
        ..Properties::default()
    };
    Packet::Disconnect(Disconnect {
        reason_code: ReasonCode(code),
        properties,
    })
}

/// [MQTT-3.14.4-3]: a DISCONNECT that waits until the disk has what came before it counts, also where the client is back sooner
#[tokio::test(start_paused = true)]
async fn a_disconnect_counts_although_the_client_comes_back_before_it_is_looked_at() {
    for (version, code, expiry) in [
        (Version::V311, 0x00, None),
        (Version::V5, 0x00, Some(0)),
        (Version::V5, 0x00, None),
        (Version::V5, 0x04, Some(0)),
    ] {
        let server = Server::start().await;
        let mut watcher = server.clean("w").await;
        watcher.subscribe("will/#", 1).await;
        let with_will = Connect {
            will: will("will/x", 0),
            ..lasting(version, "c")
        };
        let (mut client, _) = server.connect(with_will).await;
        server.memory.hold(true);
        client.send(packed(numbered(1, "t", "x", 1))).await;
        client.send(goodbye(code, expiry)).await;
        let back = server.connect(lasting(version, "c"));
        let stored = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(server.memory.held(), 1);
            server.memory.hold(false);
        };
        let ((_client, connack), ()) = tokio::join!(back, stored);
        assert_eq!(connack.session_present, expiry.is_none(), "{code:02x}");
        if code == 0x04 {
            assert_eq!(watcher.take().await, "gone");
        }
        watcher.nothing().await;
        let answer = Packet::PubAck(Ack::success(id(1)));
        assert_eq!(client.receive().await, Some(answer));
        assert_eq!(client.receive().await, None, "it has said goodbye itself");
    }
}

/// The same where something else ends the connection, and where the DISCONNECT is behind another packet that waits
#[tokio::test(start_paused = true)]
async fn a_disconnect_counts_although_the_connection_ends_of_itself_before_it_is_looked_at() {
    for (version, between) in [
        (Version::V311, Vec::new()),
        (Version::V5, vec![subscribe(2, &[("t", 1)])]),
        (Version::V5, vec![unsubscribe(2, &["t"]), Packet::PingReq]),
    ] {
        let server = Server::start().await;
        let connect = Connect {
            will: will("will/x", 0),
            ..clean(version, "c")
        };
        let (mut client, _) = server.connect(connect).await;
        server.memory.hold(true);
        let mut bytes = bytes::BytesMut::new();
        let first = packed(numbered(1, "t", "x", 1));
        for packet in [vec![first], between, vec![goodbye(0, None)]].concat() {
            encode(&packet, version, &mut bytes);
        }
        client.send_bytes(&bytes).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let failed = |_: &_| Err(PublishError::Unavailable("the disk is gone".into()));
        server.memory.commit(1, failed);
        assert_eq!(client.receive().await, None);
        server.memory.hold(false);
        client.vanish().await;
        assert!(server.memory.payloads("will").is_empty());
    }
}

/// The same where the client does not take what waits for it: its socket is not read, and it is gone before there is room
#[tokio::test(start_paused = true)]
async fn a_disconnect_counts_although_there_was_no_room_to_read_it() {
    for (version, ending) in BOTH
        .into_iter()
        .flat_map(|v| [(v, "gone"), (v, "back"), (v, "stop")])
    {
        let server = Server::start().await;
        let connect = Connect {
            will: will("will/x", 0),
            ..lasting(version, "c")
        };
        let (mut client, _) = server.connect(connect).await;
        client.subscribe("t", 0).await;
        let mut sender = server.clean("s").await;
        for _ in 0..40 {
            sender.publish("t", &"x".repeat(16 * 1024), 1).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // What comes before it was not taken, and has no answer.
        let large = "y".repeat(20 * 1024);
        client.send(packed(numbered(700, "q", &large, 1))).await;
        match ending {
            "gone" => client.disconnect().await,
            "back" => {
                client.send(goodbye(0, None)).await;
                server.connect(lasting(version, "c")).await;
                client.vanish().await;
            }
            _ => {
                client.send(goodbye(0, None)).await;
                server.shutdown.cancel();
                client.vanish().await;
            }
        }
        let wills = server.memory.payloads("will");
        assert!(wills.is_empty(), "{version:?}, {ending}");
        assert!(server.memory.payloads("q").is_empty());
    }
}

/// [MQTT-3.14.4-1], [MQTT-3.14.4-2]: what comes behind a DISCONNECT is not looked at
#[tokio::test(start_paused = true)]
async fn nothing_behind_a_disconnect_is_looked_at() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        let mut bytes = bytes::BytesMut::new();
        encode(
            &Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS)),
            version,
            &mut bytes,
        );
        encode(&packed(numbered(1, "t", "x", 1)), version, &mut bytes);
        client.send_bytes(&bytes).await;
        assert_eq!(client.receive().await, None);
        assert!(server.memory.payloads("t").is_empty());
    }
}

/// What came before the DISCONNECT is stored, although nobody waits for the PUBACK
#[tokio::test(start_paused = true)]
async fn what_comes_before_a_disconnect_is_stored() {
    let server = Server::start().await;
    for (n, version) in BOTH.into_iter().enumerate() {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        for packet_id in 1..=100 {
            client.send(packed(numbered(packet_id, "t", "x", 1))).await;
        }
        client.disconnect().await;
        assert_eq!(server.memory.payloads("t").len(), 100 * (n + 1));
    }
}

/// [MQTT-3.14.4-1], [MQTT-3.14.4-2], [MQTT-3.14.2-2] of 5: the server's own DISCONNECT is its last word and has no session expiry
#[tokio::test(start_paused = true)]
async fn the_servers_disconnect_is_its_last_word() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
    client.subscribe("t", 1).await;
    let mut sender = server.clean("s").await;
    let mut bytes = bytes::BytesMut::new();
    encode(&Packet::PingReq, Version::V5, &mut bytes);
    bytes.extend_from_slice(b"\x36\x00");
    encode(&Packet::PingReq, Version::V5, &mut bytes);
    client.send_bytes(&bytes).await;
    sender.publish("t", "x", 1).await;
    let mut last = None;
    while let Some(packet) = client.receive().await {
        assert!(
            !matches!(last, Some(Packet::Disconnect(_))),
            "{packet:?} after DISCONNECT"
        );
        last = Some(packet);
    }
    let Some(Packet::Disconnect(disconnect)) = last else {
        panic!("no DISCONNECT but {last:?}")
    };
    assert_eq!(disconnect.reason_code, ReasonCode::MALFORMED_PACKET);
    assert_eq!(disconnect.properties.session_expiry_interval, None);
}

/// [MQTT-3.14.2-1]: 0x88 is of CONNACK only. What failed is not told
#[tokio::test(start_paused = true)]
async fn storage_that_fails_is_said_in_a_code_of_disconnect() {
    let server = Server::start().await;
    for publishes in [true, false] {
        let (mut client, _) = server.connect(lasting(Version::V5, "c")).await;
        if publishes {
            server.memory.hold(true);
            client.send(packed(numbered(1, "t", "x", 1))).await;
            client.nothing().await;
            let failed = |_: &_| Err(PublishError::Unavailable("disk 7 is gone".into()));
            server.memory.commit(1, failed);
            server.memory.hold(false);
        } else {
            server.memory.broken.store(true, Ordering::Relaxed);
            client.send(subscribe(2, &[("t", 1)])).await;
        }
        let busy = ReasonCode::SERVER_BUSY;
        let said = Some(busy.text().to_owned());
        let goodbye = Packet::Disconnect(Disconnect::new(busy));
        assert_eq!(client.receive_explained().await, Some((goodbye, said)));
        assert_eq!(client.receive().await, None);
    }
}

/// Section 3.14.2.2.2: a session may be made shorter or longer, not made out of nothing
#[tokio::test(start_paused = true)]
async fn disconnect_may_change_the_session_expiry() {
    for (connect, disconnect, away, there) in [
        (1000, 10, 9, true),
        (1000, 10, 11, false),
        (10, 1000, 900, true),
        (1000, 0, 0, false),
    ] {
        let server = Server::start().await;
        let with = |seconds| Connect {
            properties: Properties {
                session_expiry_interval: Some(seconds),
                ..Properties::default()
            },
            ..lasting(Version::V5, "c")
        };
        let (mut client, _) = server.connect(with(connect)).await;
        let properties = Properties {
            session_expiry_interval: Some(disconnect),
            ..Properties::default()
        };
        let reason_code = ReasonCode::SUCCESS;
        client
            .send(Packet::Disconnect(Disconnect {
                reason_code,
                properties,
            }))
            .await;
        client.vanish().await;
        tokio::time::sleep(Duration::from_secs(away)).await;
        let (_, connack) = server.connect(with(1000)).await;
        assert_eq!(
            connack.session_present, there,
            "{connect}, {disconnect}, {away}"
        );
    }
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let properties = Properties {
        session_expiry_interval: Some(1),
        ..Properties::default()
    };
    client
        .send(Packet::Disconnect(Disconnect {
            reason_code: ReasonCode::SUCCESS,
            properties,
        }))
        .await;
    client.closed_with(ReasonCode::PROTOCOL_ERROR).await;
}

/// [MQTT-3.14.1-1]
#[tokio::test(start_paused = true)]
async fn reserved_bits_of_disconnect() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.send_bytes(b"\xe1\x00").await;
        match version {
            Version::V5 => client.closed_with(ReasonCode::MALFORMED_PACKET).await,
            _ => assert_eq!(client.receive().await, None),
        }
    }
}
