//! Shared subscriptions (section 4.8.2), named by what the clause says.

use crate::chapters::{retained, subscribe};
use crate::client::*;
use crate::memory::Memory;
use mqtt_broker::Limits;
use mqtt_codec::*;
use mqtt_session::ClientId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::timeout;

fn receive_maximum(id: &str, maximum: u16) -> Connect {
    let properties = Properties {
        receive_maximum: Some(maximum),
        ..Properties::default()
    };
    Connect {
        properties,
        ..v5(id)
    }
}

/// Stays for an hour.
pub fn staying(id: &str) -> Connect {
    let properties = Properties {
        session_expiry_interval: Some(3600),
        ..Properties::default()
    };
    Connect {
        clean_start: false,
        properties,
        ..v5(id)
    }
}

async fn send(sender: &mut Client, topic: &str, count: usize, qos: u8) {
    for n in 0..count {
        sender.publish(topic, &n.to_string(), qos).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_message_goes_to_one_member_whatever_the_version_and_qos_4_8_2() {
    for granted in [0, 1, 2] {
        let server = Server::start().await;
        let (mut a, connack) = server.connect(v5("a")).await;
        assert_eq!(
            connack.properties.shared_subscription_available,
            Some(1),
            "section 3.2.2.3.13"
        );
        let (mut b, _) = server.connect(v311("b")).await;
        a.subscribe("$share/g/t/+", granted).await;
        b.subscribe("$share/g/t/+", granted).await;
        let mut whole = server.clean("whole").await;
        whole.subscribe("t/+", 1).await;
        let mut sender = server.clean("s").await;
        let (mut got, mut of_a) = (BTreeSet::new(), 0);
        for n in 0..20 {
            sender.publish("t/1", &n.to_string(), 2).await;
            assert_eq!(whole.take().await, n.to_string(), "not of the group");
            let text = tokio::select! {
                text = a.take() => {
                    of_a += 1;
                    text
                }
                text = b.take() => text,
            };
            assert!(got.insert(text), "twice");
        }
        assert_eq!(got.len(), 20);
        assert!(of_a > 0 && of_a < 20, "both work: {of_a}");
        a.nothing().await;
        b.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_groups_and_an_ordinary_subscription_of_one_client_each_get_it() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    client
        .subscribe_with("$share/g/t", options(0), Some(1))
        .await;
    client
        .subscribe_with("$share/h/#", options(1), Some(2))
        .await;
    client.subscribe_with("t", options(2), Some(3)).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "x", 1).await;
    let mut got = Vec::new();
    for _ in 0..3 {
        let publish = client.receive_publish().await;
        got.push((publish.properties.subscription_identifiers, publish.qos));
    }
    got.sort_by_key(|(identifiers, _)| identifiers.clone());
    let (zero, one) = (QoS::AtMostOnce, QoS::AtLeastOnce);
    assert_eq!(
        got,
        [(vec![1], zero), (vec![2], one), (vec![3], one)],
        "QoS is the lower one"
    );
}

#[tokio::test(start_paused = true)]
async fn each_member_gets_the_qos_it_was_granted_4_8_2_3() {
    let server = Server::start().await;
    let mut members = [
        server.clean("zero").await,
        server.clean("one").await,
        server.clean("two").await,
    ];
    for (granted, member) in members.iter_mut().enumerate() {
        member.subscribe("$share/g/t", granted as u8).await;
    }
    let mut sender = server.clean("s").await;
    for published in [1, 2] {
        let mut count = [0; 3];
        for n in 0..30 {
            sender.publish("t", &n.to_string(), published).await;
            let [zero, one, two] = &mut members;
            let (granted, got) = tokio::select! {
                got = zero.receive_publish() => (0, got),
                got = one.receive_publish() => (1, got),
                got = two.receive_publish() => (2, got),
            };
            assert_eq!(got.payload, n.to_string());
            assert_eq!(got.qos as u8, published.min(granted), "of {published}");
            let member = &mut members[usize::from(granted)];
            count[usize::from(granted)] += 1;
            match (got.qos, got.packet_id.map(Ack::success)) {
                (QoS::AtLeastOnce, Some(ack)) => member.send(Packet::PubAck(ack)).await,
                (QoS::ExactlyOnce, Some(ack)) => {
                    member.send(Packet::PubRec(ack.clone())).await;
                    let released = member.receive().await;
                    assert_eq!(released, Some(Packet::PubRel(ack.clone())));
                    member.send(Packet::PubComp(ack)).await;
                }
                _ => {}
            }
        }
        assert!(count.iter().all(|count| *count > 0), "all work: {count:?}");
    }
    // What was handed over at QoS 0 is done with.
    let [zero, mut one, mut two] = members;
    zero.vanish().await;
    one.nothing().await;
    two.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn no_history_and_no_retained_messages_3_8_3_1() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    let kept = Publish {
        retain: true,
        ..publish("t", "old", 1)
    };
    sender.publish_packet(kept).await;
    let mut member = server.clean("m").await;
    member.subscribe("$share/g/t", 1).await;
    member.nothing().await;
    sender.publish("t", "new", 1).await;
    assert_eq!(member.take().await, "new");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_begins_later_is_read_from_its_beginning() {
    let server = Server::start().await;
    let mut member = server.clean("m").await;
    member.subscribe("$share/g/+/x", 1).await;
    let mut sender = server.clean("s").await;
    sender.publish("new/x", "first", 1).await;
    sender.publish("other/x", "second", 1).await;
    let got = BTreeSet::from([member.take().await, member.take().await]);
    assert_eq!(got, BTreeSet::from(["first".into(), "second".into()]));
}

#[tokio::test(start_paused = true)]
async fn no_local_is_a_protocol_error_3_8_3_4() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let filter = TopicFilter::new("$share/g/t").expect("a filter");
    let options = SubscriptionOptions {
        no_local: true,
        ..Default::default()
    };
    client
        .send(Packet::Subscribe(Subscribe {
            packet_id: id(1),
            properties: Properties::default(),
            filters: vec![SubscribeFilter { filter, options }],
        }))
        .await;
    client.closed_with(ReasonCode::PROTOCOL_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_full_is_passed_over() {
    let server = Server::start().await;
    let (mut full, _) = server.connect(receive_maximum("full", 1)).await;
    full.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "stuck", 1).await;
    let stuck = full.receive_publish().await;
    assert_eq!(&stuck.payload[..], b"stuck");
    let mut free = server.clean("free").await;
    free.subscribe("$share/g/t", 1).await;
    send(&mut sender, "t", 50, 1).await;
    for n in 0..50 {
        assert_eq!(free.take().await, n.to_string());
    }
    full.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_member_that_dies_has_not_acknowledged_goes_to_the_others_at_once() {
    let server = Server::start().await;
    let mut dying = server.clean("dying").await;
    dying.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    send(&mut sender, "t", 10, 1).await;
    for _ in 0..10 {
        dying.receive_publish().await;
    }
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/t", 1).await;
    other.nothing().await;
    dying.vanish().await;
    for n in 0..10 {
        let publish = other.receive_publish().await;
        assert_eq!(&publish.payload[..], n.to_string().as_bytes());
        assert!(
            !publish.dup,
            "it was never sent to this client [MQTT-3.3.1-3]"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn qos_2_in_delivery_goes_to_nobody_else_4_8_2_5() {
    let server = Server::start().await;
    let mut dying = server.clean("dying").await;
    dying.subscribe("$share/g/t", 2).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "in delivery", 2).await;
    dying.receive_publish().await;
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/t", 2).await;
    dying.vanish().await;
    other.nothing().await;
    sender.publish("t", "next", 2).await;
    assert_eq!(other.take().await, "next");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_client_ends_it_for_all_4_8_2_6() {
    for (qos, staying_on) in [(1, false), (2, false), (1, true), (2, true)] {
        let server = Server::start().await;
        let connect = if staying_on { staying("m") } else { v5("m") };
        let (mut member, _) = server.connect(connect.clone()).await;
        member.subscribe("$share/g/t", qos).await;
        let mut sender = server.clean("s").await;
        sender.publish("t", "unwanted", 2).await;
        let packet_id = member.receive_publish().await.packet_id.expect("an id");
        let refusal = Ack::new(packet_id, ReasonCode::QUOTA_EXCEEDED);
        let refusal = match qos {
            1 => Packet::PubAck(refusal),
            _ => Packet::PubRec(refusal),
        };
        member.send(refusal).await;
        member.nothing().await;
        let mut other = server.clean("other").await;
        other.subscribe("$share/g/t", qos).await;
        other.nothing().await;
        member.vanish().await;
        other.nothing().await;
        let (mut member, connack) = server.connect(connect).await;
        assert_eq!(connack.session_present, staying_on);
        member.nothing().await;
        member.disconnect().await;
        other.nothing().await;
        sender.publish("t", "next", 2).await;
        assert_eq!(other.take().await, "next");
    }
}

#[tokio::test(start_paused = true)]
async fn a_persistent_member_keeps_what_it_was_sent_until_its_session_ends_4_8_2_4() {
    let server = Server::start().await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    send(&mut sender, "t", 3, 1).await;
    for _ in 0..3 {
        member.receive_publish().await;
    }
    member.vanish().await;
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/t", 1).await;
    sender.publish("t", "for who is there", 1).await;
    assert_eq!(other.take().await, "for who is there");
    other.nothing().await;
    let (mut member, connack) = server.connect(staying("m")).await;
    assert!(connack.session_present);
    for n in 0..3 {
        let again = member.receive_publish().await;
        assert!(
            again.dup && again.payload == n.to_string(),
            "[MQTT-4.4.0-1]"
        );
    }
    member.vanish().await;
    tokio::time::sleep(std::time::Duration::from_secs(3700)).await;
    for n in 0..3 {
        assert_eq!(other.take().await, n.to_string(), "the session has expired");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_waits_for_its_persistent_members_and_ends_with_its_last() {
    let server = Server::start().await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    member.disconnect().await;
    let mut sender = server.clean("s").await;
    send(&mut sender, "t", 3, 1).await;
    let (mut member, _) = server.connect(staying("m")).await;
    for n in 0..3 {
        assert_eq!(member.take().await, n.to_string());
    }
    member.unsubscribe("$share/g/t").await;
    sender.publish("t", "nobody", 1).await;
    member.subscribe("$share/g/t", 1).await;
    member.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_start_ends_the_membership_and_gives_everything_back() {
    let server = Server::start().await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    let mut other = server.clean("other").await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "x", 1).await;
    member.receive_publish().await;
    other.subscribe("$share/g/t", 1).await;
    member.vanish().await;
    other.nothing().await;
    let _member = server.clean("m").await;
    assert_eq!(other.take().await, "x");
}

#[tokio::test(start_paused = true)]
async fn after_unsubscribe_what_was_sent_stays_this_clients_3_10_4_3() {
    let server = Server::start().await;
    let mut leaving = server.clean("leaving").await;
    leaving.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "x", 1).await;
    let sent = leaving.receive_publish().await;
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/t", 1).await;
    leaving.unsubscribe("$share/g/t").await;
    other.nothing().await;
    leaving
        .send(Packet::PubAck(Ack::success(sent.packet_id.expect("an id"))))
        .await;
    leaving.disconnect().await;
    other.nothing().await;
    sender.publish("t", "y", 1).await;
    assert_eq!(other.take().await, "y");
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_the_member_it_was_given_to_is_discarded_3_1_2_25() {
    let server = Server::start().await;
    let properties = Properties {
        maximum_packet_size: Some(64),
        ..Properties::default()
    };
    let small = Connect {
        properties,
        ..v5("small")
    };
    let (mut small, _) = server.connect(small).await;
    small.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", &"x".repeat(100), 1).await;
    sender.publish("t", "y", 1).await;
    assert_eq!(small.take().await, "y");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_killed_loses_nothing_and_repeats_no_qos_2() {
    let memory = Arc::new(Memory::new());
    let server = Server::over(memory.clone(), Limits::default()).await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/one", 1).await;
    member.subscribe("$share/g/two", 2).await;
    let mut sender = server.clean("s").await;
    for n in 0..5 {
        sender.publish("two", &n.to_string(), 2).await;
        let publish = member.receive_publish().await;
        let packet_id = publish.packet_id.expect("an id");
        assert_eq!(publish.payload, n.to_string());
        member.send(Packet::PubRec(Ack::success(packet_id))).await;
        assert_eq!(
            member.receive().await,
            Some(Packet::PubRel(Ack::success(packet_id)))
        );
        if n < 3 {
            member.send(Packet::PubComp(Ack::success(packet_id))).await;
        }
    }
    sender.publish("one", "unacknowledged", 1).await;
    member.receive_publish().await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await; // the session is saved
    member.kill_server_side().await;
    sender.kill_server_side().await;
    memory.forget_shares();
    let server = Server::over(memory, Limits::default()).await;
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/one", 1).await;
    other.subscribe("$share/g/two", 2).await;
    other.nothing().await;
    let (mut member, connack) = server.connect(staying("m")).await;
    assert!(connack.session_present);
    let (mut releases, mut repeated) = (0, Vec::new());
    while let Ok(Some(packet)) =
        tokio::time::timeout(std::time::Duration::from_millis(500), member.receive()).await
    {
        match packet {
            Packet::PubRel(ack) => {
                releases += 1;
                member.send(Packet::PubComp(ack)).await;
            }
            Packet::Publish(publish) => {
                assert_eq!(publish.qos, QoS::AtLeastOnce, "{publish:?}");
                repeated.push(publish.payload);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(releases, 2, "those without PUBCOMP");
    assert_eq!(repeated, ["unacknowledged"]);
}

/// What a host needs to give messages may be what it needs to change the groups.
#[tokio::test(start_paused = true)]
async fn who_waits_for_messages_of_a_group_joins_and_leaves_others() {
    let server = Server::start().await;
    server.memory.locks.store(true, Relaxed);
    let mut member = server.clean("m").await;
    member.subscribe("$share/one/t", 1).await;
    member.subscribe("$share/two/t", 1).await;
    member.subscribe("$share/three/t", 1).await;
    member.unsubscribe("$share/two/t").await;
    let three = TopicFilter::new("$share/three/t").expect("a filter");
    let client = ClientId::new("m");
    let taken = server.broker.unsubscribe(&client, &three);
    assert_eq!(taken.await, Ok(Some(true)));
    let mut sender = server.clean("s").await;
    sender.publish("t", "x", 1).await;
    assert_eq!(member.take().await, "x");
    member.nothing().await;
    member.disconnect().await;
}

#[tokio::test(start_paused = true)]
async fn what_others_may_get_of_a_session_that_ended_they_get_though_the_rest_can_not_be_written() {
    let server = Server::start().await;
    let (mut member, _) = server.connect(v311("m")).await;
    member.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "acknowledged", 1).await;
    sender.publish("t", "not yet", 1).await;
    let first = member.receive_publish().await.packet_id.expect("an id");
    member.receive_publish().await;
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/t", 1).await;
    server.memory.broken.store(true, Relaxed);
    member.send(Packet::PubAck(Ack::success(first))).await;
    assert_eq!(member.receive().await, None);
    member.vanish().await;
    server.memory.broken.store(false, Relaxed);
    assert_eq!(other.take().await, "not yet");
    other.nothing().await;
    // It is no member any more.
    for n in 0..4 {
        sender.publish("t", &n.to_string(), 1).await;
        assert_eq!(other.take().await, n.to_string());
    }
}

/// Only who is first in the group's line gets something: nobody may be that and wait for something else.
#[tokio::test(start_paused = true)]
async fn a_member_that_waits_for_retained_messages_holds_up_nobody() {
    for round in 0..8 {
        let server = Server::start().await;
        let mut sender = server.clean("s").await;
        for name in ["r/1", "q/1"] {
            sender.publish_packet(retained(name, name, 1)).await;
        }
        let mut other = server.clean("other").await;
        other.subscribe("$share/g/t", 0).await;
        let mut member = server.clean("member").await;
        member.subscribe("$share/g/t", 0).await;
        server.memory.retained_slow.store(10_000, Relaxed);
        member.send(subscribe(7, &[("r/#", 0), ("q/#", 0)])).await;
        assert!(matches!(member.receive().await, Some(Packet::SubAck(_))));
        let (mut shared, mut seconds) = (0, 0);
        while seconds < 30 {
            sender.publish("t", "shared", 0).await;
            let taken = timeout(Duration::from_secs(1), async {
                loop {
                    let taken = tokio::select! {
                        taken = other.take() => taken,
                        taken = member.take() => taken,
                    };
                    if taken == "shared" {
                        break;
                    }
                }
            });
            shared += u32::from(taken.await.is_ok());
            seconds += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(shared, seconds, "round {round}");
    }
}
