//! Wills, and the sessions that had them.

use super::*;

fn will(session: u64, connection: u64) -> WillRef<'static> {
    WillRef {
        client: "c",
        session,
        connection,
    }
}

async fn publish_will(store: &Store, will: WillRef<'_>) {
    let message = NewMessage {
        packet: will.packet(),
        ..message("s", "s/k", "will")
    };
    store.publish(message).await.unwrap();
}

#[tokio::test]
async fn a_will_is_known_until_its_session_is_told_and_hides_no_other() {
    for place in Place::both() {
        let store = place.open();
        let saved = store.save_session("c", session(3, "with a will"));
        saved.await.unwrap();
        assert!(!store.has_published(&will(7, 3)).unwrap());
        publish_will(&store, will(7, 3)).await;
        let mut store = store;
        for _ in 0..2 {
            assert!(store.has_published(&will(7, 3)).unwrap());
            for other in [
                will(7, 4),
                will(8, 3),
                WillRef {
                    client: "",
                    ..will(7, 3)
                },
                WillRef {
                    client: "c2",
                    ..will(7, 3)
                },
            ] {
                assert!(!store.has_published(&other).unwrap(), "{other:?}");
            }
            // It is no packet id of the client's.
            assert!(store.unreleased("c").unwrap().is_empty());
            // As at a start: that it is not connected any more is saved, and its will is still to be settled.
            let saved = store.save_session("c", session(3, "with a will"));
            saved.await.unwrap();
            store = again(&place, store);
        }
        // One that can not replace the session leaves it, and what is known of it.
        let stale = store.save_without_will("c", session(2, "stale"));
        stale.await.unwrap_err();
        assert!(store.has_published(&will(7, 3)).unwrap());
        let saved = store.save_without_will("c", session(3, "without"));
        saved.await.unwrap();
        for _ in 0..2 {
            assert!(!store.has_published(&will(7, 3)).unwrap());
            let bytes = store.load_session("c").unwrap().unwrap().bytes;
            assert_eq!(bytes, "without");
            store = again(&place, store);
        }
        publish_will(&store, will(7, 4)).await;
        store.delete_session("c").await.unwrap();
        assert!(!store.has_published(&will(7, 4)).unwrap());
        let store = again(&place, store);
        assert!(!store.has_published(&will(7, 4)).unwrap());
    }
}

#[tokio::test]
async fn of_a_session_that_is_gone_with_the_ledger_nothing_is_kept() {
    let (place, _disk, ledger) = Place::simulated();
    let store = place.open();
    let saved = store.save_session("c", session(3, "with a will"));
    saved.await.unwrap();
    publish_will(&store, will(7, 3)).await;
    drop(store);
    ledger.lose();
    let store = place.open();
    assert_eq!(values(&frames(&store, OUTBOX).await), ["will"]);
    assert_eq!(store.load_session("c").unwrap(), None);
    assert!(!store.has_published(&will(7, 3)).unwrap());
}

#[tokio::test]
async fn a_will_of_a_connection_that_the_ledger_does_not_know_hides_no_later_one() {
    let place = Place::simulated().0;
    let store = place.open();
    // As where the ledger is older than the segments: the session will have its third connection once more.
    let saved = store.save_session("c", session(2, "with a will"));
    saved.await.unwrap();
    publish_will(&store, will(7, 3)).await;
    let store = again(&place, store);
    assert!(!store.has_published(&will(7, 3)).unwrap());
}

#[tokio::test]
async fn a_power_cut_leaves_a_will_to_be_published_or_known_and_its_session_told_or_not() {
    // What a cut left: no will, one that is known, one whose session is told.
    let mut left = [0; 3];
    for seed in 0..120 {
        let (place, disk, ledger) = Place::simulated();
        let store = place.open();
        let saved = store.save_session("c", session(3, "with a will"));
        saved.await.unwrap();
        let theirs = store.clone();
        let settling = tokio::spawn(async move {
            let message = NewMessage {
                packet: will(7, 3).packet(),
                ..message("s", "s/k", "will")
            };
            theirs.publish(message).await.ok()?;
            match seed % 2 {
                0 => theirs.save_without_will("c", session(3, "without")).await,
                _ => theirs.delete_session("c").await.map_err(Into::into),
            }
            .ok()
        });
        // Until it is published, or settled, or not as far as that.
        match seed % 3 {
            0 => {
                for _ in 0..seed % 7 {
                    tokio::task::yield_now().await;
                }
            }
            1 => {
                while !store.has_published(&will(7, 3)).unwrap() && !settling.is_finished() {
                    tokio::task::yield_now().await;
                }
            }
            _ => {
                while !settling.is_finished() {
                    tokio::task::yield_now().await;
                }
            }
        }
        let settled_before = settling.is_finished();
        disk.cut_power(seed);
        let left_of_ledger = ledger.left_by_power_cut(seed / 3);
        let settled = settling.await.unwrap().is_some() && settled_before;
        drop(store);
        ledger.become_as(&left_of_ledger);
        let store = place.open();
        let published = values(&frames(&store, OUTBOX).await).len();
        let stored = store.load_session("c").unwrap();
        let told = stored.is_none_or(|session| session.bytes == "without");
        let known = store.has_published(&will(7, 3)).unwrap();
        // It is published again exactly where it is not there: the session still has it, and nothing is known of it.
        let again = !told && !known;
        assert_eq!(published + usize::from(again), 1, "{seed}: {told} {known}");
        assert!(!(told && known), "{seed}");
        assert!(!settled || told, "{seed}");
        left[published + usize::from(told)] += 1;
    }
    println!("no will, one that is known, one that is settled: {left:?}");
    assert!(left[2] > 0, "{left:?}");
}
