//! Where there are many clients or topics: what others see of it.

use std::pin::pin;

use futures_util::poll;
use sim::disk::SimDisk;

use super::stepped::{World, drive};
use super::*;

fn roomy(dir: &Path) -> World {
    World::with_queue(dir, &SimDisk::default(), 16 * 1024 * 1024)
}

/// The log is written meanwhile, and other tasks have their turns.
#[tokio::test]
async fn who_goes_through_many_retained_messages_keeps_nobody_from_anything() {
    const TOPICS: usize = 2_500;
    let dir = tempfile::tempdir().unwrap();
    let mut world = roomy(dir.path());
    let publishes = (0..TOPICS).map(|n| retained(&format!("r/{n:04}"), "old"));
    let publishes = publishes.map(|publish| world.backend.publish(publish, None));
    let published = futures_util::future::join_all(publishes);
    let results = drive(&mut world.stepper, published).await;
    assert!(results.iter().all(Result::is_ok));
    for wanted in ["r/#", "+/2499"].map(filter) {
        let mut found = pin!(world.backend.retained(&wanted));
        assert!(poll!(found.as_mut()).is_pending());
        for topic in ["r/2499", "r/2500"] {
            let publish = world.backend.publish(retained(topic, "new"), None);
            drive(&mut world.stepper, publish).await.unwrap();
        }
        let found = found.await.unwrap();
        let all = wanted.as_str() == "r/#";
        assert_eq!(found.len(), if all { TOPICS } else { 1 });
        let last = found.last().unwrap();
        assert_eq!(last.topic.as_str(), "r/2499");
        // As it was at the call.
        assert_eq!(last.payload, if all { "old" } else { "new" });
        let cleared = world.backend.publish(retained("r/2500", ""), None);
        drive(&mut world.stepper, cleared).await.unwrap();
    }
}

#[tokio::test]
async fn sessions_that_are_saved_together_share_their_syncs() {
    const CLIENTS: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let mut world = roomy(dir.path());
    let clients: Vec<ClientId> = (0..CLIENTS)
        .map(|n| ClientId::new(&n.to_string()))
        .collect();
    let session = SavedSession {
        epoch: 1,
        checkpoints: vec![],
        bytes: Bytes::from_static(b"state"),
    };
    let saves = clients
        .iter()
        .map(|client| world.backend.save_session(client, session.clone()));
    // All of them are polled each time, however many there are.
    let saves = tokio::task::unconstrained(futures_util::future::join_all(saves));
    let mut saves = pin!(saves);
    let mut steps = 0;
    while poll!(saves.as_mut()).is_pending() {
        steps += usize::from(world.stepper.step());
    }
    assert!(steps <= 4, "{steps} steps");
    assert_eq!(world.kernel.table_len("mqtt.sessions"), CLIENTS);
}
