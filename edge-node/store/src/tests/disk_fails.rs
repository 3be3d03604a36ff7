//! A disk that is full, or whose syncs fail.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_full_disk_refuses_keeps_what_is_there_and_goes_on_later() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    store.publish(message("s", "s/k", "before")).await.unwrap();
    disk.set_room(Some(50));
    let refused = store.publish(message("s", "s/k", "during")).await;
    assert_eq!(refused, Err(WriteError::DiskFull));
    disk.set_room(None);
    store.checkpoint().await.unwrap();
    store.publish(message("s", "s/k", "after")).await.unwrap();
    let all = frames(&store, OUTBOX).await;
    assert_eq!(values(&all), ["before", "after"]);
    check_sequences(&all);
    drop(store);
    assert_eq!(
        values(&frames(&place.open(), OUTBOX).await),
        ["before", "after"]
    );
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_until_the_store_is_opened_again() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    disk.fail_syncs(true);
    assert!(store.publish(message("s", "s/k", "a")).await.is_err());
    disk.fail_syncs(false);
    assert!(store.publish(message("s", "s/k", "b")).await.is_err());
    assert!(store.failed());
    drop(store);
    let store = place.open();
    store.publish(message("s", "s/k", "c")).await.unwrap();
    check_sequences(&frames(&store, OUTBOX).await);
}

/// The failed sync may have kept it all the same. A new segment would begin with its number, and of the messages behind it the core would
/// miss as many as stand in the old one: it has those numbers.
#[tokio::test]
async fn after_a_failed_sync_no_segment_is_begun() {
    let (place, disk, _) = Place::simulated();
    let store = place.open_with(|config| {
        config.lanes[0].max_age = Some(Duration::from_millis(1000));
    });
    store.publish(message("s", "s/k", "a")).await.unwrap();
    disk.fail_syncs(true);
    assert!(store.publish(message("s", "s/k", "b")).await.is_err());
    disk.fail_syncs(false);
    // The segment is older than it may get.
    assert!(store.expire(500).await.is_err());
    let store = again(&place, store);
    store.publish(message("s", "s/k", "c")).await.unwrap();
    let all = frames(&store, OUTBOX).await;
    assert_eq!(values(&all), ["a", "b", "c"]);
    let numbers: Vec<u64> = all.iter().map(|frame| frame.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}
