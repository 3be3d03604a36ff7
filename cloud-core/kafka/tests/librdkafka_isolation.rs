//! What librdkafka's consumers see of transactions in the log, at both isolation levels. The kernel writes them: clients can not yet.

use std::time::{Duration, Instant};

use kernel::ports::MemoryColdStore;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule, StreamSpec};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use record::{BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "ledger";

struct Log {
    kernel: Kernel,
    partition: PartitionId,
}

impl Log {
    /// `producer` without a sequence: not part of a transaction.
    async fn write(&self, producer: Option<(i64, i32)>, values: &[String]) {
        let mut builder = BatchBuilder::new();
        if let Some((id, sequence)) = producer {
            builder = builder.producer(id, 0, sequence).transactional();
        }
        for value in values {
            let record = NewRecord {
                timestamp: 1_790_000_000_000,
                key: None,
                value: Some(value.clone().into_bytes().into()),
                headers: Vec::new(),
            };
            builder.push(&record).unwrap();
        }
        let batch = builder.build().unwrap();
        let appended = self
            .kernel
            .append(self.partition, batch, SequenceRule::Window);
        appended.await.unwrap();
    }

    async fn end(&self, producer: i64, commit: bool) {
        let partitions = vec![self.partition];
        let ended = self
            .kernel
            .end_transaction(producer, 0, partitions, commit, 1);
        ended.await.unwrap();
    }
}

fn consumer(bootstrap: &str, isolation_level: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", isolation_level)
        .set("isolation.level", isolation_level)
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(TOPIC, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&all).unwrap();
    consumer
}

/// Values in the order of the log, until `last` comes.
fn read_until(consumer: &BaseConsumer, last: &str) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    let end = Instant::now() + PATIENCE;
    while values.last().is_none_or(|value| value != last) {
        assert!(Instant::now() < end, "{last:?} did not come: {values:?}");
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let payload = message.unwrap().payload().unwrap().to_vec();
            values.push(String::from_utf8(payload).unwrap());
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_get_what_their_isolation_level_allows() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::system(dir.path(), std::sync::Arc::new(MemoryColdStore::default()));
    let kernel = Kernel::open(ports.unwrap(), KernelConfig::default()).unwrap();
    let ctx = frontend::Context::new(kernel.clone(), dir.path()).unwrap();
    let listener = frontend::bind_tcp(([127, 0, 0, 1], 0).into(), 16).unwrap();
    let bootstrap = listener.local_addr().unwrap().to_string();
    let served = kafka::start(ctx.clone(), listener);
    let name = StreamName::new(TOPIC).unwrap();
    let address = StreamAddress::new(Namespace::default(), name);
    let spec = StreamSpec {
        partitions: 1,
        ..StreamSpec::default()
    };
    let stream = kernel.create_stream(&address, spec).await.unwrap();
    let log = Log {
        kernel: kernel.clone(),
        partition: stream.id.partition(0),
    };

    // Transactions of three producers in one another, every third aborted, plain records between them.
    let mut sequences = [0; 3];
    let mut committed = Vec::new();
    let mut all = Vec::new();
    for round in 0..60 {
        let mut open = Vec::new();
        for (producer, sequence) in sequences.iter_mut().enumerate() {
            let values: Vec<String> = (0..1 + (round + producer) % 4)
                .map(|n| format!("{round}/{producer}/{n}"))
                .collect();
            let id = 100 + producer as i64;
            log.write(Some((id, *sequence)), &values).await;
            *sequence += values.len() as i32;
            let commit = (round + producer) % 3 != 0;
            all.extend(values.clone());
            if commit {
                committed.extend(values);
            }
            open.push((id, commit));
        }
        let plain = vec![format!("{round}/plain")];
        log.write(None, &plain).await;
        all.extend(plain.clone());
        committed.extend(plain);
        // Not in the order in which they began.
        for (id, commit) in open.into_iter().rev() {
            log.end(id, commit).await;
        }
    }
    let bootstrap_of = bootstrap.clone();
    let seen = tokio::task::spawn_blocking(move || {
        let uncommitted = consumer(&bootstrap_of, "read_uncommitted");
        let committed = consumer(&bootstrap_of, "read_committed");
        (
            read_until(&uncommitted, "59/plain"),
            read_until(&committed, "59/plain"),
        )
    });
    let (uncommitted_seen, committed_seen) = seen.await.unwrap();
    assert_eq!(uncommitted_seen, all);
    assert_eq!(committed_seen, committed);

    // What is undecided comes with the end of its transaction, after it has kept back what was written later.
    log.write(Some((100, sequences[0])), &["undecided".to_owned()])
        .await;
    log.write(None, &["later".to_owned()]).await;
    let bootstrap_of = bootstrap.clone();
    let (latest, reader) = tokio::task::spawn_blocking(move || {
        let reader = consumer(&bootstrap_of, "read_committed");
        read_until(&reader, "59/plain");
        assert!(reader.poll(Duration::from_millis(700)).is_none());
        let (_, latest) = reader.fetch_watermarks(TOPIC, 0, PATIENCE).unwrap();
        (latest, reader)
    })
    .await
    .unwrap();
    let marks = kernel.watermarks(log.partition).unwrap();
    assert_eq!(latest, marks.last_stable);
    assert_eq!(marks.last_stable, marks.end - 2);
    log.end(100, true).await;
    let seen = tokio::task::spawn_blocking(move || read_until(&reader, "later"));
    assert_eq!(seen.await.unwrap(), ["undecided", "later"]);

    ctx.shutdown.cancel();
    served.await.unwrap();
    kernel.shutdown().await;
}
