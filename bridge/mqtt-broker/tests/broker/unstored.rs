//! Topics with `persist = "never"`: what is published to them goes to who is connected, and nothing of it is kept.

use crate::client::*;
use crate::memory::Memory;
use bytes::BytesMut;
use mqtt_broker::Limits;
use mqtt_broker::extra::{Extra, Persist, PersistRules, RetainedLimits};
use mqtt_codec::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Nothing below `live/` is stored, except `live/kept`.
fn live_is_not_stored() -> Extra {
    let rule = |filter, persist| (TopicFilter::new(filter).expect("a filter"), persist);
    Extra {
        persist: PersistRules(vec![
            rule("live/kept", Persist::Always),
            rule("live/#", Persist::Never),
        ]),
        ..Extra::default()
    }
}

async fn server_over(memory: Arc<Memory>, limits: Limits) -> Server {
    Server::extended(memory, limits, live_is_not_stored()).await
}

async fn server() -> Server {
    server_over(Arc::new(Memory::new()), Limits::default()).await
}

fn dropped(server: &Server) -> u64 {
    let metrics = server.broker.metrics();
    metrics.unstored_dropped.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn every_qos_comes_at_once_in_order_and_the_log_has_nothing() {
    let server = server().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("live/+", 2).await;
    // Two filters of one client bring one copy.
    subscriber.subscribe("live/#", 1).await;
    let mut publisher = server.clean("p").await;
    for qos in 0..2 {
        for n in 0..5 {
            let payload = format!("{qos} {n}");
            publisher.publish("live/t", &payload, qos).await;
        }
        for n in 0..5 {
            assert_eq!(subscriber.take().await, format!("{qos} {n}"));
        }
    }
    publisher.publish("live/t", "2", 2).await;
    assert_eq!(subscriber.take().await, "2");
    subscriber.nothing().await;
    assert!(server.memory.payloads("live").is_empty());
    // The first rule that matches decides.
    publisher.publish("live/kept", "kept", 1).await;
    assert_eq!(subscriber.take().await, "kept");
    assert_eq!(server.memory.payloads("live").len(), 1);
    assert_eq!(dropped(&server), 0);
}

#[tokio::test(start_paused = true)]
async fn options_and_identifiers_of_a_subscription_hold() {
    let server = server().await;
    let mut client = server.clean("c").await;
    let own = SubscriptionOptions {
        no_local: true,
        ..Default::default()
    };
    client.subscribe_with("live/own", own, None).await;
    client.publish("live/own", "mine", 1).await;
    client.nothing().await;
    let published = SubscriptionOptions {
        retain_as_published: true,
        ..Default::default()
    };
    client.subscribe_with("live/+/x", published, Some(7)).await;
    let retained = Publish {
        retain: true,
        ..publish("live/a/x", "r", 0)
    };
    client.publish_packet(retained).await;
    let got = client.receive_publish().await;
    assert!(got.retain);
    assert_eq!(got.properties.subscription_identifiers, [7]);
}

#[tokio::test(start_paused = true)]
async fn answers_keep_the_order_of_what_is_stored_and_what_is_not_4_6_0_2() {
    let server = server().await;
    let mut client = server.clean("c").await;
    for (n, name) in ["stored", "live/t", "quota", "live/t"].iter().enumerate() {
        let packet = Publish {
            packet_id: Some(id(n as u16 + 1)),
            ..publish(name, "x", 1)
        };
        client.send(Packet::Publish(Box::new(packet))).await;
    }
    for n in 1..=4 {
        match client.receive().await {
            Some(Packet::PubAck(ack)) => assert_eq!(ack.packet_id, id(n)),
            other => panic!("no PUBACK but {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_away_misses_it_and_keeps_its_session() {
    let server = server().await;
    let (mut subscriber, _) = server.persistent("s").await;
    subscriber.subscribe("live/#", 1).await;
    let mut publisher = server.clean("p").await;
    publisher
        .publish("live/t", "seen, not acknowledged", 1)
        .await;
    subscriber.receive_publish().await;
    subscriber.vanish().await;
    publisher.publish("live/t", "missed", 1).await;
    publisher.publish("live/kept", "kept", 1).await;
    let (mut subscriber, present) = server.persistent("s").await;
    assert!(present);
    assert_eq!(subscriber.take().await, "kept");
    publisher.publish("live/t", "now", 1).await;
    assert_eq!(subscriber.take().await, "now");
    subscriber.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_qos_2_message_that_is_sent_again_is_passed_on_once() {
    let server = server().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("live/#", 2).await;
    let (mut publisher, _) = server.persistent("p").await;
    let packet = Publish {
        packet_id: Some(id(1)),
        ..publish("live/t", "once", 2)
    };
    let received = Some(Packet::PubRec(Ack::success(id(1))));
    publisher
        .send(Packet::Publish(Box::new(packet.clone())))
        .await;
    assert_eq!(publisher.receive().await, received);
    publisher.vanish().await;
    // In the next connection of the session the id is still in use.
    let (mut publisher, _) = server.persistent("p").await;
    let again = Publish {
        dup: true,
        ..packet.clone()
    };
    publisher.send(Packet::Publish(Box::new(again))).await;
    assert_eq!(publisher.receive().await, received);
    publisher.send(Packet::PubRel(Ack::success(id(1)))).await;
    let complete = Some(Packet::PubComp(Ack::success(id(1))));
    assert_eq!(publisher.receive().await, complete);
    assert_eq!(subscriber.take().await, "once");
    subscriber.nothing().await;
    // Released: the next one with this id is another message.
    publisher.send(Packet::Publish(Box::new(packet))).await;
    assert_eq!(publisher.receive().await, received);
    assert_eq!(subscriber.take().await, "once");
}

#[tokio::test(start_paused = true)]
async fn retained_messages_are_in_memory_only() {
    let memory = Arc::new(Memory::new());
    let server = server_over(memory.clone(), Limits::default()).await;
    let mut publisher = server.clean("p").await;
    for (name, payload) in [
        ("live/a", "1"),
        ("live/a", "2"),
        ("live/b", "3"),
        ("live/b", ""),
    ] {
        let packet = Publish {
            retain: true,
            ..publish(name, payload, 1)
        };
        publisher.publish_packet(packet).await;
    }
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("live/#", 1).await;
    let got = subscriber.receive_publish().await;
    assert_eq!((&got.payload[..], got.retain), (&b"2"[..], true));
    subscriber.nothing().await;
    let server = server_over(memory, Limits::default()).await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("live/#", 1).await;
    subscriber.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn of_what_is_retained_there_is_no_more_and_nothing_larger_than_there_may_be() {
    let extra = Extra {
        retained: RetainedLimits {
            messages: 2,
            bytes: 3,
            ..RetainedLimits::default()
        },
        ..live_is_not_stored()
    };
    let server = Server::with(extra).await;
    let mut publisher = server.clean("p").await;
    let (ok, refused) = (ReasonCode::SUCCESS, ReasonCode::QUOTA_EXCEEDED);
    for (name, payload, expected) in [
        ("live/a", "four", refused),
        ("live/a", "abc", ok),
        ("live/b", "b", ok),
        ("live/c", "c", refused),
        ("live/b", "new", ok),
        ("live/a", "four", refused),
        ("live/a", "", ok),
        ("live/c", "c", ok),
    ] {
        let packet = Publish {
            retain: true,
            packet_id: Some(id(1)),
            ..publish(name, payload, 1)
        };
        publisher.send(Packet::Publish(Box::new(packet))).await;
        let answer = Packet::PubAck(Ack::new(id(1), expected));
        assert_eq!(publisher.receive().await, Some(answer), "{name} {payload}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_retained_and_has_expired_takes_nobodys_room() {
    let extra = Extra {
        retained: RetainedLimits {
            messages: 1,
            ..RetainedLimits::default()
        },
        ..live_is_not_stored()
    };
    let server = Server::with(extra).await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("live/#", 1).await;
    let mut publisher = server.clean("p").await;
    let (ok, refused) = (ReasonCode::SUCCESS, ReasonCode::QUOTA_EXCEEDED);
    for (name, seconds, expected) in [
        ("live/a", 1, ok),
        ("live/b", 100, refused),
        ("live/b", 100, ok),
        ("live/c", 100, refused),
    ] {
        let packet = Publish {
            retain: true,
            packet_id: Some(id(1)),
            properties: Properties {
                message_expiry_interval: Some(seconds),
                ..Properties::default()
            },
            ..publish(name, name, 1)
        };
        publisher.send(Packet::Publish(Box::new(packet))).await;
        let answer = Packet::PubAck(Ack::new(id(1), expected));
        assert_eq!(publisher.receive().await, Some(answer), "{name}");
        if expected == ok {
            assert_eq!(subscriber.take().await, name);
        } else {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_what_is_retained_the_properties_count_too() {
    let server = server().await;
    let mut publisher = server.clean("p").await;
    let properties = Properties {
        user_properties: vec![("n".into(), "v".repeat(60_000)); 16],
        ..Properties::default()
    };
    let mut taken = 0;
    let refused = loop {
        let packet = Publish {
            retain: true,
            packet_id: Some(id(1)),
            properties: properties.clone(),
            ..publish(&format!("live/{taken}"), "x", 1)
        };
        publisher.send(Packet::Publish(Box::new(packet))).await;
        match publisher.receive().await {
            Some(Packet::PubAck(ack)) if ack.reason_code.is_error() => break ack.reason_code,
            _ => taken += 1,
        }
        assert!(taken < 100, "96 MB for all that is counted");
    };
    assert_eq!(refused, ReasonCode::QUOTA_EXCEEDED);
    assert!(taken > 60, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_will_goes_to_who_is_there_and_a_delay_is_refused() {
    let server = server().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("live/#", 1).await;
    let dying = Connect {
        will: will("live/will", 0),
        ..v5("d")
    };
    server.connect(dying).await.0.vanish().await;
    assert_eq!(subscriber.take().await, "gone");
    let mut publisher = server.clean("p").await;
    let packet = Publish {
        packet_id: Some(id(9)),
        ..publish("$delayed/5/live/t", "x", 1)
    };
    publisher.send(Packet::Publish(Box::new(packet))).await;
    let refused = Ack::new(id(9), ReasonCode::TOPIC_NAME_INVALID);
    assert_eq!(publisher.receive().await, Some(Packet::PubAck(refused)));
}

#[tokio::test(start_paused = true)]
async fn a_group_gets_each_message_once_and_goes_on_without_a_member() {
    let server = server().await;
    let mut members = Vec::new();
    for n in 0..3 {
        let mut member = server.clean(&format!("m{n}")).await;
        member.subscribe("$share/g/live/#", 1).await;
        members.push(member);
    }
    let mut publisher = server.clean("p").await;
    for n in 0..30 {
        publisher.publish("live/t", &n.to_string(), 1).await;
    }
    let mut got = BTreeSet::new();
    for member in &mut members {
        for _ in 0..10 {
            assert!(got.insert(member.take().await));
        }
        member.nothing().await;
    }
    assert_eq!(got.len(), 30);
    members.pop().expect("a member").vanish().await;
    members[0].unsubscribe("$share/g/live/#").await;
    for n in 0..5 {
        publisher.publish("live/t", &n.to_string(), 1).await;
        assert_eq!(members[1].take().await, n.to_string());
    }
    members[0].nothing().await;
}

/// One member had everything; what becomes of it when its connection breaks.
async fn given_back(persistent: bool) -> (Vec<(String, u8)>, u64) {
    let server = server().await;
    let properties = Properties {
        receive_maximum: Some(2),
        session_expiry_interval: persistent.then_some(3600),
        ..Properties::default()
    };
    let dying = Connect {
        properties,
        ..v5("dying")
    };
    let (mut dying, _) = server.connect(dying).await;
    dying.subscribe("$share/g/live/#", 2).await;
    let mut publisher = server.clean("p").await;
    for (n, qos) in [1, 2, 1, 2, 0].into_iter().enumerate() {
        publisher.publish("live/t", &n.to_string(), qos).await;
    }
    for n in 0..2 {
        let sent = dying.receive_publish().await;
        assert_eq!(sent.payload, n.to_string());
    }
    dying.nothing().await;
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/live/#", 2).await;
    other.nothing().await;
    dying.vanish().await;
    let mut got = Vec::new();
    for _ in 0..4 {
        let publish = other.receive_publish().await;
        assert!(!publish.dup, "it was never sent to this client");
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        got.push((text, publish.qos as u8));
    }
    other.nothing().await;
    (got, dropped(&server))
}

/// QoS 1 that was not acknowledged, and all that was not sent; not QoS 2 that was sent.
#[tokio::test(start_paused = true)]
async fn what_a_member_of_a_group_did_not_get_goes_to_another_4_8_2_5() {
    for persistent in [false, true] {
        let (mut got, dropped) = given_back(persistent).await;
        got.sort();
        let expected = [("0", 1), ("2", 1), ("3", 2), ("4", 0)];
        assert_eq!(got, expected.map(|(text, qos)| (text.to_owned(), qos)));
        assert_eq!(dropped, 0);
    }
}

/// Also what was put into its mailbox, or is read by it, while it leaves.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_member_of_a_group_that_unsubscribes_goes_to_others() {
    let server = server().await;
    let properties = Properties {
        receive_maximum: Some(1),
        ..Properties::default()
    };
    let leaving = Connect {
        properties,
        ..v5("leaving")
    };
    let (mut leaving, _) = server.connect(leaving).await;
    leaving.subscribe("$share/g/live/#", 1).await;
    leaving.subscribe("live/own", 1).await;
    let mut publisher = server.clean("p").await;
    publisher.publish("live/t", "sent", 1).await;
    let sent = leaving.receive_publish().await;
    assert_eq!(sent.payload, "sent");
    let mut expected = BTreeSet::new();
    for n in 0..20 {
        publisher.publish("live/t", &n.to_string(), 1).await;
        expected.insert(n.to_string());
        if n == 10 {
            publisher.publish("live/own", "own", 1).await;
            expected.insert("own".to_owned());
        }
    }
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/live/#", 1).await;
    other.nothing().await;
    leaving.unsubscribe("$share/g/live/#").await;
    let mut got = BTreeSet::new();
    for _ in 0..expected.len() {
        let publish = other.receive_publish().await;
        assert!(!publish.dup);
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        assert!(got.insert(text));
        let packet_id = publish.packet_id.expect("QoS 1");
        other.send(Packet::PubAck(Ack::success(packet_id))).await;
    }
    assert_eq!(got, expected);
    other.nothing().await;
    // What it has itself it gets all the same, and nothing else.
    let packet_id = sent.packet_id.expect("QoS 1");
    leaving.send(Packet::PubAck(Ack::success(packet_id))).await;
    assert_eq!(leaving.take().await, "own");
    leaving.nothing().await;
    assert_eq!(dropped(&server), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_last_member_of_a_group_was_not_sent_is_counted() {
    let server = server().await;
    let properties = Properties {
        receive_maximum: Some(1),
        ..Properties::default()
    };
    let last = Connect {
        properties,
        ..v5("last")
    };
    let (mut last, _) = server.connect(last).await;
    last.subscribe("$share/g/live/#", 1).await;
    let mut publisher = server.clean("p").await;
    for n in 0..3 {
        publisher.publish("live/t", &n.to_string(), 1).await;
    }
    last.receive_publish().await;
    last.nothing().await;
    last.vanish().await;
    assert_eq!(dropped(&server), 2);
}

/// Its client takes nothing: QoS 0 is dropped at once, QoS 1 holds the publisher back for a second, once.
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_nothing_costs_its_buffer_and_a_second() {
    let server = server().await;
    let mut dead = server.clean("dead").await;
    dead.subscribe("live/#", 1).await;
    let mut alive = server.clean("alive").await;
    alive.subscribe("live/#", 1).await;
    let mut publisher = server.clean("p").await;
    let payload = "x".repeat(16 * 1024);
    let started = tokio::time::Instant::now();
    for n in 0..400 {
        publisher
            .publish("live/t", &format!("{n} {payload}"), 1)
            .await;
        assert!(alive.take().await.starts_with(&format!("{n} ")));
    }
    let waited = started.elapsed();
    assert!(waited.as_millis() < 1_500, "{waited:?}");
    assert!(dropped(&server) > 100, "{}", dropped(&server));
    // What was in its buffer comes in order, and what is published from now on behind it.
    let mut last = -1;
    for _ in 0..400 - dropped(&server) {
        let text = dead.take().await;
        let n = text.split(' ').next().and_then(|n| n.parse().ok());
        assert!(n.expect("a number") > last);
        last = n.expect("a number");
    }
    publisher.publish("live/t", "after", 1).await;
    assert_eq!(dead.take().await, "after");
}

/// A window of two: what is read together waits for acknowledgements in order, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn receive_maximum_holds() {
    let limits = Limits {
        max_in_flight: 2,
        ..Limits::default()
    };
    let server = server_over(Arc::new(Memory::new()), limits).await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("live/#", 2).await;
    let mut publisher = server.clean("p").await;
    for n in 0..50 {
        publisher.publish("live/t", &n.to_string(), 1 + n % 2).await;
    }
    let first = subscriber.receive_publish().await;
    let second = subscriber.receive_publish().await;
    assert_eq!(&first.payload[..], b"0");
    assert_eq!(&second.payload[..], b"1");
    subscriber.nothing().await;
    let ack = Ack::success(first.packet_id.expect("an id"));
    subscriber.send(Packet::PubAck(ack)).await;
    let third = subscriber.receive_publish().await;
    assert_eq!(&third.payload[..], b"2");
    let ack = Ack::success(second.packet_id.expect("an id"));
    subscriber.send(Packet::PubRec(ack.clone())).await;
    let released = Some(Packet::PubRel(ack.clone()));
    assert_eq!(subscriber.receive().await, released);
    subscriber.send(Packet::PubComp(ack)).await;
    let ack = Ack::success(third.packet_id.expect("an id"));
    subscriber.send(Packet::PubAck(ack)).await;
    // The window has one place more, and then two.
    let mut last = 2;
    while last < 49 {
        match subscriber.receive().await {
            Some(Packet::Publish(publish)) => {
                last += 1;
                assert_eq!(publish.payload, last.to_string());
                let ack = Ack::success(publish.packet_id.expect("an id"));
                let answer = match publish.qos {
                    QoS::AtLeastOnce => Packet::PubAck(ack),
                    _ => Packet::PubRec(ack),
                };
                subscriber.send(answer).await;
            }
            Some(Packet::PubRel(ack)) => subscriber.send(Packet::PubComp(ack)).await,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dropped(&server), 0);
}

#[tokio::test(start_paused = true)]
async fn who_subscribes_between_two_messages_of_its_own_gets_the_second() {
    let server = server().await;
    let mut client = server.clean("c").await;
    let filters = vec![SubscribeFilter {
        filter: TopicFilter::new("live/t").expect("a filter"),
        options: SubscriptionOptions::default(),
    }];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: id(1),
        properties: Properties::default(),
        filters,
    });
    let message = |text| Packet::Publish(Box::new(publish("live/t", text, 0)));
    let mut together = BytesMut::new();
    for packet in [message("before"), subscribe, message("after")] {
        encode(&packet, Version::V5, &mut together);
    }
    client.send_bytes(&together).await;
    assert!(matches!(client.receive().await, Some(Packet::SubAck(_))));
    assert_eq!(client.take().await, "after");
    client.nothing().await;
}
