//! Messages that wait for their time.

use super::*;

fn delayed(due_ms: i64, value: &str) -> NewDelayed {
    NewDelayed {
        due_ms,
        blind: None,
        value: value.as_bytes().to_vec(),
        packet: None,
    }
}

fn due(store: &Store, now_ms: i64) -> Vec<(DelayedKey, String)> {
    let due = store.delayed_due(now_ms, 100).unwrap();
    let messages = due.messages.into_iter();
    messages
        .map(|message| {
            (
                message.key,
                String::from_utf8(message.value.to_vec()).unwrap(),
            )
        })
        .collect()
}

fn values_due(store: &Store, now_ms: i64) -> Vec<String> {
    due(store, now_ms)
        .into_iter()
        .map(|(_, value)| value)
        .collect()
}

async fn publish_due(store: &Arc<Store>, key: DelayedKey, value: &str) {
    let message = NewMessage {
        delayed: Some(key),
        ..message("s", "s/k", value)
    };
    store.publish(message).await.unwrap();
    store.delayed_published(key);
}

#[tokio::test]
async fn they_are_due_in_their_order_and_gone_when_they_are_published() {
    for place in Place::both() {
        let store = place.open();
        for (at, value) in [(300, "late"), (100, "first"), (100, "second"), (-5, "past")] {
            store.delay(delayed(at, value)).await.unwrap();
        }
        assert_eq!(store.delayed_due(-6, 9).unwrap().next_ms, Some(-5));
        let mut store = store;
        for _ in 0..2 {
            assert_eq!(values_due(&store, 100), ["past", "first", "second"]);
            assert_eq!(store.delayed_due(100, 9).unwrap().next_ms, Some(300));
            store = again(&place, store);
        }
        assert_eq!(store.delayed_due(300, 2).unwrap().messages.len(), 2);
        for (key, value) in due(&store, 100) {
            publish_due(&store, key, &value).await;
        }
        for _ in 0..2 {
            assert_eq!(store.delayed_len(), 1);
            assert_eq!(values_due(&store, 1000), ["late"]);
            store = again(&place, store);
        }
        let (key, _) = due(&store, 1000).remove(0);
        store.put_off_delayed(key, 2000);
        assert!(values_due(&store, 1999).is_empty());
        assert_eq!(values_due(&store, 2000), ["late"]);
        store.forget_delayed(key).await.unwrap();
        let store = again(&place, store);
        assert_eq!(store.delayed_len(), 0);
        assert_eq!(
            values(&frames(&store, OUTBOX).await),
            ["past", "first", "second"]
        );
    }
}

#[tokio::test]
async fn the_packet_id_of_one_is_stored_with_it_and_released_like_others() {
    for place in Place::both() {
        let store = place.open();
        let packet = PacketRef {
            client: "c".into(),
            packet_id: 7,
        };
        let message = NewDelayed {
            packet: Some((Lane::DEFAULT, packet.clone())),
            ..delayed(100, "x")
        };
        store.delay(message).await.unwrap();
        store.save_session("c", session(1, "")).await.unwrap();
        let store = again(&place, store);
        assert_eq!(store.unreleased("c").unwrap(), [7]);
        store.release(packet).await.unwrap();
        assert!(store.unreleased("c").unwrap().is_empty());
        let store = again(&place, store);
        assert!(store.unreleased("c").unwrap().is_empty());
        assert_eq!(values_due(&store, 100), ["x"]);
    }
}

#[tokio::test]
async fn a_power_cut_leaves_each_of_them_waiting_or_published_and_never_both() {
    for seed in 0..40 {
        let (place, disk, ledger) = Place::simulated();
        let store = place.open();
        for n in 0..6 {
            store.delay(delayed(n, &format!("{n}"))).await.unwrap();
        }
        let mut acknowledged = Vec::new();
        for (key, value) in due(&store, 2) {
            publish_due(&store, key, &value).await;
            acknowledged.push(value);
        }
        let publishing = due(&store, 4).into_iter().map(|(key, value)| {
            let store = store.clone();
            tokio::spawn(async move {
                let message = NewMessage {
                    delayed: Some(key),
                    ..message("s", "s/k", &value)
                };
                store.publish(message).await.is_ok().then_some(value)
            })
        });
        let publishing: Vec<_> = publishing.collect();
        for _ in 0..seed % 20 {
            tokio::task::yield_now().await;
        }
        disk.cut_power(seed);
        let left_of_ledger = ledger.left_by_power_cut(seed);
        for published in publishing {
            acknowledged.extend(published.await.unwrap());
        }
        drop(store);
        ledger.become_as(&left_of_ledger);
        let store = place.open();
        let mut published = values(&frames(&store, OUTBOX).await);
        let waiting = values_due(&store, 100);
        for value in &acknowledged {
            assert!(published.contains(value), "{seed}: {value} was lost");
        }
        published.extend(waiting);
        published.sort();
        assert_eq!(published, ["0", "1", "2", "3", "4", "5"], "{seed}");
    }
}

#[tokio::test]
async fn one_that_was_stored_blind_moves_when_the_time_is_known() {
    for place in Place::both() {
        let store = place.open();
        let blind = NewDelayed {
            blind: Some(3),
            ..delayed(100, "blind")
        };
        store.delay(blind).await.unwrap();
        store.delay(delayed(150, "known")).await.unwrap();
        assert_eq!(values_due(&store, 150), ["blind", "known"]);
        store.set_boot_offset(3, 5000).await.unwrap();
        store.set_boot_offset(4, 9000).await.unwrap();
        let mut store = store;
        for _ in 0..2 {
            assert_eq!(values_due(&store, 5099), ["known"]);
            let due = store.delayed_due(5100, 9).unwrap().messages;
            let added: Vec<_> = due.iter().map(|message| message.add_ms).collect();
            assert_eq!(added, [0, 5000]);
            store = again(&place, store);
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_change_hears_of_a_new_one_and_of_the_clock() {
    let place = Place::simulated().0;
    let store = place.open();
    store.delay(delayed(1, "x")).await.unwrap();
    store.delayed_changed().await;
    store.set_boot_offset(1, 1).await.unwrap();
    store.delayed_changed().await;
}

#[tokio::test]
async fn more_than_may_wait_and_a_full_disk_are_refused() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    let large = "x".repeat(7 * 1024 * 1024);
    for n in 0..4 {
        store.delay(delayed(n, &large)).await.unwrap();
    }
    let refused = store.delay(delayed(9, &large)).await;
    assert!(
        matches!(refused, Err(WriteError::TooMuchDelayed)),
        "{refused:?}"
    );
    // About as many bytes at a time as may be, and at least one.
    assert_eq!(store.delayed_due(9, 100).unwrap().messages.len(), 1);
    disk.set_room(Some(1024 * 1024 + 100));
    let refused = store.delay(delayed(9, &"x".repeat(100))).await;
    assert!(matches!(refused, Err(WriteError::DiskFull)), "{refused:?}");
    disk.set_room(None);
    store.delay(delayed(9, "small")).await.unwrap();
    assert_eq!(again(&place, store).delayed_len(), 5);
}
