//! Queues as their users see them.

use std::sync::Arc;

use kernel::{
    DeliveryId, HolderId, Kernel, KernelConfig, PartitionId, Ports, Queue, QueueError, QueueName,
    QueueSource, Selector, SequenceRule, Stream, StreamSpec, Verdict,
};
use record::Record;
use sim::batches::{address, batch};

const ME: HolderId = HolderId(1);

fn open(dir: &tempfile::TempDir) -> Kernel {
    Kernel::open(
        Ports::system(
            dir.path(),
            Arc::new(kernel::ports::MemoryColdStore::default()),
        )
        .unwrap(),
        KernelConfig::default(),
    )
    .unwrap()
}

fn name() -> QueueName {
    QueueName::from("q")
}

async fn source(kernel: &Kernel, stream: &str) -> PartitionId {
    kernel
        .ensure_stream(&address(stream))
        .await
        .unwrap()
        .id
        .partition(0)
}

async fn put(kernel: &Kernel, partition: PartitionId, value: &str) {
    kernel
        .append(partition, batch(&[value]), SequenceRule::None)
        .await
        .unwrap();
}

fn from_start(partitions: &[PartitionId]) -> Vec<QueueSource> {
    partitions
        .iter()
        .map(|partition| QueueSource {
            partition: *partition,
            from: 0,
        })
        .collect()
}

/// Value, redelivered, id.
async fn take(queue: &Queue, max: usize) -> Vec<(String, bool, DeliveryId)> {
    let acquired = queue.acquire(ME, max, usize::MAX).await;
    let text = |record: Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
    acquired
        .into_iter()
        .map(|a| (text(a.record), a.redelivered, a.id))
        .collect()
}

fn texts(taken: &[(String, bool, DeliveryId)]) -> Vec<&str> {
    taken.iter().map(|(text, ..)| text.as_str()).collect()
}

#[tokio::test]
async fn records_come_in_commit_order_over_all_sources_and_go_back_to_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let (a, b) = (source(&kernel, "a").await, source(&kernel, "b").await);
    let queue = kernel.queue(&name(), Arc::new(()));
    queue.set_sources(from_start(&[a, b])).await.unwrap();
    for (partition, value) in [(b, "1"), (a, "2"), (a, "3"), (b, "4"), (a, "5")] {
        put(&kernel, partition, value).await;
    }
    let first = take(&queue, 3).await;
    assert_eq!(texts(&first), ["1", "2", "3"]);
    assert!(first.iter().all(|(_, redelivered, _)| !redelivered));
    assert_eq!(
        queue.settle(&[first[1].2], Verdict::Release).await.unwrap(),
        1
    );
    let second = take(&queue, 10).await;
    assert_eq!(texts(&second), ["2", "4", "5"]);
    assert_eq!(
        second
            .iter()
            .map(|(_, redelivered, _)| *redelivered)
            .collect::<Vec<_>>(),
        [true, false, false]
    );
    assert_eq!(queue.in_flight(), 5);
    assert_eq!(queue.release_holder(ME), 5);
    assert_eq!((queue.ready(), queue.in_flight()), (5, 0));
    let all = take(&queue, 10).await;
    assert_eq!(texts(&all), ["1", "2", "3", "4", "5"]);
    let ids: Vec<_> = all.iter().map(|(.., id)| *id).collect();
    assert_eq!(queue.settle(&ids[..4], Verdict::Accept).await.unwrap(), 4);
    assert_eq!(queue.settle(&ids[..4], Verdict::Accept).await.unwrap(), 0);
    assert_eq!(queue.settle(&ids[4..], Verdict::Reject).await.unwrap(), 1);
    assert!(take(&queue, 10).await.is_empty());
    assert_eq!(
        queue.sources(),
        [
            QueueSource {
                partition: a,
                from: 3
            },
            QueueSource {
                partition: b,
                from: 2
            }
        ]
    );
}

#[tokio::test]
async fn what_was_settled_stays_settled_over_restarts_and_the_rest_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let a = source(&kernel, "a").await;
    let queue = kernel.queue(&name(), Arc::new(()));
    queue.set_sources(from_start(&[a])).await.unwrap();
    kernel
        .append(
            a,
            batch(&["0", "1", "2", "3", "4", "5"]),
            SequenceRule::None,
        )
        .await
        .unwrap();
    let taken = take(&queue, 4).await;
    queue
        .settle(&[taken[1].2, taken[3].2], Verdict::Accept)
        .await
        .unwrap();
    // Without an orderly end nobody knows what was handed out: everything that existed may have been.
    drop((queue, kernel));
    let kernel = open(&dir);
    let queue = kernel.queue(&name(), Arc::new(()));
    put(&kernel, a, "6").await;
    let taken = take(&queue, 2).await;
    assert_eq!(
        (texts(&taken), taken[0].1, taken[1].1),
        (vec!["0", "2"], true, true)
    );
    queue.release_holder(ME);
    let all = take(&queue, 10).await;
    assert_eq!(texts(&all), ["0", "2", "4", "5", "6"]);
    assert_eq!(
        all.iter().map(|(_, r, _)| *r).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );
    queue.settle(&[all[0].2], Verdict::Accept).await.unwrap();
    drop(queue);
    put(&kernel, a, "7").await;
    let queue = kernel.queue(&name(), Arc::new(()));
    assert_eq!(texts(&take(&queue, 1).await), ["2"]);
    kernel.shutdown().await;
    drop((queue, kernel));
    // After an orderly end it is known.
    let kernel = open(&dir);
    assert_eq!(kernel.queues(), [name()]);
    assert!(kernel.has_queue(&name()));
    put(&kernel, a, "8").await;
    let queue = kernel.queue(&name(), Arc::new(()));
    let all = take(&queue, 10).await;
    assert_eq!(texts(&all), ["2", "4", "5", "6", "7", "8"]);
    assert!(all[0].1 && !all[5].1);
}

#[tokio::test]
async fn the_selector_chooses() {
    struct Odd;
    impl Selector for Odd {
        fn selects(&self, _: &Stream, _: PartitionId, record: &Record) -> bool {
            record
                .value
                .as_ref()
                .is_some_and(|v| v.last().is_some_and(|digit| digit % 2 == 1))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let a = source(&kernel, "a").await;
    let queue = kernel.queue(&name(), Arc::new(Odd));
    queue
        .set_sources(vec![QueueSource {
            partition: a,
            from: 2,
        }])
        .await
        .unwrap();
    kernel
        .append(
            a,
            batch(&["1", "2", "3", "4", "5", "6"]),
            SequenceRule::None,
        )
        .await
        .unwrap();
    queue.catch_up().await;
    assert_eq!(queue.ready(), 2);
    let taken = take(&queue, 9).await;
    assert_eq!(texts(&taken), ["3", "5"]);
    queue
        .settle(&[taken[0].2, taken[1].2], Verdict::Accept)
        .await
        .unwrap();
    assert_eq!(queue.sources()[0].from, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_consumer_is_woken_by_commit_release_and_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let a = source(&kernel, "a").await;
    let queue = kernel.queue(&name(), Arc::new(()));
    let wait = |queue: &Arc<Queue>| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.wait_ready().await })
    };
    let waiting = wait(&queue);
    queue.set_sources(from_start(&[a])).await.unwrap();
    put(&kernel, a, "x").await;
    waiting.await.unwrap();
    let taken = take(&queue, 1).await;
    let waiting = wait(&queue);
    tokio::task::yield_now().await;
    queue.settle(&[taken[0].2], Verdict::Release).await.unwrap();
    waiting.await.unwrap();
    let taken = take(&queue, 1).await;
    let waiting = wait(&queue);
    tokio::task::yield_now().await;
    queue.delete().await.unwrap();
    waiting.await.unwrap();
    assert_eq!(
        queue.settle(&[taken[0].2], Verdict::Accept).await,
        Err(QueueError::Deleted)
    );
    assert!(kernel.queues().is_empty());
    assert!(!kernel.has_queue(&name()));
    let fresh = kernel.queue(&name(), Arc::new(()));
    assert!(fresh.sources().is_empty() && !Arc::ptr_eq(&fresh, &queue));
}

#[tokio::test]
async fn purge_takes_what_is_ready_and_leaves_what_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let a = source(&kernel, "a").await;
    let queue = kernel.queue(&name(), Arc::new(()));
    queue.set_sources(from_start(&[a])).await.unwrap();
    kernel
        .append(a, batch(&["0", "1", "2", "3"]), SequenceRule::None)
        .await
        .unwrap();
    let taken = take(&queue, 1).await;
    assert_eq!(queue.purge().await.unwrap(), 3);
    assert_eq!((queue.ready(), queue.in_flight()), (0, 1));
    queue.settle(&[taken[0].2], Verdict::Release).await.unwrap();
    drop((queue, kernel));
    let queue = open(&dir).queue(&name(), Arc::new(()));
    assert_eq!(texts(&take(&queue, 9).await), ["0"]);
}

#[tokio::test]
async fn a_source_can_be_dropped_and_retention_wins_over_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let (a, b) = (source(&kernel, "a").await, source(&kernel, "b").await);
    let queue = kernel.queue(&name(), Arc::new(()));
    queue.set_sources(from_start(&[a, b])).await.unwrap();
    for value in ["0", "1", "2"] {
        put(&kernel, a, value).await;
        put(&kernel, b, value).await;
    }
    queue.catch_up().await;
    kernel.trim(a, 2).await.unwrap();
    let taken = take(&queue, 2).await;
    assert_eq!(texts(&taken), ["0", "1"]);
    assert!(taken.iter().all(|(.., id)| id.partition == b));
    assert_eq!(kernel.stats().queues[0].dropped, 2);
    queue.set_sources(from_start(&[a])).await.unwrap();
    assert_eq!(queue.in_flight(), 0);
    assert_eq!(texts(&take(&queue, 9).await), ["2"]);
    kernel.delete_stream(&address("a")).await.unwrap();
    assert!(take(&queue, 9).await.is_empty());
    assert!(queue.sources().is_empty());
}

#[tokio::test]
async fn a_long_backlog_costs_little_memory_and_bytes_bound_an_acquisition() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let p = kernel
        .create_stream(&address("a"), StreamSpec::default())
        .await
        .unwrap()
        .id
        .partition(0);
    let queue = kernel.queue(&name(), Arc::new(()));
    queue.set_sources(from_start(&[p])).await.unwrap();
    let values: Vec<String> = (0..1000).map(|n| format!("{n:04}")).collect();
    let many = batch(&values.iter().map(String::as_str).collect::<Vec<_>>());
    for _ in 0..50 {
        kernel
            .append(p, many.clone(), SequenceRule::None)
            .await
            .unwrap();
    }
    queue.catch_up().await;
    assert_eq!(queue.ready(), 50_000);
    assert_eq!(queue.acquire(ME, 100, 10).await.len(), 2);
    assert_eq!(queue.acquire(ME, 100, 1).await.len(), 1);
    assert_eq!(take(&queue, 2000).await.len(), 2000);
}

#[tokio::test]
async fn what_a_record_costs_does_not_depend_on_the_number_of_sources() {
    const SOURCES: u32 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let kernel = open(&dir);
    let spec = StreamSpec {
        partitions: SOURCES,
        ..StreamSpec::default()
    };
    let stream = kernel.create_stream(&address("many"), spec).await.unwrap();
    let partitions: Vec<_> = (0..SOURCES).map(|p| stream.id.partition(p)).collect();
    let queue = kernel.queue(&name(), Arc::new(()));
    queue.set_sources(from_start(&partitions)).await.unwrap();
    assert!(take(&queue, 1).await.is_empty());
    let looks = || {
        let stats = kernel.stats().queues;
        stats
            .iter()
            .find(|q| q.name == name())
            .unwrap()
            .source_looks
    };
    assert!(looks() <= 2 * u64::from(SOURCES));
    let before = looks();
    // Records of two sources, a consumer that waits for each, and one that takes what is there at once.
    for n in 0..10 {
        let mut ready = std::pin::pin!(queue.wait_ready());
        assert!(sim::stepped::poll(ready.as_mut()).is_none());
        put(&kernel, partitions[n % 2 * 2000], &n.to_string()).await;
        ready.await;
        let taken = take(&queue, 1).await;
        assert_eq!(texts(&taken), [n.to_string()]);
        queue.settle(&[taken[0].2], Verdict::Accept).await.unwrap();
    }
    for n in 0..50 {
        put(&kernel, partitions[n * 7], &n.to_string()).await;
    }
    let wanted: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(texts(&take(&queue, 100).await), wanted);
    assert_eq!((queue.ready(), queue.release_holder(ME)), (0, 50));
    assert_eq!((queue.ready(), queue.in_flight()), (50, 0));
    assert_eq!(texts(&take(&queue, 100).await), wanted);
    // 60 records, of which 50 twice.
    assert!(looks() - before < 110 * 5, "{}", looks() - before);
}
