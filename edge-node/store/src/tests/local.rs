//! The lane of local readers, and what they see of the others.

use super::*;

fn with_local(config: &mut Config) {
    config.lanes.push(LaneConfig::new(LOCAL));
}

#[tokio::test]
async fn local_readers_see_records_in_their_own_way_after_a_restart_too() {
    for place in Place::both() {
        let mut store = place.open();
        let seen = |view, retained, key: &str, value: &str| NewMessage {
            view,
            retained,
            ..message("s", key, value)
        };
        for message in [
            seen(None, true, "s/plain", "1"),
            seen(Some(View::Key("a/b".into())), true, "s/edge/b", "2"),
            seen(Some(View::Hidden), false, "s/window", "3"),
            seen(Some(View::Key("a/c".into())), true, "s/edge/c", "4"),
            // Cleared under the local key.
            seen(Some(View::Key("a/c".into())), true, "s/edge/c", ""),
        ] {
            store.publish(message).await.unwrap();
        }
        for _ in 0..2 {
            let mut views = Vec::new();
            for frame in frames(&store, OUTBOX).await {
                views.extend((0..frame.batch.record_count()).map(|n| frame.view(n).cloned()));
            }
            let key = |key: &str| Some(View::Key(key.into()));
            let expected = [None, key("a/b"), Some(View::Hidden), key("a/c"), key("a/c")];
            assert_eq!(views, expected);
            let mut retained = Vec::new();
            store
                .retained("", &mut |found| {
                    retained.push((found.key, found.record.value.unwrap()));
                    true
                })
                .unwrap();
            let of = |key: &str, value: &'static str| (key.to_owned(), Bytes::from(value));
            assert_eq!(retained, [of("a/b", "2"), of("s/plain", "1")]);
            store = again(&place, store);
        }
    }
}

#[tokio::test]
async fn the_local_lane_is_no_matter_of_the_cores_and_lets_go_of_what_no_session_needs() {
    let place = Place::simulated().0;
    let store = place.open_with(with_local);
    let local = store.lane(LOCAL).unwrap();
    assert!(store.lanes().iter().all(|lane| lane.lane != local));
    assert!(store.logs().contains(&LogId::Outbox(local)));
    let session = Session {
        epoch: 1,
        checkpoints: vec![Checkpoint {
            log: LogId::Outbox(local),
            position: 0,
        }],
        bytes: Bytes::new(),
    };
    store.save_session("device", session.clone()).await.unwrap();
    for n in 0..100 {
        let message = NewMessage {
            lane: local,
            ..message("s", "s/k", &format!("{n} {}", "x".repeat(200)))
        };
        store.publish(message).await.unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.outbox_messages, 0);
    store.checkpoint().await.unwrap();
    assert_eq!(
        store.oldest(LogId::Outbox(local)).position,
        0,
        "the session holds it"
    );
    // Out of the configuration it is still not the core's.
    drop(store);
    let store = place.open();
    assert!(store.lanes().iter().all(|lane| lane.lane != local));
    assert_eq!(frames(&store, LogId::Outbox(local)).await.len(), 100);
    let session = Session {
        epoch: 2,
        checkpoints: Vec::new(),
        ..session
    };
    store.save_session("device", session).await.unwrap();
    store.checkpoint().await.unwrap();
    assert!(store.oldest(LogId::Outbox(local)).position > 50);
}
