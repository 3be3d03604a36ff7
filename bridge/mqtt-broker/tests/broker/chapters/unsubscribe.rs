//! UNSUBSCRIBE and UNSUBACK (sections 3.10, 3.11).

use super::*;

async fn codes(client: &mut Client, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    client.send(unsubscribe(packet_id, filters)).await;
    let Some(Packet::UnsubAck(unsuback)) = client.receive().await else {
        panic!("no UNSUBACK")
    };
    assert_eq!(unsuback.packet_id, id(packet_id));
    unsuback.reason_codes.iter().map(|code| code.0).collect()
}

/// [MQTT-3.10.4-1], [MQTT-3.10.4-4] to [MQTT-3.10.4-6]; [MQTT-3.11.3-1], [MQTT-3.11.3-2] of 5
#[tokio::test(start_paused = true)]
async fn filters_are_compared_character_by_character() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        for filter in ["a/b", "x/+", "A"] {
            client.subscribe(filter, 1).await;
        }
        let got = codes(&mut client, 300, &["a/+", "a/b/", "x/1", "a", "#", "A/"]).await;
        let expected = if version == Version::V5 {
            vec![0x11; 6]
        } else {
            vec![]
        };
        assert_eq!(got, expected, "none of these is there");
        let mut sender = server.clean("s").await;
        for name in ["a/b", "x/1", "A"] {
            sender.publish(name, name, 0).await;
            assert_eq!(client.take().await, name);
        }
        let got = codes(&mut client, 301, &["x/+", "never", "A", "x/+"]).await;
        let expected = if version == Version::V5 {
            vec![0, 0x11, 0, 0x11]
        } else {
            vec![]
        };
        assert_eq!(got, expected);
        for name in ["x/1", "A", "a/b"] {
            sender.publish(name, name, 0).await;
        }
        assert_eq!(client.take().await, "a/b");
        client.nothing().await;
    }
}

/// [MQTT-3.10.4-2], [MQTT-3.10.4-3]
#[tokio::test(start_paused = true)]
async fn what_was_begun_is_completed_and_nothing_new_begins() {
    for version in BOTH {
        for vanish in [false, true] {
            let server = Server::start().await;
            let (mut client, _) = server.connect(lasting(version, "c")).await;
            client.subscribe("t", 2).await;
            let mut sender = server.clean("s").await;
            sender.publish("t", "begun", 2).await;
            let mut got = client.receive_publish().await;
            let packet_id = got.packet_id.expect("an id");
            client.unsubscribe("t").await;
            sender.publish("t", "new", 2).await;
            if vanish {
                client.vanish().await;
                client = server.connect(lasting(version, "c")).await.0;
                got = client.receive_publish().await;
                assert!(got.dup && got.packet_id == Some(packet_id));
            }
            client.send(Packet::PubRec(Ack::success(packet_id))).await;
            assert_eq!(
                client.receive().await,
                Some(Packet::PubRel(Ack::success(packet_id)))
            );
            client.send(Packet::PubComp(Ack::success(packet_id))).await;
            client.nothing().await;
        }
    }
}

/// Gone for good: also for the session when it comes back
#[tokio::test(start_paused = true)]
async fn an_unsubscribe_outlives_the_connection() {
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(lasting(version, "c")).await;
        client.subscribe("t", 1).await;
        client.unsubscribe("t").await;
        client.kill_server_side().await;
        let server = Server::over(server.memory, Default::default()).await;
        let mut sender = server.clean("s").await;
        sender.publish("t", "x", 1).await;
        let (mut client, connack) = server.connect(lasting(version, "c")).await;
        assert!(connack.session_present);
        client.nothing().await;
    }
}

/// [MQTT-3.10.1-1]: nothing is unsubscribed by it either
#[tokio::test(start_paused = true)]
async fn other_flags_than_0010_end_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        for flags in (0u8..16).filter(|flags| *flags != 0b0010) {
            let (mut client, _) = server.connect(lasting(version, "c")).await;
            client.subscribe("t", 1).await;
            let mut bytes = match version {
                Version::V5 => b"\xa2\x06\x00\x01\x00\x00\x01t".to_vec(),
                _ => b"\xa2\x05\x00\x01\x00\x01t".to_vec(),
            };
            bytes[0] = 0xa0 | flags;
            client.send_bytes(&bytes).await;
            match version {
                Version::V5 => client.closed_with(ReasonCode::MALFORMED_PACKET).await,
                _ => assert_eq!(client.receive().await, None, "flags {flags:04b}"),
            }
            let mut sender = server.clean("s").await;
            sender.publish("t", "still subscribed", 1).await;
            let (mut client, connack) = server.connect(lasting(version, "c")).await;
            assert!(connack.session_present);
            assert_eq!(client.take().await, "still subscribed");
            client.disconnect().await;
        }
    }
}
