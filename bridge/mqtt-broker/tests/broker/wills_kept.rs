//! Wills that come due while there is no room for them, and ends of sessions that the storage does not take.

use crate::client::*;
use crate::memory::Memory;
use crate::wills::lasting;
use mqtt_broker::Backend;
use mqtt_broker::backend::{Publish, PublishError, StorageError};
use mqtt_broker::later::{self, Due, DueNow, Later};
use mqtt_codec::*;
use mqtt_session::{ClientId, Session};
use std::future::pending;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Longer than the longest pause.
const A_WHILE: Duration = Duration::from_secs(70);

fn stored(memory: &Memory, client: &str) -> Option<Session> {
    let saved = memory.stored_session(client)?;
    Some(Session::from_bytes(ClientId::new(client), saved.bytes).unwrap())
}

/// Not stored, of its own.
fn fleeting(id: &str) -> Connect {
    Connect {
        will: will("will/x", 0),
        ..v5(id)
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_that_finds_no_room_is_published_when_there_is_and_once() {
    let of = [
        fleeting("a"),
        lasting("a", 100_000, 0),
        lasting("a", 100_000, 30),
        // The session ends with the delay.
        lasting("a", 20, 30),
    ];
    for (n, connect) in of.into_iter().enumerate() {
        let is_stored = n > 0;
        let server = Server::start().await;
        let (client, _) = server.connect(connect).await;
        server.memory.full.store(true, Relaxed);
        client.vanish().await;
        tokio::time::sleep(A_WHILE * 3).await;
        assert_eq!(stored(&server.memory, "a").is_some(), is_stored, "{n}");
        let has_will = stored(&server.memory, "a").is_some_and(|one| one.has_will());
        assert_eq!(has_will, is_stored, "{n}: for the next start");
        server.memory.full.store(false, Relaxed);
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(server.memory.payloads("will").len(), 1, "{n}");
        let left = stored(&server.memory, "a");
        assert!(left.is_none_or(|session| !session.has_will()), "{n}");
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(server.memory.payloads("will").len(), 1, "{n}: once");
        let sessions = server.broker.metrics().persistent_sessions.load(Relaxed);
        assert_eq!(sessions, server.memory.stored_sessions() as u64, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_will_was_kept_from_being_published_still_ends_at_its_time() {
    let server = Server::start().await;
    let (client, _) = server.connect(lasting("a", 600, 0)).await;
    server.memory.full.store(true, Relaxed);
    client.vanish().await;
    tokio::time::sleep(A_WHILE).await;
    server.memory.full.store(false, Relaxed);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(server.memory.stored_sessions(), 1);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.memory.stored_sessions(), 0);
    assert_eq!(server.memory.payloads("will").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_will_that_finds_no_room_survives_the_process() {
    let server = Server::start().await;
    let (client, _) = server.connect(lasting("a", 100_000, 0)).await;
    server.memory.full.store(true, Relaxed);
    client.vanish().await;
    tokio::time::sleep(A_WHILE).await;
    server.shutdown.cancel();
    let server = Server::over(server.memory, Default::default()).await;
    tokio::time::sleep(A_WHILE).await;
    server.memory.full.store(false, Relaxed);
    tokio::time::sleep(A_WHILE * 2).await;
    assert_eq!(server.memory.payloads("will").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_before_there_is_room_loses_no_will() {
    for keeps in [false, true] {
        let server = Server::start().await;
        server.memory.keeps.store(keeps, Relaxed);
        let (client, _) = server.connect(lasting("a", 1000, 0)).await;
        server.memory.full.store(true, Relaxed);
        client.vanish().await;
        let (again, connack) = server.connect(lasting("a", 1000, 0)).await;
        let kept = std::mem::take(&mut *server.memory.kept.lock().unwrap());
        if keeps {
            // The host has it, and it is in the way of nothing.
            assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
            assert!(connack.session_present);
            assert_eq!(kept.len(), 1);
            again.disconnect().await;
        } else {
            assert_eq!(connack.reason_code, ReasonCode::SERVER_UNAVAILABLE);
            again.vanish().await;
        }
        server.memory.full.store(false, Relaxed);
        let (again, connack) = server.connect(lasting("a", 1000, 0)).await;
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
        assert!(connack.session_present);
        let published = server.memory.payloads("will").len();
        assert_eq!(published + kept.len(), 1, "{keeps}");
        // The one that it has now is another.
        again.vanish().await;
        tokio::time::sleep(A_WHILE).await;
        let published = server.memory.payloads("will").len();
        assert_eq!(published + kept.len(), 2, "{keeps}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_of_a_session_that_is_not_stored_is_in_the_way_of_nothing() {
    let server = Server::start().await;
    server.memory.full.store(true, Relaxed);
    for _ in 0..3 {
        let (client, connack) = server.connect(fleeting("a")).await;
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
        client.vanish().await;
    }
    server.memory.full.store(false, Relaxed);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(server.memory.payloads("will").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_storage_did_not_take_of_a_connections_end_it_takes_later() {
    let server = Server::start().await;
    let (client, _) = server.connect(lasting("polite", 1000, 0)).await;
    let (lost, _) = server.connect(lasting("lost", 1000, 30)).await;
    server.memory.broken.store(true, Relaxed);
    client.disconnect().await;
    lost.vanish().await;
    tokio::time::sleep(A_WHILE).await;
    assert!(stored(&server.memory, "polite").unwrap().has_will());
    server.memory.broken.store(false, Relaxed);
    tokio::time::sleep(A_WHILE).await;
    // It said goodbye.
    assert!(!stored(&server.memory, "polite").unwrap().has_will());
    assert_eq!(server.memory.payloads("will").len(), 1);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(server.memory.stored_sessions(), 0);
    assert_eq!(server.memory.payloads("will").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_can_not_be_read_when_its_time_has_come_is_looked_at_again() {
    let server = Server::start().await;
    let (client, _) = server.connect(lasting("a", 20, 10)).await;
    client.vanish().await;
    server.memory.broken.store(true, Relaxed);
    tokio::time::sleep(A_WHILE).await;
    assert!(server.memory.payloads("will").is_empty());
    server.memory.broken.store(false, Relaxed);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(server.memory.payloads("will").len(), 1);
    assert_eq!(server.memory.stored_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_will_that_may_not_be_retained_goes_to_who_is_there_and_one_that_is_refused_is_dropped() {
    let server = Server::start().await;
    let mut watcher = server.clean("w").await;
    watcher.subscribe("#", 1).await;
    for (topic_name, comes) in [
        ("no-retained", true),
        ("forbidden", false),
        ("quota", false),
    ] {
        let mut wish = will(topic_name, 0);
        wish.as_mut().unwrap().retain = true;
        let connect = Connect {
            will: wish,
            ..lasting("a", 1000, 0)
        };
        let (client, _) = server.connect(connect).await;
        client.vanish().await;
        match comes {
            true => assert_eq!(watcher.take().await, "gone"),
            false => watcher.nothing().await,
        }
        assert!(!stored(&server.memory, "a").unwrap().has_will());
    }
    assert_eq!(server.broker.metrics().refused.load(Relaxed), 2);
}

/// What it keeps is due, one at a time.
impl Later for Memory {
    type Key = ();

    fn due(&self, _: i64) -> Result<DueNow<()>, StorageError> {
        let kept = self.kept.lock().unwrap();
        let due = kept.first().map(|publish| Due {
            key: (),
            publish: Some(publish.clone()),
        });
        Ok(DueNow {
            messages: due.into_iter().collect(),
            next_ms: None,
        })
    }

    async fn publish_due(&self, (): &(), publish: Publish) -> Result<(), PublishError> {
        self.publish(publish, None).await?;
        self.forget_due(&()).await.unwrap();
        Ok(())
    }

    async fn forget_due(&self, (): &()) -> Result<(), StorageError> {
        self.kept.lock().unwrap().remove(0);
        Ok(())
    }

    async fn delayed_changed(&self) {
        pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_published_later_waits_for_room() {
    let server = Server::start().await;
    let memory = server.memory.clone();
    memory.keeps.store(true, Relaxed);
    memory.full.store(true, Relaxed);
    for _ in 0..2 {
        let (client, _) = server.connect(fleeting("a")).await;
        client.vanish().await;
    }
    let publishing = tokio::spawn({
        let memory = memory.clone();
        async move { later::run(&*memory).await }
    });
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(memory.kept.lock().unwrap().len(), 2);
    memory.full.store(false, Relaxed);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(memory.payloads("will").len(), 2);
    assert!(memory.kept.lock().unwrap().is_empty());
    publishing.abort();
}
