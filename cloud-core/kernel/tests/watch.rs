//! Waiting for many partitions, and many who read or wait for one.

use std::sync::Arc;

use kernel::ports::MemoryColdStore;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule, StreamSpec};
use record::{BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

fn address(name: &str) -> StreamAddress {
    StreamAddress::new(Namespace::default(), StreamName::new(name).unwrap())
}

async fn put(kernel: &Kernel, partition: PartitionId) {
    let mut builder = BatchBuilder::new();
    builder
        .push(&NewRecord {
            timestamp: 1,
            key: None,
            value: None,
            headers: Vec::new(),
        })
        .unwrap();
    let batch = builder.build().unwrap();
    kernel
        .append(partition, batch, SequenceRule::None)
        .await
        .unwrap();
}

async fn open(dir: &tempfile::TempDir, partitions: u32) -> (Kernel, Vec<PartitionId>) {
    let ports = Ports::system(dir.path(), Arc::new(MemoryColdStore::default())).unwrap();
    let kernel = Kernel::open(ports, KernelConfig::default()).unwrap();
    let spec = StreamSpec {
        partitions,
        ..StreamSpec::default()
    };
    let stream = kernel.create_stream(&address("s"), spec).await.unwrap();
    (kernel, stream.partition_ids().collect())
}

#[tokio::test]
async fn a_watch_says_which_partitions_moved_and_forgets_them() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, partitions) = open(&dir, 1000).await;
    let mut watch = kernel.watch();
    for partition in &partitions {
        watch.set(*partition, 0);
    }
    put(&kernel, partitions[7]).await;
    put(&kernel, partitions[7]).await;
    put(&kernel, partitions[500]).await;
    let mut moved = watch.moved().await;
    moved.sort_unstable();
    assert_eq!(moved, [partitions[7], partitions[500]]);
    // 7 is not watched any more, 500 again, from its end; 8 from the start.
    watch.set(partitions[500], 1);
    put(&kernel, partitions[7]).await;
    put(&kernel, partitions[8]).await;
    assert_eq!(watch.moved().await, [partitions[8]]);
    // What is past already is said at once, and so is what is gone.
    watch.set(partitions[7], 1);
    assert_eq!(watch.moved().await, [partitions[7]]);
    watch.forget(partitions[9]);
    kernel.delete_stream(&address("s")).await.unwrap();
    let moved = watch.moved().await;
    assert!(moved.contains(&partitions[500]) && !moved.contains(&partitions[9]));
    watch.set(partitions[9], 0);
    assert_eq!(watch.moved().await, [partitions[9]]);
}

#[tokio::test]
async fn those_who_wait_for_less_are_woken_and_the_others_wait_on() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, partitions) = open(&dir, 2).await;
    let p = partitions[0];
    let mut tasks = Vec::new();
    for offset in 0..2000 {
        let kernel = kernel.clone();
        let other = partitions[1];
        tasks.push(tokio::spawn(async move {
            kernel.wait_past(&[(p, offset % 2), (other, 0)]).await
        }));
    }
    tokio::task::yield_now().await;
    put(&kernel, p).await;
    for task in tasks.iter_mut().step_by(2) {
        assert_eq!(task.await.unwrap(), [p]);
    }
    assert!(tasks.iter().skip(1).step_by(2).all(|t| !t.is_finished()));
    put(&kernel, p).await;
    for task in tasks.iter_mut().skip(1).step_by(2) {
        assert_eq!(task.await.unwrap(), [p]);
    }
    // The nearer of two offsets of one partition decides.
    assert_eq!(kernel.wait_stable(&[(p, 9), (p, 1)]).await, [p]);
}

/// Found by the simulator: where nothing is left there was no end of what is there, and the waiting had none either.
#[tokio::test]
async fn whoever_waits_below_the_log_start_of_an_empty_partition_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, partitions) = open(&dir, 1).await;
    let p = partitions[0];
    for _ in 0..3 {
        put(&kernel, p).await;
    }
    kernel.trim(p, 3).await.unwrap();
    let below = [(p, 1)];
    let waiting = std::pin::pin!(kernel.wait_past(&below));
    assert!(sim::stepped::poll(waiting).is_some());
    let at_end = [(p, 3)];
    let waiting = std::pin::pin!(kernel.wait_past(&at_end));
    assert!(sim::stepped::poll(waiting).is_none());
}

#[tokio::test]
async fn all_readers_of_what_is_in_memory_get_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, partitions) = open(&dir, 1).await;
    for _ in 0..3 {
        put(&kernel, partitions[0]).await;
    }
    let addresses = |read: kernel::Read| -> Vec<*const u8> {
        let batches = read.batches.iter();
        batches.map(|batch| batch.bytes().as_ptr()).collect()
    };
    let first = kernel.read(partitions[0], 0, usize::MAX).await.unwrap();
    let second = kernel.read(partitions[0], 0, usize::MAX).await.unwrap();
    assert_eq!(first.batches.len(), 3);
    assert_eq!(addresses(first), addresses(second));
}
