//! How many retained messages there are.

use super::*;

fn retained(key: &str, value: &str) -> NewMessage {
    NewMessage {
        retained: true,
        ..message("s", key, value)
    }
}

#[tokio::test]
async fn retained_messages_are_counted_and_found_again() {
    for place in Place::both() {
        let store = place.open();
        let together = [
            retained("s/1", "a"),
            retained("s/2", "b"),
            retained("s/2", ""),
            retained("s/2", "c"),
            retained("s/3", "d"),
            retained("s/1", "e"),
            retained("s/none", ""),
            message("s", "s/4", "not retained"),
        ];
        let publishes = together.map(|message| {
            let store = store.clone();
            tokio::spawn(async move { store.publish(message).await })
        });
        for published in publishes {
            published.await.unwrap().unwrap();
        }
        let mut store = store;
        for _ in 0..2 {
            assert_eq!(store.retained_sum().rows, 3);
            let bytes = |key| store.retained_bytes(key).unwrap();
            let each = ["s/1", "s/2", "s/3"].map(|key| bytes(key).unwrap());
            assert_eq!(store.retained_sum().bytes, each.iter().sum::<u64>());
            assert!(bytes("s/none").is_none());
            drop(store);
            store = place.open();
        }
        store.publish(retained("s/3", "")).await.unwrap();
        assert_eq!(store.retained_sum().rows, 2);
        let batch = {
            let mut builder = BatchBuilder::new();
            for record in [retained("s/9", "of the core"), retained("s/1", "")] {
                builder.push(&record.record).unwrap();
            }
            builder.build().unwrap()
        };
        let origin = Origin {
            stream: 1,
            partition: 0,
            next: 2,
        };
        store
            .receive(stream("s"), batch, origin, vec![0, 1])
            .await
            .unwrap();
        assert_eq!(store.retained_sum().rows, 2, "one came, one went");
    }
}

#[tokio::test]
async fn a_ledger_that_lags_behind_the_segments_counts_them_as_it_catches_up() {
    for seed in 0..8 {
        let (place, disk, ledger) = Place::simulated();
        let store = place.open();
        for key in ["s/1", "s/2", "s/1"] {
            store.publish(retained(key, "x")).await.unwrap();
        }
        disk.cut_power(seed);
        let left_of_ledger = ledger.left_by_power_cut(seed);
        drop(store);
        if seed == 7 {
            ledger.lose();
        } else {
            ledger.become_as(&left_of_ledger);
        }
        assert_eq!(place.open().retained_sum().rows, 2, "{seed}");
    }
}

#[tokio::test]
async fn the_bytes_of_retained_messages_are_counted_over_changes_and_restarts() {
    for place in Place::both() {
        let mut store = place.open();
        let large = "x".repeat(100_000);
        let mut sums = Vec::new();
        for value in ["short", &*large, "y", ""] {
            store.publish(retained("s/1", value)).await.unwrap();
            let sum = store.retained_sum();
            drop(store);
            store = place.open();
            assert_eq!(store.retained_sum(), sum);
            sums.push(sum.bytes);
        }
        assert!((100_000..101_000).contains(&sums[1]), "{sums:?}");
        assert!(sums[2] < sums[0] && sums[3] == 0, "{sums:?}");
    }
}
