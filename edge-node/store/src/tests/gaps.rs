//! What is missing is said, once and exactly, and the rest goes on with the sequence that the core then expects.

use std::time::Duration;

use super::*;

/// What a core makes of a lane.
#[derive(Default)]
pub(super) struct Core {
    next: HashMap<(i64, i16, StreamName), i32>,
    pub values: Vec<String>,
    pub gaps: Vec<Gap>,
}

impl Core {
    /// Takes all of a lane from the uplink on and acknowledges it.
    async fn drain(&mut self, store: &Arc<Store>) {
        self.drain_lane(store, Lane::DEFAULT).await;
    }

    pub async fn drain_lane(&mut self, store: &Arc<Store>, lane: Lane) {
        let mut at = store.uplink(lane);
        loop {
            let read = store.read_outbox(lane, at, 1000).await.unwrap();
            if read.gap.is_none() && read.frames.is_empty() {
                break;
            }
            assert!(read.next.number > at.number, "{read:?} does not go on");
            at = read.next;
            if let Some(gap) = read.gap {
                for (stream, next) in &gap.sequences {
                    let key = (gap.producer_id, gap.epoch, stream.clone());
                    self.next.insert(key, *next);
                }
                self.gaps.push(gap);
            }
            for frame in &read.frames {
                let batch = &frame.batch;
                let key = (
                    batch.producer_id(),
                    batch.producer_epoch(),
                    frame.stream.clone(),
                );
                let expected = self.next.get(&key).copied().unwrap_or(0);
                assert_eq!(expected, batch.base_sequence(), "{key:?} is out of order");
                let next = record::next_sequence(batch.last_sequence());
                self.next.insert(key, next);
            }
            self.values.extend(values(&read.frames));
            store.advance_uplink(lane, at);
        }
    }

    pub fn missing(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.records).sum()
    }
}

async fn publish_one_by_one(store: &Arc<Store>, range: std::ops::Range<u32>) {
    for n in range {
        let stream = if n % 3 == 0 { "t" } else { "s" };
        let text = format!("{n:06}");
        store.publish(message(stream, "k", &text)).await.unwrap();
    }
}

fn bounded(eviction: Eviction) -> impl Fn(&mut Config) {
    move |config| {
        config.lanes[0].max_bytes = 30_000;
        config.lanes[0].eviction = eviction;
    }
}

#[tokio::test]
async fn the_oldest_go_are_counted_and_the_rest_follows_their_gap() {
    for place in Place::both() {
        let store = place.open_with(bounded(Eviction::Oldest));
        let mut core = Core::default();
        publish_one_by_one(&store, 0..20).await;
        core.drain(&store).await;
        publish_one_by_one(&store, 20..1000).await;
        assert!(store.stats().disk_bytes < 40_000);
        let gaps = store.gaps();
        assert_eq!(gaps.len(), 1, "one range, one gap: {gaps:?}");
        assert_eq!(gaps[0].reason, GapReason::EvictedBytes);
        assert_eq!(store.lane_stats()[0].1.evicted, gaps[0].records);
        drop(store);
        let store = place.open_with(bounded(Eviction::Oldest));
        assert_eq!(store.gaps(), gaps, "a gap survives");
        core.drain(&store).await;
        assert_eq!(core.gaps, gaps);
        assert_eq!(core.values.len() as u64 + core.missing(), 1000);
        assert_eq!(core.values.last().unwrap(), "000999");
        assert!(store.gaps().is_empty(), "the core knows");
        publish_one_by_one(&store, 1000..1005).await;
        core.drain(&store).await;
        assert_eq!(core.values.len() as u64 + core.missing(), 1005);
    }
}

#[tokio::test]
async fn the_newest_are_dropped_and_counted_over_a_restart() {
    for place in Place::both() {
        let store = place.open_with(bounded(Eviction::Newest));
        let mut dropped = 0;
        for n in 0..500 {
            match store.publish(message("s", "k", &n.to_string())).await {
                Ok(()) => {}
                Err(WriteError::Dropped(lane)) => {
                    assert_eq!(&*lane, "data");
                    dropped += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(dropped > 100);
        assert_eq!(store.lane_stats()[0].1.evicted, dropped);
        drop(store);
        let store = place.open_with(bounded(Eviction::Newest));
        let mut core = Core::default();
        core.drain(&store).await;
        assert_eq!(core.missing(), 0);
        store.checkpoint().await.unwrap();
        // No other message has to come for it.
        store.count_dropped(Lane::DEFAULT).await.unwrap();
        core.drain(&store).await;
        assert_eq!(core.missing(), dropped);
        store.publish(message("s", "k", "after")).await.unwrap();
        core.drain(&store).await;
        assert_eq!(core.missing(), dropped);
        assert_eq!(core.values.len() as u64 + dropped, 501);
        assert_eq!(core.values.last().unwrap(), "after");
        drop(store);
        let store = place.open_with(bounded(Eviction::Newest));
        store.publish(message("s", "k", "again")).await.unwrap();
        core.drain(&store).await;
        assert_eq!(core.missing(), dropped, "it is told once");
        let counted = store.count_dropped(Lane::DEFAULT);
        let nothing = tokio::time::timeout(Duration::from_millis(50), counted).await;
        assert!(nothing.is_err(), "nothing is left to be counted");
    }
}

#[tokio::test]
async fn a_full_lane_says_what_it_drops_whenever_it_is_asked() {
    for place in Place::both() {
        let store = place.open_with(bounded(Eviction::Newest));
        let mut core = Core::default();
        let mut dropped = 0;
        for n in 0..500 {
            match store.publish(message("s", "k", &n.to_string())).await {
                Ok(()) => {}
                Err(WriteError::Dropped(_)) => dropped += 1,
                Err(error) => panic!("{error}"),
            }
            if dropped > 0 && n % 50 == 0 {
                store.count_dropped(Lane::DEFAULT).await.unwrap();
            }
        }
        // It was full all the time, and what it says of that is small.
        assert!(dropped > 150 && store.stats().disk_bytes < 40_000);
        store.count_dropped(Lane::DEFAULT).await.unwrap();
        core.drain(&store).await;
        assert_eq!(core.missing(), dropped);
        assert!(core.gaps.len() > 3);
        assert_eq!(core.values.len() as u64 + dropped, 500);
        let times = |gap: &Gap| gap.first_time >= 0 && gap.first_time <= gap.last_time;
        assert!(core.gaps.iter().all(times), "{:?}", core.gaps);
    }
}

#[tokio::test]
async fn damage_costs_one_entry_and_not_the_rest_of_its_segment() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    publish_one_by_one(&store, 0..300).await;
    drop(store);
    let dir = place.dir.join("outbox/data");
    let mut names = disk.list(&dir).unwrap();
    names.sort();
    disk.flip_bit(&dir.join(&names[1]), 2000);
    disk.flip_bit(&dir.join(&names[3]), 3000);
    let store = place.open();
    let mut core = Core::default();
    core.drain(&store).await;
    assert_eq!(core.gaps.len(), 2, "{:?}", core.gaps);
    assert!(core.gaps.iter().all(|gap| gap.reason == GapReason::Damaged));
    assert_eq!((core.missing(), core.values.len()), (2, 298));
    assert_eq!(store.stats().damaged, 2);
}

#[tokio::test]
async fn a_segment_with_a_damaged_header_is_read_all_the_same() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    publish_one_by_one(&store, 0..300).await;
    drop(store);
    let dir = place.dir.join("outbox/data");
    let mut names = disk.list(&dir).unwrap();
    names.sort();
    for name in [&names[0], &names[2], names.last().unwrap()] {
        disk.flip_bit(&dir.join(name), 30);
    }
    let store = place.open();
    assert_eq!(store.stats().set_aside, 3);
    let mut core = Core::default();
    core.drain(&store).await;
    assert_eq!(core.values.len() as u64 + core.missing(), 300);
    assert!(core.missing() <= 1, "{:?}", core.gaps);
    assert_eq!(store.producer().epoch, 1);
}

/// Wherever the disk can not read any more, in the newest segment and in headers too: the store opens, the rest of it is read, and what is missing is said.
#[tokio::test]
async fn a_sector_that_can_not_be_read_costs_what_is_in_it() {
    let seed = seed();
    println!("TOWLINE_SEED={seed}");
    for run in 0..60u64 {
        let (place, disk, _) = Place::simulated();
        let large = |config: &mut Config| config.segment_bytes = 20_000;
        let store = place.open_with(large);
        publish_one_by_one(&store, 0..400).await;
        drop(store);
        let dir = place.dir.join("outbox/data");
        let mut names = disk.list(&dir).unwrap();
        names.sort();
        // The newest that something is in, or any.
        let random = seed.wrapping_add(run).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let which = match run % 3 {
            0 => names.len() - 1,
            _ => random as usize % names.len(),
        };
        let path = dir.join(&names[which]);
        let len = disk.open(&path).unwrap().len().unwrap();
        disk.break_sector(&path, (random >> 8) % len);
        let store = place.open_with(large);
        let mut core = Core::default();
        core.drain(&store).await;
        let whole = (core.values.len() as u64, core.missing());
        assert_eq!(
            whole.0 + whole.1,
            400,
            "TOWLINE_SEED={seed}, run {run}: {whole:?} {:?}",
            core.gaps
        );
        // An entry is more than 100 bytes.
        assert!(whole.1 <= 42, "TOWLINE_SEED={seed}, run {run}: {whole:?}");
        store.publish(message("s", "k", "after")).await.unwrap();
        core.drain(&store).await;
        assert_eq!(core.values.last().unwrap(), "after");
    }
}

#[tokio::test]
async fn a_missing_segment_is_a_gap_with_the_number_of_its_messages() {
    let (place, disk, ledger) = Place::simulated();
    for without_ledger in [false, true] {
        let store = place.open();
        publish_one_by_one(&store, 0..300).await;
        let first = store.uplink(Lane::DEFAULT).position;
        drop(store);
        let dir = place.dir.join("outbox/data");
        let mut names = disk.list(&dir).unwrap();
        names.sort();
        disk.remove(&dir.join(&names[names.len() - 4])).unwrap();
        if without_ledger {
            ledger.lose();
        }
        let store = place.open();
        let mut core = Core::default();
        core.drain(&store).await;
        let known: Vec<&Gap> = core.gaps.iter().filter(|gap| gap.records > 0).collect();
        assert_eq!(known.len(), 1, "{:?}", core.gaps);
        assert!(known[0].records > 10 && known[0].records < 60);
        if !without_ledger {
            let all = store.end(OUTBOX).position - first;
            assert_eq!(core.values.len() as u64 + core.missing(), all);
        }
    }
}

#[tokio::test]
async fn a_disk_that_forgot_the_end_is_found_out() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    publish_one_by_one(&store, 0..300).await;
    drop(store);
    let dir = place.dir.join("outbox/data");
    let mut names = disk.list(&dir).unwrap();
    names.sort();
    for name in &names[names.len() - 2..] {
        disk.remove(&dir.join(name)).unwrap();
    }
    let store = place.open();
    publish_one_by_one(&store, 300..303).await;
    let mut core = Core::default();
    core.drain(&store).await;
    assert_eq!(core.gaps.len(), 1);
    assert_eq!(core.gaps[0].reason, GapReason::Lost);
    assert_eq!(core.values.len() as u64 + core.missing(), 303);
    assert_eq!(core.values.last().unwrap(), "000302");
}

#[tokio::test]
async fn a_refused_batch_is_a_gap_in_its_place() {
    for place in Place::both() {
        let store = place.open();
        publish_one_by_one(&store, 0..10).await;
        let all = frames(&store, OUTBOX).await;
        store.quarantine(&all[4]).unwrap();
        store.quarantine(&all[4]).unwrap();
        drop(store);
        let store = place.open();
        let mut core = Core::default();
        core.drain(&store).await;
        assert_eq!(core.gaps.len(), 1);
        assert_eq!(core.gaps[0].reason, GapReason::Refused);
        assert_eq!((core.missing(), core.values.len()), (1, 9));
    }
}

/// One gap for both, after which both streams go on where they do.
#[tokio::test]
async fn refused_batches_of_two_streams_that_follow_one_another_are_one_gap() {
    for place in Place::both() {
        let store = place.open();
        publish_one_by_one(&store, 0..10).await;
        let all = frames(&store, OUTBOX).await;
        assert_ne!(all[5].stream, all[6].stream);
        store.quarantine(&all[5]).unwrap();
        store.quarantine(&all[6]).unwrap();
        let mut core = Core::default();
        core.drain(&store).await;
        assert_eq!(core.gaps.len(), 1, "{:?}", core.gaps);
        assert_eq!((core.missing(), core.values.len()), (2, 8));
    }
}

/// A gap that the core may know as it was is not made larger: what follows it is told by itself.
#[tokio::test]
async fn what_follows_a_gap_that_was_told_is_another() {
    for place in Place::both() {
        let store = place.open();
        publish_one_by_one(&store, 0..10).await;
        let all = frames(&store, OUTBOX).await;
        store.quarantine(&all[0]).unwrap();
        let start = store.uplink(Lane::DEFAULT);
        let told = store.read_outbox(Lane::DEFAULT, start, 1000).await.unwrap();
        store.quarantine(&all[1]).unwrap();
        let mut core = Core::default();
        core.drain(&store).await;
        assert_eq!(core.gaps.len(), 2, "{:?}", core.gaps);
        assert_eq!(told.gap.as_ref(), core.gaps.first());
    }
}

#[tokio::test]
async fn what_is_too_old_goes_but_not_while_its_time_is_not_known() {
    let (place, _, _) = Place::simulated();
    let store = place.open_with(|config| {
        config.lanes[0].max_age = Some(Duration::from_millis(1000));
    });
    for n in 0..400i64 {
        let mut message = message("s", "k", &n.to_string());
        message.record.timestamp = 10 * n;
        message.blind = (n < 100).then_some(7);
        store.publish(message).await.unwrap();
    }
    store.expire(4000).await.unwrap();
    assert!(
        store.gaps().is_empty(),
        "the first segments are of unknown age"
    );
    store.set_boot_offset(7, 0).await.unwrap();
    store.expire(4000).await.unwrap();
    let mut core = Core::default();
    core.drain(&store).await;
    assert_eq!(core.gaps.len(), 1);
    assert_eq!(core.gaps[0].reason, GapReason::EvictedAge);
    assert_eq!(core.values.len() as u64 + core.missing(), 400);
    assert!((150..300).contains(&core.missing()), "{:?}", core.gaps);
    assert_eq!(store.boot_offsets(), [(7, 0)]);
}

#[tokio::test]
async fn a_full_file_system_still_drains_and_takes_again_when_there_is_room() {
    let (place, disk, _) = Place::simulated();
    let store = place.open();
    publish_one_by_one(&store, 0..200).await;
    disk.set_room(Some(0));
    let refused = store.publish(message("s", "k", "x")).await;
    assert_eq!(refused, Err(WriteError::DiskFull));
    assert!(store.stats().disk_full && !store.failed());
    let mut core = Core::default();
    core.drain(&store).await;
    assert_eq!(core.values.len(), 200);
    store.checkpoint().await.unwrap();
    assert!(store.stats().disk_full);
    disk.set_room(None);
    store.checkpoint().await.unwrap();
    assert!(!store.stats().disk_full);
    publish_one_by_one(&store, 200..210).await;
    core.drain(&store).await;
    assert_eq!(core.values.len(), 210);
    assert!(core.gaps.is_empty());
}

#[tokio::test]
async fn a_fenced_edge_begins_anew_and_says_what_it_set_aside() {
    for place in Place::both() {
        let store = place.open();
        let old = store.producer();
        publish_one_by_one(&store, 0..100).await;
        let theirs = store.clone();
        let fresh = tokio::task::spawn_blocking(move || theirs.fresh_identity(99));
        let fresh = fresh.await.unwrap().unwrap();
        assert_eq!((fresh.previous, fresh.epoch), (Some(old.id), 0));
        publish_one_by_one(&store, 100..120).await;
        let mut core = Core::default();
        core.drain(&store).await;
        assert_eq!((core.missing(), core.values.len()), (100, 20));
        assert_eq!(core.gaps[0].reason, GapReason::Fenced);
        let kept = place.disk.list(&place.dir.join("quarantine")).unwrap();
        assert!(kept.iter().any(|name| name.starts_with("fenced-")));
        drop(store);
        let again = place.open().producer();
        assert_eq!((again.id, again.epoch), (fresh.id, 1));
    }
}

#[tokio::test]
async fn lanes_have_numbers_for_ever_and_one_that_is_not_configured_is_drained() {
    for place in Place::both() {
        let lanes = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| LaneConfig::new(name)).collect();
            move |config: &mut Config| config.lanes = names
        };
        let store = place.open_with(lanes(&["data", "alarms"]));
        let alarms = store.lane("alarms").unwrap();
        let mut alarm = message("s", "k", "fire");
        alarm.lane = alarms;
        store.publish(alarm).await.unwrap();
        drop(store);
        let store = place.open_with(lanes(&["bulk", "data"]));
        assert_eq!(store.lane("data"), Some(Lane(0)));
        assert_eq!(store.lane("alarms"), None);
        assert_ne!(store.lane("bulk"), Some(alarms));
        let at = store.uplink(alarms);
        let read = store.read_outbox(alarms, at, 1000).await.unwrap();
        assert_eq!(values(&read.frames), ["fire"]);
        let batch = &read.frames[0].batch;
        let id = store.producer().id;
        assert_eq!(batch.producer_id(), id + i64::from(alarms.0));
    }
}

#[tokio::test]
async fn what_comes_while_a_lane_lingers_is_one_batch() {
    let (place, _, _) = Place::simulated();
    let store = place.open_with(|config| {
        config.lanes[0].linger = std::time::Duration::from_secs(3600);
    });
    let mut publishing = Vec::new();
    // Enough to end the wait, which lasts longer than any test.
    for n in 0..400 {
        let (store, value) = (store.clone(), format!("{n:0100}"));
        publishing.push(tokio::spawn(async move {
            store.publish(message("s", "k", &value)).await
        }));
    }
    let waiting = publishing.split_off(100);
    for published in publishing {
        published.await.unwrap().unwrap();
    }
    let all = frames(&store, OUTBOX).await;
    assert!(all.len() <= 2, "{} batches", all.len());
    assert!(all[0].batch.record_count() >= 100);
    // The last ones, which are not enough, are written when the store closes.
    store.close();
    for published in waiting {
        published.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_lane_compresses_its_batches_once() {
    let (place, _, _) = Place::simulated();
    let store = place.open_with(|config| {
        config.lanes[0].compression = record::Compression::Zstd;
    });
    let text = "a reading like many others ".repeat(40);
    store.publish(message("s", "k", &text)).await.unwrap();
    store.publish(message("s", "k", "x")).await.unwrap();
    let all = frames(&store, OUTBOX).await;
    assert_eq!(all[0].batch.compression(), record::Compression::Zstd);
    assert_eq!(all[1].batch.compression(), record::Compression::None);
    assert_eq!(values(&all), [text.as_str(), "x"]);
}
