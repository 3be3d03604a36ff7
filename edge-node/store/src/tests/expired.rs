//! Retained messages whose time has passed.

use super::*;
use record::Envelope;

const KNOWN: Now = Now {
    ms: 1000,
    blind: None,
};

fn retained(key: &str, value: &str, expires_at: Option<i64>) -> NewMessage {
    let new = message("s", key, value);
    let envelope = Envelope {
        key: new.record.key.clone(),
        value: new.record.value.clone(),
        timestamp: 1,
        expires_at,
        ..Envelope::default()
    };
    NewMessage {
        retained: true,
        record: envelope.into_record(),
        ..new
    }
}

/// Stamped by the clock of a start that does not know the time.
fn blind(key: &str, boot: u64, expires_at: i64) -> NewMessage {
    let mut message = retained(key, "blind", Some(expires_at));
    record::expire_after_timestamp(&mut message.record);
    NewMessage {
        blind: Some(boot),
        ..message
    }
}

fn keys(store: &Store) -> Vec<String> {
    let mut keys = Vec::new();
    let visit = &mut |retained: Retained| {
        keys.push(retained.key);
        true
    };
    store.retained("", visit).unwrap();
    keys
}

fn delete_expired(store: &Store, now: Now) -> usize {
    store.delete_expired(now, &|| true).unwrap()
}

#[tokio::test]
async fn those_that_have_expired_are_deleted_and_counted_no_more_and_the_logs_keep_them() {
    for place in Place::both() {
        let store = place.open();
        for n in 0..100 {
            let expires_at = [None, Some(1000), Some(1001), Some(5)][n % 4];
            let message = retained(&format!("s/{n:02}"), "x", expires_at);
            store.publish(message).await.unwrap();
        }
        let end = store.end(OUTBOX);
        assert_eq!(delete_expired(&store, KNOWN), 50);
        let left = |store: &Store| {
            let sum = store.retained_sum();
            let bytes = |key: &String| store.retained_bytes(key).unwrap().unwrap();
            let keys = keys(store);
            assert_eq!(sum.rows, keys.len());
            assert_eq!(sum.bytes, keys.iter().map(bytes).sum::<u64>());
            keys
        };
        let expected: Vec<_> = (0..100)
            .filter(|n| n % 2 == 0)
            .map(|n| format!("s/{n:02}"))
            .collect();
        assert_eq!(left(&store), expected);
        // The core gets what it would have got.
        assert_eq!(store.end(OUTBOX), end);
        assert_eq!(delete_expired(&store, KNOWN), 0);
        let store = again(&place, store);
        assert_eq!(left(&store), expected);
        let later = Now { ms: 1001, ..KNOWN };
        assert_eq!(delete_expired(&store, later), 25);
    }
}

#[tokio::test]
async fn what_a_blind_clock_stamped_is_judged_by_that_clock_only() {
    for place in Place::both() {
        let store = place.open();
        store.publish(retained("s/a", "x", Some(5))).await.unwrap();
        for (key, boot) in [("s/b", 7), ("s/c", 8), ("s/d", 9)] {
            store.publish(blind(key, boot, 5)).await.unwrap();
        }
        let by_boot = |boot| Now {
            blind: Some(boot),
            ..KNOWN
        };
        // The time is not known: what this start has stamped lasts as long by any clock.
        assert_eq!(delete_expired(&store, by_boot(9)), 1);
        assert_eq!(keys(&store), ["s/a", "s/b", "s/c"]);
        assert_eq!(delete_expired(&store, KNOWN), 1);
        assert_eq!(keys(&store), ["s/b", "s/c"]);
        // One was stamped long before, the other is not over yet.
        store.set_boot_offset(7, 0).await.unwrap();
        store.set_boot_offset(8, 1000).await.unwrap();
        assert_eq!(delete_expired(&store, KNOWN), 1);
        assert_eq!(keys(&store), ["s/c"]);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Between the look at a row and its end.
#[test]
fn what_comes_while_an_expired_one_is_deleted_is_never_lost() {
    const ROWS: usize = 40;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in 1..=100 {
        let mut random = Random(seed * 0x9e37_79b9);
        let (place, disk, ledger) = Place::simulated();
        let store = place.open();
        let publish = |message| runtime.block_on(store.publish(message)).unwrap();
        for n in 0..ROWS {
            publish(retained(&format!("s/{n:02}"), "old", Some(5)));
        }
        let come: BTreeSet<usize> = (0..random.below(10)).map(|_| random.below(ROWS)).collect();
        let come = come.into_iter().map(|n| format!("s/{n:02}"));
        let come: Vec<String> = come.collect();
        let (looks, when) = (std::cell::Cell::new(0), random.below(3));
        let goes_on = || {
            // Behind the look at all rows: before the first, second or third piece.
            looks.set(looks.get() + 1);
            if looks.get() == ROWS + 1 + when {
                come.iter()
                    .for_each(|key| publish(retained(key, "new", None)));
            }
            true
        };
        let deleted = store.delete_expired(KNOWN, &goes_on).unwrap();
        assert!((ROWS - come.len()..=ROWS).contains(&deleted), "{seed}");
        assert_eq!(keys(&store), come, "{seed}");
        // Also where the ledger forgets a part of it.
        disk.cut_power(seed);
        let left_of_ledger = ledger.left_by_power_cut(seed);
        drop(store);
        ledger.become_as(&left_of_ledger);
        let store = place.open();
        delete_expired(&store, KNOWN);
        assert_eq!(keys(&store), come, "{seed}");
        assert_eq!(store.retained_sum().rows, come.len());
    }
}
