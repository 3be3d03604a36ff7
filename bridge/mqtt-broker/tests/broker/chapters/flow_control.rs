//! Flow control (section 4.9) towards the client; what the client may send is in `connecting.rs`.

use super::*;

/// [MQTT-4.9.0-1], [MQTT-4.9.0-2], [MQTT-3.3.4-9]: never more than the client's Receive Maximum, which only PUBACK, PUBCOMP and a
/// refusing PUBREC give back
#[tokio::test(start_paused = true)]
async fn receive_maximum_counts_what_is_not_acknowledged() {
    for maximum in [1u16, 2, 5] {
        let server = Server::start().await;
        let properties = Properties {
            receive_maximum: Some(maximum),
            ..Properties::default()
        };
        let (mut client, _) = server
            .connect(Connect {
                properties,
                ..v5("c")
            })
            .await;
        client.subscribe("t", 2).await;
        let mut sender = server.clean("s").await;
        for n in 0..40u8 {
            sender.publish("t", &n.to_string(), n % 2 + 1).await;
        }
        // Packet ids in flight, and how far the answering of the oldest is.
        let mut open = std::collections::VecDeque::new();
        let (mut came, mut done) = (0, 0);
        while done < 40 {
            while let Some(packet) = soon(&mut client).await {
                match packet {
                    Packet::Publish(got) => {
                        assert_eq!(got.payload, came.to_string());
                        came += 1;
                        open.push_back((got.packet_id.expect("an id"), got.qos));
                        assert!(open.len() <= usize::from(maximum));
                    }
                    Packet::PubRel(ack) => {
                        assert_eq!(open.pop_front().map(|(id, _)| id), Some(ack.packet_id));
                        done += 1;
                        client.send(Packet::PubComp(ack)).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(
                open.len() == usize::from(maximum) || came == 40,
                "as many as may be"
            );
            match open.front() {
                None => {}
                Some((packet_id, QoS::AtLeastOnce)) => {
                    client.send(Packet::PubAck(Ack::success(*packet_id))).await;
                    open.pop_front();
                    done += 1;
                }
                Some((packet_id, _)) if done % 3 == 0 => {
                    let no = Ack::new(*packet_id, ReasonCode::UNSPECIFIED_ERROR);
                    client.send(Packet::PubRec(no)).await;
                    open.pop_front();
                    done += 1;
                }
                Some((packet_id, _)) => {
                    client.send(Packet::PubRec(Ack::success(*packet_id))).await;
                }
            }
        }
    }
}

/// [MQTT-3.3.4-10], [MQTT-4.9.0-3]: the other packets go on
#[tokio::test(start_paused = true)]
async fn only_publishes_wait_for_the_receive_maximum() {
    let server = Server::start().await;
    let properties = Properties {
        receive_maximum: Some(1),
        ..Properties::default()
    };
    let (mut client, _) = server
        .connect(Connect {
            properties,
            ..v5("c")
        })
        .await;
    client.subscribe("t", 1).await;
    let mut sender = server.clean("s").await;
    for _ in 0..10 {
        sender.publish("t", "x", 1).await;
    }
    let first = client.receive_publish().await;
    client.send(Packet::PingReq).await;
    assert_eq!(client.receive().await, Some(Packet::PingResp));
    client.subscribe("other", 1).await;
    client.publish("elsewhere", "x", 2).await;
    client.unsubscribe("other").await;
    client.nothing().await;
    client
        .send(Packet::PubAck(Ack::success(
            first.packet_id.expect("an id"),
        )))
        .await;
    client.receive_publish().await;
}

fn lasting_with(receive_maximum: u16) -> Connect {
    let mut connect = lasting(Version::V5, "c");
    connect.properties.receive_maximum = Some(receive_maximum);
    connect
}

/// [MQTT-3.3.4-10], [MQTT-4.9.0-3] after a reconnect: PUBREL does not wait, and what was sent before goes before what was not
#[tokio::test(start_paused = true)]
async fn pubrel_that_is_sent_again_does_not_wait_for_the_receive_maximum() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(lasting_with(10)).await;
    client.subscribe("t", 2).await;
    let mut sender = server.clean("s").await;
    let mut ids = Vec::new();
    for (n, qos) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
        sender.publish("t", &n.to_string(), qos).await;
        let packet_id = client.receive_publish().await.packet_id.expect("an id");
        ids.push(packet_id);
        if qos == 2 {
            client.send(Packet::PubRec(Ack::success(packet_id))).await;
            let pubrel = Packet::PubRel(Ack::success(packet_id));
            assert_eq!(client.receive().await, Some(pubrel));
        }
    }
    client.vanish().await;
    sender.publish("t", "4", 1).await;
    let (mut client, _) = server.connect(lasting_with(1)).await;
    let released = [Ack::success(ids[1]), Ack::success(ids[3])];
    for ack in &released {
        assert_eq!(client.receive().await, Some(Packet::PubRel(ack.clone())));
    }
    for ack in released {
        client.nothing().await;
        client.send(Packet::PubComp(ack)).await;
    }
    for (n, dup) in [(0, true), (2, true), (4, false)] {
        let got = client.receive_publish().await;
        assert_eq!((got.payload, got.dup), (n.to_string().into(), dup));
        client.nothing().await;
        let packet_id = got.packet_id.expect("an id");
        client.send(Packet::PubAck(Ack::success(packet_id))).await;
    }
}

/// [MQTT-3.3.4-9] after a reconnect: what is sent again counts too
#[tokio::test(start_paused = true)]
async fn what_is_sent_again_counts_too() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(lasting_with(10)).await;
    client.subscribe("t", 1).await;
    let mut sender = server.clean("s").await;
    for n in 0..10 {
        sender.publish("t", &n.to_string(), 1).await;
    }
    for _ in 0..10 {
        client.receive_publish().await;
    }
    client.vanish().await;
    let (mut client, _) = server.connect(lasting_with(3)).await;
    let mut open = std::collections::VecDeque::new();
    for n in 0..10 {
        if n >= 3 {
            client.nothing().await;
            let oldest = open.pop_front().expect("three are open");
            client.send(Packet::PubAck(Ack::success(oldest))).await;
        }
        let got = client.receive_publish().await;
        assert!(got.dup && got.payload == n.to_string());
        open.push_back(got.packet_id.expect("an id"));
    }
}
