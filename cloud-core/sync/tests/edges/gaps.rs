//! Entries that will never come: said once, readable by everybody, and nothing after them waits.

use cloud_sync::{Gap, GapsError};
use kernel::{SequenceRule, StreamSpec};
use record::{BatchBuilder, partition_for_key};
use serde_json::{Value, json};
use sync_quic::{BatchFrame, Connection, Event, GapFrame, Hello, RefuseCode};

use crate::core::*;

fn gap(first: u64, next: u64, epoch: i16, sequences: &[(&str, i32)]) -> GapFrame {
    let report = json!({ "first": first, "next": next, "records": 3, "reason": "evicted-bytes" });
    GapFrame {
        lane: 0,
        frame: next - 1,
        report: report.to_string().into(),
        producer_id: PRODUCER,
        epoch,
        next: sequences
            .iter()
            .map(|(stream, next)| ((*stream).to_owned(), *next))
            .collect(),
    }
}

/// Everything of the lane up to `frame` is settled, and nothing was refused.
async fn acknowledged(events: &mut Events, lane: u8, frame: u64) {
    loop {
        match events.next().await {
            Event::Ack { lane: l, frame: f } if (l, f) == (lane, frame) => return,
            Event::Ack { .. } | Event::Pace(_) => {}
            other => panic!("not frame {frame} of lane {lane}: {other:?}"),
        }
    }
}

async fn send(connection: &Connection, number: u64, epoch: i16, first: i32, value: &str) {
    let batch = batch_of(
        PRODUCER,
        epoch,
        first,
        &[record("plant/a", value.as_bytes())],
    );
    connection.send_batch(frame(number, &batch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_noted_once_and_what_comes_after_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let hello = Hello {
        lanes: vec![lane(0, "bulk")],
        ..hello(PRODUCER, 2, 9)
    };
    let (connection, mut events) = connect_as(&core.address(), &identity, hello.clone())
        .await
        .unwrap();
    send(&connection, 1, 1, 0, "0").await;
    acknowledged(&mut events, 0, 1).await;
    // Frames 2 to 4 are gone; with them the last sequences of epoch 1, and the first of epoch 2.
    connection
        .send_gap(gap(2, 5, 2, &[("plant", 2), ("never-made", 4)]))
        .await
        .unwrap();
    send(&connection, 5, 2, 2, "2").await;
    acknowledged(&mut events, 0, 5).await;
    connection.close();

    // None of that was heard, and all of it comes again; then the gap grows before it is acknowledged.
    let (connection, mut events) = connect_as(&core.address(), &identity, hello).await.unwrap();
    send(&connection, 1, 1, 0, "0").await;
    connection
        .send_gap(gap(2, 5, 2, &[("plant", 2), ("never-made", 4)]))
        .await
        .unwrap();
    send(&connection, 5, 2, 2, "2").await;
    connection
        .send_gap(gap(6, 8, 2, &[("plant", 9)]))
        .await
        .unwrap();
    send(&connection, 8, 2, 9, "9").await;
    acknowledged(&mut events, 0, 8).await;

    let values: Vec<_> = core
        .records("plant", "e1")
        .await
        .into_iter()
        .map(|(_, v)| v)
        .collect();
    assert_eq!(values, [b"0".to_vec(), b"2".to_vec(), b"9".to_vec()]);
    let reports: Vec<(String, Value)> = core
        .all_records("_gaps")
        .await
        .into_iter()
        .map(|(key, value)| (key, serde_json::from_slice(&value).unwrap()))
        .collect();
    assert_eq!(reports.len(), 2, "each gap once: {reports:?}");
    for (key, report) in &reports {
        assert_eq!(key, "e1/bulk");
        assert_eq!(report["edge"], "e1");
        assert_eq!(report["report"]["reason"], "evicted-bytes");
    }
    let kept: Vec<_> = core
        .sync
        .edge_gaps("e1")
        .into_iter()
        .map(|g| (g.first, g.last))
        .collect();
    assert_eq!(kept, [(2, 4), (6, 7)]);
    assert!(core.ctx.kernel.stream(&address("never-made")).is_none());

    // What no gap explains is still an alarm.
    send(&connection, 9, 2, 20, "20").await;
    let Event::Refused(refused) = events.next().await else {
        panic!("a hole was taken")
    };
    assert_eq!(refused.code, RefuseCode::OutOfOrder);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gap_may_not_say_and_what_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    let table = [
        (
            GapFrame {
                producer_id: PRODUCER + 1,
                ..gap(1, 2, 0, &[])
            },
            RefuseCode::WrongProducer,
        ),
        (gap(2, 3, 1, &[]), RefuseCode::WrongProducer),
        (gap(3, 4, -1, &[]), RefuseCode::WrongProducer),
        (gap(4, 5, 0, &[("plant", -1)]), RefuseCode::Malformed),
        (
            gap(5, 6, 0, &[("no such/name", 1)]),
            RefuseCode::InvalidStream,
        ),
    ];
    for (frame, code) in table {
        let number = frame.frame;
        connection.send_gap(frame).await.unwrap();
        let Event::Refused(refused) = events.next().await else {
            panic!("gap {number} was taken")
        };
        assert_eq!((refused.frame, refused.code), (number, code));
        acknowledged(&mut events, 0, number).await;
    }
    // A report that is no JSON object is kept as it is.
    let odd = GapFrame {
        report: "lost \u{1F4A5}".into(),
        ..gap(9, 10, 0, &[])
    };
    connection.send_gap(odd).await.unwrap();
    acknowledged(&mut events, 0, 9).await;
    let kept = core.sync.edge_gaps("e1");
    assert_eq!(
        (kept[0].first, kept[0].last, kept[0].name.as_str()),
        (9, 9, "0")
    );
    assert_eq!(kept[0].report["report"], "lost \u{1F4A5}");
    core.stop().await;
}

/// Every gap of the edge that the stream has, page by page, with the number of pages and of the records that are gone.
async fn every_gap(core: &Core, edge: &str) -> (Vec<Gap>, usize, u64) {
    let (mut gaps, mut pages, mut gone) = (Vec::new(), 0, 0);
    let mut after = None;
    loop {
        let page = core.sync.edge_gaps_page(edge, after.as_deref()).await;
        let page = page.unwrap();
        assert_eq!(page.damaged, 0);
        gaps.extend(page.gaps);
        pages += 1;
        gone += page.gone;
        match page.next {
            Some(next) => assert_ne!(after.replace(next), after),
            None => return (gaps, pages, gone),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gap_of_an_edge_is_in_pages_of_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    // Of each partition little is read for a page.
    let spec = StreamSpec {
        partitions: 100,
        ..StreamSpec::default()
    };
    let reports = address("_gaps");
    let made = core.ctx.kernel.create_stream(&reports, spec).await;
    let stream = made.unwrap();
    let of_edge = |name: &'static str, producer_id| {
        let core = &core;
        async move {
            let identity = core.enrol(name).await;
            let lanes = vec![lane(0, "bulk"), lane(3, "alarms")];
            let hello = Hello {
                lanes,
                ..hello(producer_id, 0, 9)
            };
            let connected = connect_as(&core.address(), &identity, hello).await;
            connected.unwrap()
        }
    };
    // The name of one begins with that of the other.
    let (one, mut events) = of_edge("e1", PRODUCER).await;
    let (other, mut of_other) = of_edge("e10", PRODUCER + 0x100).await;
    for n in 1..=300 {
        one.send_gap(gap(2 * n, 2 * n + 1, 0, &[])).await.unwrap();
        acknowledged(&mut events, 0, 2 * n).await;
        if n % 50 == 0 {
            let alarm = GapFrame {
                lane: 3,
                producer_id: PRODUCER + 3,
                ..gap(n, n + 1, 0, &[])
            };
            one.send_gap(alarm).await.unwrap();
            acknowledged(&mut events, 3, n).await;
            let theirs = GapFrame {
                producer_id: PRODUCER + 0x100,
                ..gap(n, n + 1, 0, &[])
            };
            other.send_gap(theirs).await.unwrap();
            acknowledged(&mut of_other, 0, n).await;
        }
    }
    // Clients can write there.
    let bulk = stream
        .id
        .partition(partition_for_key(Some(b"e1/bulk"), stream.partitions));
    for odd in [record("e1/bulk", b"not JSON"), record("e1/bulk", b"{}")] {
        let batch = BatchBuilder::new().with(&odd);
        let appended = core.ctx.kernel.append(bulk, batch, SequenceRule::None);
        appended.await.unwrap();
    }

    let (gaps, pages, gone) = every_gap(&core, "e1").await;
    assert!(pages > 3, "{pages} pages");
    assert_eq!(gone, 0);
    let of_lane = |gaps: &[Gap], name: &str| -> Vec<u64> {
        let of_lane = gaps.iter().filter(|gap| gap.name == name);
        of_lane.map(|gap| gap.first).collect()
    };
    let all: Vec<u64> = (1..=300).map(|n| 2 * n).collect();
    assert_eq!(of_lane(&gaps, "bulk"), all);
    assert_eq!(of_lane(&gaps, "alarms"), [50, 100, 150, 200, 250, 300]);
    assert!(gaps.is_sorted_by_key(|gap| gap.received_ms));
    assert_eq!(every_gap(&core, "e10").await.0.len(), 6);
    assert_eq!(every_gap(&core, "e").await.0.len(), 0);
    // A few are kept, all are counted, each once, however often it is told.
    one.send_gap(gap(600, 701, 0, &[])).await.unwrap();
    acknowledged(&mut events, 0, 700).await;
    assert_eq!(core.sync.edge_gaps("e1").len(), 256);
    let totals = core.sync.edge_gap_totals("e1");
    assert_eq!((totals.ranges, totals.records), (306, 3 * 306));

    // What retention takes is said.
    core.ctx.kernel.trim(bulk, 100).await.unwrap();
    let (left, _, gone) = every_gap(&core, "e1").await;
    assert_eq!((left.len(), gone), (207, 100));
    assert_eq!(core.sync.edge_gap_totals("e1"), totals);
    let of_another = format!("{}:1", stream.id.0 + 1);
    for place in ["", "x", &of_another] {
        let refused = core.sync.edge_gaps_page("e1", Some(place)).await;
        assert!(matches!(refused, Err(GapsError::Place)), "{place}");
    }
    core.stop().await;
}

/// A lane whose frames are refused, and one that has much to bring, do not hold the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_do_not_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let hello = Hello {
        lanes: vec![lane(0, "bulk"), lane(3, "alarm")],
        ..hello(PRODUCER, 0, 0)
    };
    let (connection, mut events) = connect_as(&core.address(), &identity, hello).await.unwrap();
    for number in 0..200 {
        send(&connection, number + 1, 0, number as i32, "bulk").await;
        // Frames of both lanes have numbers and sequences of their own.
        let alarm = batch(PRODUCER + 3, number as i32, &[record("plant/a", b"alarm")]);
        let alarm = BatchFrame {
            lane: 3,
            ..frame(number + 100, &alarm)
        };
        connection.send_batch(alarm).await.unwrap();
    }
    let mut acked = [0, 0];
    while acked != [200, 299] {
        match events.next().await {
            Event::Ack { lane, frame } => acked[usize::from(lane == 3)] = frame,
            Event::Pace(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(core.records("plant", "e1").await.len(), 400);
    let lanes = core.sync.edge("e1").unwrap().lanes;
    let lanes: Vec<_> = lanes
        .iter()
        .map(|l| (l.name.as_str(), l.last_frame))
        .collect();
    assert_eq!(lanes, [("bulk", Some(200)), ("alarm", Some(299))]);
    core.stop().await;
}
