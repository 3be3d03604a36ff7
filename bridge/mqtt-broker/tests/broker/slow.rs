//! The list of slow subscribers.

use crate::client::*;
use mqtt_broker::extra::{Extra, SlowSubscriber};
use mqtt_codec::*;
use std::time::Duration;
use tokio::time::sleep;

/// Takes one message at a time, has the first of three, and has not acknowledged it; another one has had them all.
async fn stuck(server: &Server, name: &str) -> (Client, Publish) {
    let properties = Properties {
        receive_maximum: Some(1),
        ..Properties::default()
    };
    let connect = Connect {
        properties,
        ..v5(name)
    };
    let (mut slow, _) = server.connect(connect).await;
    slow.subscribe("t", 1).await;
    let mut quick = server.clean("quick").await;
    quick.subscribe("t", 1).await;
    let mut sender = server.clean("s").await;
    for n in 0..3 {
        sender.publish("t", &n.to_string(), 1).await;
        quick.take().await;
    }
    let first = slow.receive_publish().await;
    (slow, first)
}

fn names(list: &[SlowSubscriber]) -> Vec<&str> {
    list.iter().map(|one| one.client.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_nothing_is_on_the_list_of_slow_ones() {
    let server = Server::start().await;
    let (mut slow, first) = stuck(&server, "slow").await;
    sleep(Duration::from_secs(5)).await;
    let ack = Ack::success(first.packet_id.expect("an id"));
    slow.send(Packet::PubAck(ack)).await;
    slow.take().await;
    slow.take().await;
    let list = server.broker.slow_subscribers();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0].client.as_str(), "slow");
    assert!(list[0].longest >= Duration::from_secs(4), "{list:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_acknowledges_nothing_is_there_while_it_is_stuck_whatever_it_is_answered() {
    let extra = Extra {
        slow_after: Duration::from_secs(10),
        ..Extra::default()
    };
    let server = Server::with(extra).await;
    let (mut stuck, first) = stuck(&server, "stuck").await;
    for _ in 0..5 {
        sleep(Duration::from_secs(1)).await;
        assert!(server.broker.slow_subscribers().is_empty(), "not yet");
        stuck.send(Packet::PingReq).await;
        assert_eq!(stuck.receive().await, Some(Packet::PingResp));
        stuck.publish("other", "x", 1).await;
    }
    sleep(Duration::from_secs(6)).await;
    for least in [10, 20] {
        let list = server.broker.slow_subscribers();
        assert_eq!(names(&list), ["stuck"]);
        assert!(list[0].longest >= Duration::from_secs(least), "{list:?}");
        sleep(Duration::from_secs(10)).await;
    }
    // What moves then counts from anew; how long it was is remembered.
    let ack = Ack::success(first.packet_id.expect("an id"));
    stuck.send(Packet::PubAck(ack)).await;
    stuck.take().await;
    stuck.take().await;
    sleep(Duration::from_secs(100)).await;
    let list = server.broker.slow_subscribers();
    assert_eq!(names(&list), ["stuck"]);
    assert!(list[0].longest < Duration::from_secs(50), "{list:?}");
    sleep(Duration::from_secs(600)).await;
    assert!(server.broker.slow_subscribers().is_empty());
}

/// Its socket is full: nothing of what is there for it moves.
#[tokio::test(start_paused = true)]
async fn one_that_does_not_read_is_there_too() {
    let server = Server::start().await;
    let mut deaf = server.clean("deaf").await;
    deaf.subscribe("t", 0).await;
    let mut sender = server.clean("sender").await;
    let large = "x".repeat(100_000);
    for _ in 0..10 {
        sender.publish("t", &large, 1).await;
    }
    sleep(Duration::from_secs(5)).await;
    let list = server.broker.slow_subscribers();
    assert_eq!(names(&list), ["deaf"]);
    for _ in 0..10 {
        deaf.take().await;
    }
    sleep(Duration::from_secs(601)).await;
    assert!(server.broker.slow_subscribers().is_empty());
}
