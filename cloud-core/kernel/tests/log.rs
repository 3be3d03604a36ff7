//! The log as its users see it, on a real file system.

use bytes::Bytes;
use kernel::{
    AppendError, Appended, Command, CursorName, Entry, Kernel, KernelConfig, OpenError, Outcome,
    Ports, ReadError, SequenceRule, StreamId, StreamSpec, WriteError,
};
use sim::batches::{address, batch, produced, stamped, values};

fn open(dir: &tempfile::TempDir) -> Kernel {
    open_with(dir, KernelConfig::default())
}

fn open_with(dir: &tempfile::TempDir, config: KernelConfig) -> Kernel {
    Kernel::open(
        Ports::system(
            dir.path(),
            std::sync::Arc::new(kernel::ports::MemoryColdStore::default()),
        )
        .unwrap(),
        config,
    )
    .unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let stream = kernel
        .create_stream(
            &address("s"),
            StreamSpec {
                partitions: 2,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let p = stream.id.partition(1);
    let first = kernel
        .append(p, batch(&["a", "b"]), SequenceRule::None)
        .await
        .unwrap();
    assert_eq!(
        (first.base_offset, first.last_offset, first.duplicate),
        (0, 1, false)
    );
    assert_eq!(
        kernel
            .append(p, batch(&["c"]), SequenceRule::None)
            .await
            .unwrap()
            .base_offset,
        2
    );
    let group = CursorName::from("g");
    kernel
        .cursor_commit(&group, vec![(p, 2, Bytes::from_static(b"note"))])
        .await
        .unwrap();
    kernel
        .write(
            Entry::new()
                .put("t", "k1", "v1")
                .put("t", "k2", "v2")
                .put("t", "x", "y")
                .delete("t", "k1"),
        )
        .await
        .unwrap();
    // "k2" with its value, and "x" with its own.
    assert_eq!(kernel.table_bytes("t"), 6);
    let longer = Entry::new().put("t", "k2", "longer").put("u", "k", "v");
    kernel.write(longer).await.unwrap();
    assert_eq!((kernel.table_bytes("t"), kernel.table_bytes("u")), (10, 2));
    let shorter = Entry::new().put("t", "k2", "v2").delete("u", "k");
    kernel.write(shorter.delete("t", "none")).await.unwrap();
    assert_eq!((kernel.table_bytes("t"), kernel.table_bytes("u")), (6, 0));
    let producer = kernel.allocate_producer_id().await.unwrap();
    let refused = Kernel::open(
        Ports::system(
            dir.path(),
            std::sync::Arc::new(kernel::ports::MemoryColdStore::default()),
        )
        .unwrap(),
        KernelConfig::default(),
    );
    assert!(matches!(refused, Err(OpenError::Locked)));
    drop(kernel);
    // First from the log alone, then from the checkpoint of an orderly stop.
    for from_checkpoint in [false, true] {
        let kernel = open(&dir);
        assert_eq!(kernel.stats().recovered_entries == 0, from_checkpoint);
        assert_eq!(values(&kernel, p, 0).await, ["a", "b", "c"]);
        assert_eq!(kernel.cursor(&group)[0].offset, 2);
        assert_eq!(kernel.cursor(&group)[0].metadata, "note");
        assert_eq!(kernel.table_get("t", b"k1"), None);
        assert_eq!(kernel.table_bytes("t"), 6);
        assert_eq!(
            kernel.table_scan("t", b"k"),
            [(Bytes::from("k2"), Bytes::from("v2"))]
        );
        assert!(kernel.allocate_producer_id().await.unwrap() > producer);
        assert_eq!(*kernel.stream(&address("s")).unwrap(), *stream);
        kernel.shutdown().await;
    }
}

#[tokio::test]
async fn a_reader_waits_for_the_next_commit_and_is_woken_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let a = kernel
        .ensure_stream(&address("a"))
        .await
        .unwrap()
        .id
        .partition(0);
    let b = kernel
        .ensure_stream(&address("b"))
        .await
        .unwrap()
        .id
        .partition(0);
    let waiter = tokio::spawn({
        let kernel = kernel.clone();
        async move { kernel.wait_past(&[(a, 0), (b, 0)]).await }
    });
    tokio::task::yield_now().await;
    kernel
        .append(b, batch(&["x"]), SequenceRule::None)
        .await
        .unwrap();
    waiter.await.unwrap();
    // Already past: at once. Gone: at once.
    kernel.wait_past(&[(b, 0)]).await;
    let waiter = tokio::spawn({
        let kernel = kernel.clone();
        async move { kernel.wait_past(&[(a, 0)]).await }
    });
    tokio::task::yield_now().await;
    kernel.delete_stream(&address("a")).await.unwrap();
    waiter.await.unwrap();
    assert_eq!(
        kernel.read(a, 0, 1).await.unwrap_err(),
        ReadError::UnknownPartition(a)
    );
}

#[tokio::test]
async fn a_window_producer_is_deduplicated_and_kept_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    let send = |epoch, sequence, values: &[&str]| {
        kernel.append(
            p,
            produced(7, epoch, sequence, values),
            SequenceRule::Window,
        )
    };
    assert_eq!(send(0, 0, &["a", "b"]).await.unwrap().base_offset, 0);
    assert_eq!(send(0, 2, &["c"]).await.unwrap().base_offset, 2);
    let again = send(0, 0, &["a", "b"]).await.unwrap();
    assert_eq!(
        (again.base_offset, again.last_offset, again.duplicate),
        (0, 1, true)
    );
    assert_eq!(
        send(0, 5, &["gap"]).await.unwrap_err(),
        AppendError::OutOfOrderSequence {
            producer_id: 7,
            expected: 3,
            found: 5
        }
    );
    for sequence in 3..8 {
        send(0, sequence, &["d"]).await.unwrap();
    }
    // Out of the window of five: no longer known as a duplicate.
    assert!(matches!(
        send(0, 0, &["a", "b"]).await,
        Err(AppendError::OutOfOrderSequence { .. })
    ));
    assert_eq!(send(1, 0, &["new"]).await.unwrap().base_offset, 8);
    assert_eq!(
        send(0, 8, &["old"]).await.unwrap_err(),
        AppendError::FencedEpoch {
            producer_id: 7,
            current: 1,
            found: 0
        }
    );
    assert_eq!(kernel.stats().duplicates, 1);
}

#[tokio::test]
async fn a_strict_producer_may_repeat_anything_ever_sent() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    let send = |epoch, sequence, values: &[&str]| {
        kernel.append(
            p,
            produced(7, epoch, sequence, values),
            SequenceRule::Strict,
        )
    };
    for sequence in 0..20 {
        send(0, sequence, &["x"]).await.unwrap();
    }
    let old = send(0, 3, &["x"]).await.unwrap();
    assert!(old.duplicate);
    assert!(matches!(
        send(0, 21, &["gap"]).await,
        Err(AppendError::OutOfOrderSequence { expected: 20, .. })
    ));
    assert!(matches!(
        send(1, 1, &["gap"]).await,
        Err(AppendError::OutOfOrderSequence { expected: 0, .. })
    ));
    assert!(!send(1, 0, &["y"]).await.unwrap().duplicate);
    assert_eq!(kernel.watermarks(p).unwrap().end, 21);
}

/// What was said to be missing is passed over, once, and only forward; also after a restart.
#[tokio::test]
async fn a_strict_producer_goes_on_where_it_says_that_the_rest_will_never_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut kernel = open(&dir);
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    let advance = |producer_id, epoch, next| Command::AdvanceSequence {
        partition: p,
        producer_id,
        epoch,
        next,
    };
    async fn outcome(kernel: &Kernel, command: Command) -> Outcome {
        let outcomes = kernel.write(Entry::new().with(command)).await.unwrap();
        outcomes.into_iter().next().unwrap()
    }
    let expected = |result: Result<Appended, AppendError>| match result {
        Err(AppendError::OutOfOrderSequence { expected, .. }) => expected,
        other => panic!("not out of order: {other:?}"),
    };
    let send = async |kernel: &Kernel, epoch, sequence, values: &[&str]| {
        kernel
            .append(
                p,
                produced(7, epoch, sequence, values),
                SequenceRule::Strict,
            )
            .await
    };
    send(&kernel, 3, 0, &["a", "b"]).await.unwrap();
    assert_eq!(expected(send(&kernel, 3, 9, &["x"]).await), 2);
    assert_eq!(outcome(&kernel, advance(7, 3, 9)).await, Outcome::Done);
    for back in [
        advance(7, 3, 9),
        advance(7, 3, 2),
        advance(7, 2, 50),
        advance(7, 3, -1),
    ] {
        assert_eq!(outcome(&kernel, back).await, Outcome::NoEffect);
    }
    assert_eq!(expected(send(&kernel, 3, 10, &["x"]).await), 9);
    kernel.shutdown().await;
    drop(kernel);
    kernel = open(&dir);
    assert!(!send(&kernel, 3, 9, &["c"]).await.unwrap().duplicate);
    assert!(send(&kernel, 3, 4, &["late"]).await.unwrap().duplicate);

    // A newer epoch begins where it says, what is below it counts as done there too, and the older one is over.
    assert_eq!(outcome(&kernel, advance(7, 5, 4)).await, Outcome::Done);
    assert_eq!(expected(send(&kernel, 5, 6, &["x"]).await), 4);
    assert!(send(&kernel, 5, 0, &["x"]).await.unwrap().duplicate);
    assert!(matches!(
        send(&kernel, 3, 10, &["x"]).await,
        Err(AppendError::FencedEpoch { current: 5, .. })
    ));
    assert!(!send(&kernel, 5, 4, &["d"]).await.unwrap().duplicate);

    // In one entry with what follows, and for a producer that nobody has seen; in a stream that is not there it is nothing.
    let both = Entry::new().with(advance(8, 0, 20)).append(
        p,
        produced(8, 0, 20, &["e"]),
        SequenceRule::Strict,
    );
    let outcomes = kernel.write(both).await.unwrap();
    assert!(matches!(outcomes[..], [Outcome::Done, Outcome::Appended(a)] if !a.duplicate));
    let nowhere = Command::AdvanceSequence {
        partition: StreamId(99).partition(0),
        producer_id: 7,
        epoch: 0,
        next: 1,
    };
    assert_eq!(outcome(&kernel, nowhere).await, Outcome::NoEffect);
    assert_eq!(kernel.watermarks(p).unwrap().end, 5);
}

#[tokio::test]
async fn an_entry_is_applied_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    // Two batches of one producer in one entry: the second continues the first.
    let both = Entry::new()
        .append(p, produced(1, 0, 0, &["a"]), SequenceRule::Window)
        .append(p, produced(1, 0, 1, &["b"]), SequenceRule::Window);
    assert!(
        kernel
            .write(both)
            .await
            .unwrap()
            .iter()
            .all(|o| matches!(o, Outcome::Appended(a) if !a.duplicate))
    );
    let bad = Entry::new()
        .put("t", "k", "v")
        .append(p, batch(&["c"]), SequenceRule::None)
        .append(p, produced(1, 0, 9, &["d"]), SequenceRule::Window);
    let outcomes = kernel.write(bad).await.unwrap();
    assert!(matches!(
        outcomes[..],
        [
            Outcome::NotApplied,
            Outcome::NotApplied,
            Outcome::Refused(AppendError::OutOfOrderSequence { .. })
        ]
    ));
    assert_eq!(kernel.table_get("t", b"k"), None);
    assert_eq!(kernel.watermarks(p).unwrap().end, 2);
    // An entry that comes again brings nothing old back: its table values were put with its batch, and may be newer now.
    let once = || {
        Entry::new()
            .append(p, produced(1, 0, 2, &["c"]), SequenceRule::Window)
            .put("t", "k", "old")
    };
    let outcomes = kernel.write(once()).await.unwrap();
    assert!(matches!(outcomes[..], [Outcome::Appended(a), Outcome::Done] if !a.duplicate));
    kernel
        .write(Entry::new().put("t", "k", "new"))
        .await
        .unwrap();
    let outcomes = kernel.write(once()).await.unwrap();
    assert!(
        matches!(outcomes[..], [Outcome::Appended(a), Outcome::NoEffect] if a.duplicate && a.base_offset == 2)
    );
    assert_eq!(kernel.table_get("t", b"k").as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn reads_go_from_disk_to_memory_without_a_seam() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open_with(
        &dir,
        KernelConfig {
            tail_bytes: 2000,
            wal_file_bytes: 4096,
            ..KernelConfig::default()
        },
    );
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    let all: Vec<String> = (0..200).map(|n| format!("value {n}")).collect();
    for value in &all {
        kernel
            .append(p, batch(&[value]), SequenceRule::None)
            .await
            .unwrap();
    }
    assert_eq!(values(&kernel, p, 0).await, all);
    assert_eq!(values(&kernel, p, 150).await, all[150..]);
    let stats = kernel.stats();
    assert!(
        stats.tail_bytes <= 2000
            && stats.tail_misses > 0
            && stats.tail_hits > 0
            && stats.wal_files > 2,
        "{stats:?}"
    );
    // One batch at least, and never past the bound after it.
    assert_eq!(kernel.read(p, 3, 1).await.unwrap().batches.len(), 1);
    assert!(kernel.read(p, 200, 1).await.unwrap().batches.is_empty());
    assert!(matches!(
        kernel.read(p, 201, 1).await,
        Err(ReadError::OutOfRange { end: 200, .. })
    ));
}

#[tokio::test]
async fn retention_removes_old_batches_and_then_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let config = KernelConfig {
        wal_file_bytes: 4096,
        checkpoint_wal_bytes: 4096,
        ..KernelConfig::default()
    };
    let kernel = open_with(&dir, config.clone());
    let spec = StreamSpec {
        partitions: 1,
        config: [("retention.bytes".to_owned(), "500".to_owned())].into(),
    };
    let p = kernel
        .create_stream(&address("s"), spec)
        .await
        .unwrap()
        .id
        .partition(0);
    for n in 0..300 {
        kernel
            .append(p, batch(&[&format!("value {n}")]), SequenceRule::None)
            .await
            .unwrap();
        if n % 100 == 99 {
            kernel.maintain().await;
        }
    }
    kernel.maintain().await;
    let start = kernel.watermarks(p).unwrap().log_start;
    assert!((280..299).contains(&start), "{start}");
    assert!(matches!(
        kernel.read(p, 0, 1).await,
        Err(ReadError::OutOfRange { .. })
    ));
    assert!(kernel.stats().wal_files < 8, "{}", kernel.stats().wal_files);
    assert!(kernel.stats().checkpoints >= 2);
    drop(kernel);
    let kernel = open_with(&dir, config);
    assert_eq!(kernel.watermarks(p).unwrap().log_start, start);
    assert_eq!(
        values(&kernel, p, start).await.len(),
        usize::try_from(300 - start).unwrap()
    );
    assert_eq!(kernel.trim(p, 299).await.unwrap(), 299);
    assert_eq!(kernel.trim(p, 0).await.unwrap(), 299);
    assert!(kernel.trim(p, 301).await.is_err());
}

#[tokio::test]
async fn time_finds_the_first_record_that_is_late_enough() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    for timestamp in [100, 300, 200, 400] {
        kernel
            .append(p, stamped(timestamp, "x"), SequenceRule::None)
            .await
            .unwrap();
    }
    assert_eq!(
        kernel.offset_for_timestamp(p, 0).await.unwrap(),
        Some((0, 100))
    );
    assert_eq!(
        kernel.offset_for_timestamp(p, 150).await.unwrap(),
        Some((1, 300))
    );
    assert_eq!(
        kernel.offset_for_timestamp(p, 301).await.unwrap(),
        Some((3, 400))
    );
    assert_eq!(kernel.offset_for_timestamp(p, 401).await.unwrap(), None);
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open_with(
        &dir,
        KernelConfig {
            max_batch_bytes: 1000,
            ..KernelConfig::default()
        },
    );
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    let large = batch(&[&"x".repeat(2000)]);
    assert!(matches!(
        kernel.append(p, large, SequenceRule::None).await,
        Err(AppendError::TooLarge { limit: 1000, .. })
    ));
    let unknown = p.stream.partition(9);
    assert_eq!(
        kernel
            .append(unknown, batch(&["x"]), SequenceRule::None)
            .await
            .unwrap_err(),
        AppendError::UnknownPartition(unknown)
    );
    let config = [("retention.ms".to_owned(), "soon".to_owned())].into();
    assert!(
        kernel
            .create_stream(
                &address("t"),
                StreamSpec {
                    partitions: 1,
                    config
                }
            )
            .await
            .is_err()
    );
    assert!(kernel.add_partitions(&address("s"), 1).await.is_err());
    assert_eq!(
        kernel
            .add_partitions(&address("s"), 3)
            .await
            .unwrap()
            .partitions,
        3
    );
    kernel.shutdown().await;
    assert_eq!(
        kernel
            .write(Entry::from_iter([Command::AllocateProducerIds {
                count: 1
            }]))
            .await
            .unwrap_err(),
        WriteError::Closed
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_syncs_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let p = kernel
        .ensure_stream(&address("s"))
        .await
        .unwrap()
        .id
        .partition(0);
    let writers = (0..16).map(|writer| {
        let kernel = kernel.clone();
        tokio::spawn(async move {
            // Not awaited one by one: the order of calls is the order in the log.
            let sent: Vec<_> = (0..50)
                .map(|n| kernel.append(p, batch(&[&format!("{writer} {n}")]), SequenceRule::None))
                .collect();
            for append in sent {
                append.await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let all = values(&kernel, p, 0).await;
    assert_eq!(all.len(), 800);
    for writer in 0..16 {
        let own: Vec<_> = all
            .iter()
            .filter(|v| v.starts_with(&format!("{writer} ")))
            .cloned()
            .collect();
        assert_eq!(
            own,
            (0..50).map(|n| format!("{writer} {n}")).collect::<Vec<_>>()
        );
    }
    assert!(kernel.stats().fsyncs < 800);
}
