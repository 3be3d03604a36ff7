//! Two lanes with one bound on bytes: the new and the backlog of it.

use super::gaps::Core;
use super::*;

const MAX: u64 = 60_000;
/// What the headers of two segments may be beyond it.
const HEADERS: u64 = 1_000;

fn shared(eviction: Eviction) -> impl Fn(&mut Config) {
    move |config| {
        config.lanes[0].max_bytes = MAX;
        config.lanes[0].eviction = eviction;
        config.lanes.push(LaneConfig {
            shares: Some(config.lanes[0].name.clone()),
            ..config.lanes[0].clone()
        });
        config.lanes[1].name = "backlog".into();
    }
}

async fn publish(store: &Arc<Store>, lane: Lane, n: u32) -> Result<(), WriteError> {
    let text = format!("{n:06} {}", "x".repeat(100));
    let message = NewMessage {
        lane,
        ..message("s", "k", &text)
    };
    store.publish(message).await
}

#[tokio::test]
async fn the_oldest_of_the_backlog_go_first_and_both_say_what_went() {
    for place in Place::both() {
        let mut store = place.open_with(shared(Eviction::Oldest));
        let (new, backlog) = (Lane::DEFAULT, store.lane("backlog").unwrap());
        let is_bounded = |store: &Store| {
            let bytes = store.stats().disk_bytes;
            assert!(bytes < MAX + HEADERS, "{bytes}");
        };
        for n in 0..100 {
            publish(&store, new, n).await.unwrap();
        }
        for n in 0..1000 {
            publish(&store, backlog, n).await.unwrap();
            is_bounded(&store);
        }
        let of = |store: &Store, lane| store.gaps().iter().filter(|g| g.lane == lane).count();
        assert_eq!((of(&store, new), of(&store, backlog)), (0, 1));
        // Nothing writes to the backlog: its segments go all the same.
        let before = store.gaps()[0].records;
        for n in 100..180 {
            publish(&store, new, n).await.unwrap();
            is_bounded(&store);
        }
        assert_eq!((of(&store, new), of(&store, backlog)), (0, 1));
        assert!(store.gaps()[0].records > before + 50);
        store = {
            drop(store);
            place.open_with(shared(Eviction::Oldest))
        };
        // Until there is none of it but what is written to, and the new itself is too much.
        for n in 180..1500 {
            publish(&store, new, n).await.unwrap();
            is_bounded(&store);
        }
        assert!(of(&store, new) == 1 && of(&store, backlog) > 0);
        for (lane, published) in [(new, 1500), (backlog, 1000)] {
            let mut core = Core::default();
            core.drain_lane(&store, lane).await;
            let came = core.values.len() as u64;
            assert_eq!(came + core.missing(), published, "{lane:?}");
            let reason = |gap: &Gap| gap.reason == GapReason::EvictedBytes && gap.lane == lane;
            assert!(core.gaps.iter().all(reason));
            let evicted = store.lane_stats().into_iter();
            let mut evicted = evicted.filter(|(info, _)| info.lane == lane);
            assert!(evicted.next().unwrap().1.evicted <= core.missing());
        }
        assert!(store.gaps().is_empty());
    }
}

#[tokio::test]
async fn what_the_core_has_goes_before_anything_is_missing() {
    for place in Place::both() {
        let store = place.open_with(shared(Eviction::Oldest));
        let (new, backlog) = (Lane::DEFAULT, store.lane("backlog").unwrap());
        // A local session has not read it.
        let session = Session {
            epoch: 1,
            checkpoints: vec![Checkpoint {
                log: LogId::Outbox(new),
                position: 0,
            }],
            bytes: Bytes::new(),
        };
        store.save_session("reader", session).await.unwrap();
        for n in 0..200 {
            publish(&store, new, n).await.unwrap();
        }
        let mut core = Core::default();
        core.drain_lane(&store, new).await;
        store.checkpoint().await.unwrap();
        let mut n = 0;
        while store.gaps().is_empty() {
            publish(&store, backlog, n).await.unwrap();
            n += 1;
        }
        let stats = store.lane_stats();
        assert!(stats[0].1.disk_bytes < MAX / 8, "{stats:?}");
        assert!(stats[1].1.disk_bytes > MAX * 3 / 4, "{stats:?}");
    }
}

#[tokio::test]
async fn what_is_refused_or_dropped_is_counted_over_both() {
    for place in Place::both() {
        for eviction in [Eviction::Reject, Eviction::Newest] {
            let store = place.open_with(shared(eviction));
            let (new, backlog) = (Lane::DEFAULT, store.lane("backlog").unwrap());
            let mut cores = [Core::default(), Core::default()];
            for round in 0..3 {
                let lanes = [backlog, new];
                let mut n = 0;
                loop {
                    while publish(&store, lanes[n % 2], round).await.is_ok() {
                        n += 1;
                    }
                    // What the core has goes, and nothing else.
                    store.checkpoint().await.unwrap();
                    if publish(&store, lanes[n % 2], round).await.is_err() {
                        break;
                    }
                }
                assert!(n > 100, "{n}");
                assert!(store.stats().disk_bytes < MAX + HEADERS);
                // Where the one finds no room, the other finds none.
                for lane in [new, backlog] {
                    let refused = publish(&store, lane, round).await.unwrap_err();
                    assert_eq!(
                        matches!(refused, WriteError::Dropped(_)),
                        eviction == Eviction::Newest
                    );
                }
                for (lane, core) in [new, backlog].into_iter().zip(&mut cores) {
                    core.drain_lane(&store, lane).await;
                }
                store.checkpoint().await.unwrap();
            }
        }
    }
}
