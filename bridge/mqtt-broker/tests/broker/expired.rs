//! Retained messages whose time has passed take nobody's room.

use crate::client::*;
use mqtt_broker::sweeping::{self, Sweep};
use mqtt_codec::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn retained(name: &str, payload: &str, seconds: Option<u32>) -> Publish {
    Publish {
        retain: true,
        properties: Properties {
            message_expiry_interval: seconds,
            ..Properties::default()
        },
        ..publish(name, payload, 1)
    }
}

async fn send(client: &mut Client, number: u16, packet: Publish) {
    let packet_id = Some(id(number));
    let packet = Publish {
        packet_id,
        ..packet
    };
    client.send(Packet::Publish(Box::new(packet))).await;
}

async fn answers(client: &mut Client, expected: &[(u16, ReasonCode)]) {
    for (number, code) in expected {
        let answer = Packet::PubAck(Ack::new(id(*number), *code));
        assert_eq!(client.receive().await, Some(answer));
    }
}

const TAKEN: ReasonCode = ReasonCode::SUCCESS;
const REFUSED: ReasonCode = ReasonCode::QUOTA_EXCEEDED;

#[tokio::test(start_paused = true)]
async fn one_that_has_expired_makes_room_for_the_next_and_what_follows_comes_behind_it() {
    let server = Server::start().await;
    server.memory.retained_most.store(1, Relaxed);
    let mut subscriber = server.clean("subscriber").await;
    subscriber.subscribe("a/2", 0).await;
    let mut client = server.clean("c").await;
    send(&mut client, 1, retained("a/1", "x", Some(1))).await;
    send(&mut client, 2, retained("a/2", "too early", None)).await;
    answers(&mut client, &[(1, TAKEN), (2, REFUSED)]).await;
    sleep(Duration::from_secs(2)).await;
    // Together: the others wait for the one that waits for room.
    let all = [
        retained("a/2", "first", Some(100)),
        publish("a/2", "second", 1),
        retained("a/2", "third", Some(100)),
        retained("a/3", "no room", None),
        publish("a/2", "fourth", 1),
    ];
    for (number, packet) in (3..).zip(all) {
        send(&mut client, number, packet).await;
    }
    let expected = [(3, TAKEN), (4, TAKEN), (5, TAKEN), (6, REFUSED), (7, TAKEN)];
    answers(&mut client, &expected).await;
    for expected in ["first", "second", "third", "fourth"] {
        assert_eq!(subscriber.take().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_together_has_its_place_before_the_next_looks_for_room() {
    let server = Server::start().await;
    server.memory.retained_most.store(2, Relaxed);
    let mut client = server.clean("c").await;
    send(&mut client, 1, retained("a/1", "x", Some(1))).await;
    answers(&mut client, &[(1, TAKEN)]).await;
    sleep(Duration::from_secs(2)).await;
    for number in 2..5 {
        send(
            &mut client,
            number,
            retained(&format!("a/{number}"), "x", None),
        )
        .await;
    }
    answers(&mut client, &[(2, TAKEN), (3, TAKEN), (4, REFUSED)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_will_finds_the_room_of_one_that_has_expired() {
    let server = Server::start().await;
    server.memory.retained_most.store(1, Relaxed);
    let mut client = server.clean("c").await;
    send(&mut client, 1, retained("a/1", "x", Some(1))).await;
    answers(&mut client, &[(1, TAKEN)]).await;
    sleep(Duration::from_secs(2)).await;
    let will = will("w", 0).map(|will| Will {
        retain: true,
        ..will
    });
    let (dying, _) = server
        .connect(Connect {
            will,
            ..v5("dying")
        })
        .await;
    dying.vanish().await;
    sleep(Duration::from_secs(1)).await;
    client.subscribe("w", 0).await;
    assert!(client.receive_publish().await.retain);
}

#[tokio::test(start_paused = true)]
async fn they_go_by_themselves_within_a_minute_or_two() {
    let server = Server::start().await;
    let memory = server.memory.clone();
    let sweeping = tokio::spawn(async move { sweeping::run(&*memory).await });
    let mut client = server.clean("c").await;
    for (number, seconds) in [(1, Some(1)), (2, None), (3, Some(1000))] {
        let packet = retained(&format!("a/{number}"), "x", seconds);
        send(&mut client, number, packet).await;
        answers(&mut client, &[(number, TAKEN)]).await;
    }
    sleep(Duration::from_secs(120)).await;
    // They were deleted by somebody else.
    assert_eq!(server.memory.delete_expired().await, Ok(0));
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(server.memory.delete_expired().await, Ok(0));
    sweeping.abort();
    client.subscribe("a/+", 0).await;
    assert_eq!(client.take().await, "x");
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_sweep_that_does_not_end() {
    let server = Server::start().await;
    server.memory.retained_most.store(1, Relaxed);
    server.memory.sweep_slow.store(1_000_000, Relaxed);
    let (mut one, mut two) = (server.clean("one").await, server.clean("two").await);
    send(&mut one, 1, retained("a/1", "x", None)).await;
    answers(&mut one, &[(1, TAKEN)]).await;
    let begun = Instant::now();
    send(&mut one, 2, retained("a/2", "x", None)).await;
    send(&mut two, 1, retained("a/3", "x", None)).await;
    answers(&mut one, &[(2, REFUSED)]).await;
    answers(&mut two, &[(1, REFUSED)]).await;
    // Nor for one that [`sweeping::run`] makes.
    let memory = server.memory.clone();
    let sweeping = tokio::spawn(async move { sweeping::run(&*memory).await });
    sleep(Duration::from_secs(61)).await;
    send(&mut one, 3, retained("a/2", "x", None)).await;
    answers(&mut one, &[(3, REFUSED)]).await;
    // Of virtual time.
    assert!(begun.elapsed() < Duration::from_secs(70));
    sweeping.abort();
}
