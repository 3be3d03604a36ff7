//! Retained messages whose time has passed are deleted, and never what came in the place of one.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::poll;
use mqtt::RetainedLimits;
use mqtt_broker::later::Later;
use mqtt_broker::sweeping::Sweep;
use sim::disk::SimDisk;

use super::stepped::{World, drive};
use super::*;

fn expiring(topic: &str, payload: &'static str, expires_at: i64) -> Publish {
    let mut publish = retained(topic, payload);
    publish.message.expires_at = Some(expires_at.into());
    publish
}

async fn all(backend: &CoreBackend) -> Vec<(String, Bytes)> {
    let found = backend.retained(&filter("#")).await.unwrap();
    let found = found.into_iter();
    found
        .map(|message| (message.topic.as_str().to_owned(), message.payload))
        .collect()
}

#[tokio::test]
async fn one_that_has_expired_makes_room_for_another_and_one_that_has_not_does_not() {
    for limits in [
        RetainedLimits {
            messages: 1,
            ..RetainedLimits::default()
        },
        RetainedLimits {
            all_bytes: 100,
            ..RetainedLimits::default()
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ctx = open(dir.path());
        let backend = backend(&ctx).with_retained_limits(limits);
        let now_ms = ctx.now_ms();
        let publishes = [
            (expiring("r/1", "over", now_ms - 1), true),
            (expiring("r/2", "not over", now_ms + 3_600_000), true),
            (retained("r/3", "one too many"), false),
        ];
        for (publish, is_taken) in publishes {
            backend.make_retained_room(&publish.message).await;
            let topic = publish.message.topic.clone();
            let taken = backend.publish(publish, None).await;
            assert_eq!(taken.is_ok(), is_taken, "{topic} {taken:?}");
        }
        assert_eq!(backend.retained_count(), Some(1));
        assert_eq!(all(&backend).await, [("r/2".into(), "not over".into())]);
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_deleted_now_and_then_until_the_shutdown_and_stay_deleted() {
    let dir = tempfile::tempdir().unwrap();
    {
        let ctx = open(dir.path());
        let backend = Arc::new(backend(&ctx));
        for n in 0..600 {
            let at = if n % 2 == 0 { 1 } else { i64::MAX };
            let publish = expiring(&format!("r/{n:03}"), "x", at);
            backend.publish(publish, None).await.unwrap();
        }
        let sweeping = tokio::spawn(backend.clone().sweep_retained());
        // The clock runs ahead while the disk is waited for: by the real one it ends.
        let begun = std::time::Instant::now();
        while backend.retained_count() != Some(300) {
            assert!(begun.elapsed() < Duration::from_secs(60), "never deleted");
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        ctx.shutdown.cancel();
        sweeping.await.unwrap();
    }
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    assert_eq!(backend.retained_count(), Some(300));
    assert!(all(&backend).await.iter().all(|(topic, _)| {
        let number: u32 = topic.trim_start_matches("r/").parse().unwrap();
        number % 2 == 1
    }));
}

/// Some steps, one of three things at a time, in an order that the seed says.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

type Publishing<'a> = Pin<Box<dyn Future<Output = Result<(), PublishError>> + 'a>>;

#[tokio::test]
async fn what_comes_while_an_expired_one_is_deleted_is_never_lost() {
    const TOPICS: usize = 12;
    let mut between = 0;
    for seed in 1..=100 {
        let mut random = Random(seed * 0x9e37_79b9);
        let dir = tempfile::tempdir().unwrap();
        let World {
            backend,
            mut stepper,
            ..
        } = World::with_queue(dir.path(), &SimDisk::default(), 1024 * 1024);
        let name = |n: usize| format!("r/{n:02}");
        let old = (0..TOPICS).map(|n| backend.publish(expiring(&name(n), "old", 1), None));
        let old = futures_util::future::join_all(old);
        assert!(drive(&mut stepper, old).await.iter().all(Result::is_ok));
        let mut left: Vec<usize> = (0..TOPICS).collect();
        let mut come = Vec::new();
        let mut publishing: Vec<Publishing<'_>> = Vec::new();
        let mut sweeping = Box::pin(backend.delete_expired());
        let mut deleted = None;
        while deleted.is_none() {
            tokio::task::yield_now().await;
            match random.below(3) {
                0 => {
                    if let std::task::Poll::Ready(done) = poll!(sweeping.as_mut()) {
                        deleted = Some(done.unwrap());
                    }
                }
                1 if left.len() > 4 => {
                    let n = left.swap_remove(random.below(left.len()));
                    come.push(n);
                    let new = backend.publish(retained(&name(n), "new"), None);
                    publishing.push(Box::pin(new));
                    poll_all(&mut publishing).await;
                }
                _ => {
                    stepper.step();
                }
            }
        }
        while !publishing.is_empty() {
            tokio::task::yield_now().await;
            stepper.step();
            poll_all(&mut publishing).await;
        }
        let deleted = deleted.unwrap_or_default();
        // Those that came before are no matter of the sweep; those behind it are others.
        assert!((left.len()..=TOPICS).contains(&deleted), "seed {seed}");
        between += usize::from(deleted > left.len() && deleted < TOPICS);
        let mut expected: Vec<_> = come.iter().map(|n| (name(*n), "new".into())).collect();
        expected.sort();
        assert_eq!(all(&backend).await, expected, "seed {seed}");
        assert_eq!(backend.retained_count(), Some(come.len() as u64));
    }
    assert!(between > 10, "{between}");
}

async fn poll_all(publishing: &mut Vec<Publishing<'_>>) {
    let mut still = Vec::new();
    for mut one in publishing.drain(..) {
        match poll!(one.as_mut()) {
            std::task::Poll::Ready(published) => published.unwrap(),
            std::task::Poll::Pending => still.push(one),
        }
    }
    *publishing = still;
}

#[tokio::test]
async fn a_delayed_message_that_is_published_late_has_all_of_its_time_and_a_will_has_not() {
    const LATE: i64 = 170_000;
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    let at = ctx.now_ms() + 90_000;
    let due_at = |backend: &CoreBackend| backend.due(0).unwrap().next_ms.unwrap();
    let late = |backend: &CoreBackend, due: i64| {
        let mut due = backend.due(due + LATE).unwrap();
        let one = due.messages.remove(0);
        let message = one.publish.unwrap().message;
        (one.key, message.expires_at.unwrap().at())
    };
    let later = backend.publish_later(expiring("d/1", "later", at), 60_000, None);
    later.await.unwrap();
    let due = due_at(&backend);
    let (key, expires_at) = late(&backend, due);
    assert_eq!(expires_at, at + LATE);
    backend.forget_due(&key).await.unwrap();
    let kept = backend.keep_will(
        expiring("d/2", "a will", at),
        mqtt_broker::backend::Rest::Nothing,
    );
    kept.await.unwrap();
    let due = due_at(&backend);
    assert_eq!(late(&backend, due).1, at);
}
