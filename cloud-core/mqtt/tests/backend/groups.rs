//! Groups of shared subscriptions where writes take their time, or find no room: over a kernel that writes only when the test lets it.

use std::pin::pin;
use std::sync::Arc;

use futures_util::poll;
use mqtt_broker::Backend;
use mqtt_broker::backend::{ClientId, FeedId, Position, Taken};
use sim::disk::SimDisk;

use super::stepped::{World, drive};
use super::{filter, publish};

async fn send(world: &mut World, topic: &str, payloads: impl IntoIterator<Item = String>) {
    let publishes = payloads.into_iter();
    let publishes = publishes.map(|payload| (publish(topic, payload), None));
    let published = world.backend.publish_all(publishes.collect());
    for result in drive(&mut world.stepper, published).await {
        result.unwrap();
    }
}

async fn join(world: &mut World, share: &str, client: &ClientId, holds: Vec<(FeedId, Position)>) {
    let share = filter(share);
    let joined = world.backend.shared_join(&share, client, holds);
    drive(&mut world.stepper, joined).await.unwrap();
}

async fn take(world: &mut World, share: &str, client: &ClientId, most: usize) -> Vec<Taken> {
    let share = filter(share);
    let taken = world.backend.shared_take(&share, client, most, 1024 * 1024);
    drive(&mut world.stepper, taken).await.unwrap()
}

/// All that is there for it.
async fn rest(world: &mut World, share: &str, client: &ClientId) -> Vec<String> {
    let share = filter(share);
    let mut payloads = Vec::new();
    loop {
        let mut take = pin!(world.backend.shared_take(&share, client, 512, 1024 * 1024));
        let mut taken = None;
        for _ in 0..100 {
            if let std::task::Poll::Ready(result) = poll!(take.as_mut()) {
                taken = Some(result.unwrap());
                break;
            }
            world.stepper.step();
            tokio::task::yield_now().await;
        }
        let Some(taken) = taken else {
            return payloads;
        };
        payloads.extend(texts(&taken));
    }
}

fn texts(taken: &[Taken]) -> Vec<String> {
    let payloads = taken.iter().map(|taken| taken.message.payload.to_vec());
    payloads
        .map(|text| String::from_utf8(text).unwrap())
        .collect()
}

fn places(taken: &[Taken]) -> Vec<(FeedId, Position)> {
    taken.iter().map(|taken| (taken.feed, taken.at)).collect()
}

#[tokio::test]
async fn who_waits_for_messages_and_is_not_polled_keeps_nobody_from_joining_and_leaving() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::open(dir.path(), &SimDisk::default());
    let (a, b) = (ClientId::new("a"), ClientId::new("b"));
    join(&mut world, "$share/g/#", &a, vec![]).await;
    join(&mut world, "$share/g/#", &b, vec![]).await;
    send(&mut world, "new/x", ["one".to_owned()]).await;
    let share = filter("$share/g/#");
    let backend = Arc::new(world.backend);
    {
        // The group has the new stream when that is written.
        let mut taking = pin!(backend.shared_take(&share, &a, 1, 1024));
        assert!(poll!(taking.as_mut()).is_pending());
        let other = filter("$share/other/#");
        let changed = async {
            backend.shared_join(&other, &a, vec![]).await.unwrap();
            backend.shared_leave(&other, &a).await.unwrap();
        };
        drive(&mut world.stepper, changed).await;
        let taken = drive(&mut world.stepper, taking).await.unwrap();
        assert_eq!(texts(&taken), ["one"]);
    }
}

#[tokio::test]
async fn what_could_not_be_settled_is_settled_with_the_next_and_goes_to_nobody_after_a_crash() {
    let (a, b) = (ClientId::new("a"), ClientId::new("b"));
    for again in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::default();
        let mut world = World::open(dir.path(), &disk);
        send(&mut world, "t", ["before".to_owned()]).await;
        join(&mut world, "$share/g/t", &a, vec![]).await;
        send(&mut world, "t", (0..3).map(|n| n.to_string())).await;
        let taken = take(&mut world, "$share/g/t", &a, 2).await;
        assert_eq!(texts(&taken), ["0", "1"]);
        let share = filter("$share/g/t");
        let done = |from: usize, to: usize| places(&taken[from..to]);
        world.fill();
        let settled = world.backend.shared_settle(&share, &a, done(0, 1)).await;
        settled.unwrap_err();
        // Nor does it go back with the rest.
        let released = world.backend.shared_release(&share, &a, Some(done(0, 1)));
        released.await.unwrap();
        let next = if again { done(0, 2) } else { done(1, 2) };
        world.stepper.step();
        let settled = world.backend.shared_settle(&share, &a, next);
        drive(&mut world.stepper, settled).await.unwrap();
        drop(world);
        let mut world = World::open(dir.path(), &disk.after_crash(1));
        join(&mut world, "$share/g/t", &b, vec![]).await;
        assert_eq!(rest(&mut world, "$share/g/t", &b).await, ["2"], "{again}");
    }
}

/// It is found only when its turn comes.
#[tokio::test]
async fn what_a_stored_session_is_done_with_before_it_is_found_goes_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::default();
    let (a, b) = (ClientId::new("a"), ClientId::new("b"));
    let share = filter("$share/g/t");
    let mut world = World::open(dir.path(), &disk);
    send(&mut world, "t", ["before".to_owned()]).await;
    join(&mut world, "$share/g/t", &a, vec![]).await;
    for some in 0..50 {
        let payloads = (0..100).map(|n| (some * 100 + n).to_string());
        send(&mut world, "t", payloads).await;
    }
    let (feed, _) = world.backend.feeds_for(&filter("t"))[0];
    let far = (feed, Position(4501));
    drop(world);
    let disk = disk.after_crash(1);
    let mut world = World::open(dir.path(), &disk);
    join(&mut world, "$share/g/t", &a, vec![far]).await;
    let settled = world.backend.shared_settle(&share, &a, vec![far]);
    settled.await.unwrap();
    world
        .backend
        .shared_release(&share, &a, None)
        .await
        .unwrap();
    join(&mut world, "$share/g/t", &b, vec![]).await;
    let expected = || (0..5000).filter(|n| *n != 4500).map(|n| n.to_string());
    let of_b = rest(&mut world, "$share/g/t", &b).await;
    assert!(of_b.iter().cloned().eq(expected()), "{}", of_b.len());
    // Nor after the next crash.
    drop(world);
    let mut world = World::open(dir.path(), &disk.after_crash(1));
    join(&mut world, "$share/g/t", &b, vec![]).await;
    let of_b = rest(&mut world, "$share/g/t", &b).await;
    assert!(of_b.iter().cloned().eq(expected()), "{}", of_b.len());
}

#[tokio::test]
async fn a_group_whose_end_could_not_be_written_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::open(dir.path(), &SimDisk::default());
    let (a, share) = (ClientId::new("a"), filter("$share/g/t"));
    world.backend.shared_recovered().await.unwrap();
    for again in [false, true] {
        join(&mut world, "$share/g/t", &a, vec![]).await;
        send(&mut world, "t", ["of the first".to_owned()]).await;
        world.fill();
        world.backend.shared_leave(&share, &a).await.unwrap_err();
        world.stepper.step();
        if again {
            let left = world.backend.shared_leave(&share, &a);
            drive(&mut world.stepper, left).await.unwrap();
            assert!(world.kernel.queues().is_empty());
        }
        join(&mut world, "$share/g/t", &a, vec![]).await;
        assert!(rest(&mut world, "$share/g/t", &a).await.is_empty());
        send(&mut world, "t", ["next".to_owned()]).await;
        assert_eq!(rest(&mut world, "$share/g/t", &a).await, ["next"]);
        let left = world.backend.shared_leave(&share, &a);
        drive(&mut world.stepper, left).await.unwrap();
    }
}
