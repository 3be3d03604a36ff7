//! Batches made by librdkafka are read by `record`, and the reverse, through librdkafka's own mock broker, for random
//! records and every codec.

use std::time::Duration;

use bytes::Bytes;
use interop::raw_kafka::RawKafka;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header as SentHeader, Headers, Message, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use record::{Batch, BatchBuilder, Compression, Header, NewRecord};

const PATIENCE: Duration = Duration::from_secs(30);
const CODECS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
const NOW: i64 = 1_790_000_000_000;

/// Half the time text that compresses, half the time noise; sometimes empty, sometimes larger than an lz4 block.
fn some_bytes(rng: &mut StdRng) -> Bytes {
    let len = match rng.random_range(0..10) {
        0 => 0,
        1 => rng.random_range(60_000..140_000),
        _ => rng.random_range(1..300),
    };
    let mut bytes = vec![b'a'; len];
    if rng.random() {
        rng.fill_bytes(&mut bytes);
    }
    Bytes::from(bytes)
}

fn optional(rng: &mut StdRng) -> Option<Bytes> {
    rng.random_bool(0.8).then(|| some_bytes(rng))
}

/// Of a partition; then librdkafka's mock lets go of the oldest batches.
const KEPT_BY_THE_MOCK: usize = 5 * 1024 * 1024;

fn some_records(rng: &mut StdRng) -> Vec<NewRecord> {
    (0..rng.random_range(1..40))
        .map(|_| NewRecord {
            timestamp: NOW + rng.random_range(-100_000..100_000),
            key: optional(rng),
            value: optional(rng),
            headers: (0..rng.random_range(0..4))
                .map(|place| Header {
                    name: Bytes::from(format!("h{}", place / 2)),
                    value: optional(rng),
                })
                .collect(),
        })
        .collect()
}

/// Compared without the content of long fields in the message.
fn assert_same(found: &[NewRecord], sent: &[NewRecord], what: &str) {
    assert_eq!(found.len(), sent.len(), "{what}: number of records");
    for (place, (found, sent)) in found.iter().zip(sent).enumerate() {
        assert!(
            found == sent,
            "{what}: record {place} differs: {found:.60?} instead of {sent:.60?}"
        );
    }
}

fn produce(
    cluster: &MockCluster<'_, DefaultProducerContext>,
    topic: &str,
    codec: &str,
    idempotent: bool,
    records: &[NewRecord],
) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("compression.type", codec)
        .set(
            "enable.idempotence",
            if idempotent { "true" } else { "false" },
        )
        .set("max.in.flight.requests.per.connection", "1")
        .set("linger.ms", "50")
        .create()
        .unwrap();
    for NewRecord {
        timestamp,
        key,
        value,
        headers,
    } in records
    {
        let mut sent = OwnedHeaders::new();
        for Header { name, value } in headers {
            let key = std::str::from_utf8(name).unwrap();
            sent = sent.insert(SentHeader {
                key,
                value: value.as_deref(),
            });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
            .partition(0)
            .timestamp(*timestamp)
            .headers(sent);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Everything in partition 0, as batches.
fn fetch_all(raw: &mut RawKafka, topic: &str, records: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut offset = 0;
    while (offset as usize) < records {
        let mut bytes = raw.fetch(topic, offset);
        assert!(!bytes.is_empty(), "nothing at offset {offset} of {records}");
        while !bytes.is_empty() {
            let batch = Batch::split_first(&mut bytes).unwrap();
            assert_eq!(batch.base_offset(), offset);
            offset = batch.next_offset();
            batches.push(batch);
        }
    }
    batches
}

#[test]
fn batches_of_librdkafka_are_read() {
    let mut rng = interop::seed::rng();
    let cluster = MockCluster::new(1).unwrap();
    let mut raw = RawKafka::connect(&cluster.bootstrap_servers());
    for round in 0..3 {
        for (name, codec) in CODECS {
            let topic = format!("from-{name}-{round}");
            cluster.create_topic(&topic, 1, 1).unwrap();
            let idempotent = rng.random();
            let sent = some_records(&mut rng);
            produce(&cluster, &topic, name, idempotent, &sent);

            let batches = fetch_all(&mut raw, &topic, sent.len());
            let mut found = Vec::new();
            let mut sequence = 0;
            for batch in &batches {
                batch.check_records().unwrap();
                // librdkafka, too, keeps what compression does not make smaller as it was.
                assert!(
                    [codec, Compression::None].contains(&batch.compression()),
                    "{topic}: {batch:?}"
                );
                assert_eq!(batch.producer_id() >= 0, idempotent);
                if idempotent {
                    assert_eq!(batch.base_sequence(), sequence);
                    sequence = record::next_sequence(batch.last_sequence());
                }
                for record in batch.records().unwrap() {
                    found.push(NewRecord::from(record.unwrap()));
                }
            }
            assert_same(&found, &sent, &topic);
        }
    }
}

/// So that a codec that silently fell back to "none" does not pass for tested.
#[test]
fn every_codec_of_librdkafka_is_really_used() {
    let cluster = MockCluster::new(1).unwrap();
    let mut raw = RawKafka::connect(&cluster.bootstrap_servers());
    for (name, codec) in CODECS {
        cluster.create_topic(name, 1, 1).unwrap();
        let value = Bytes::from_static(b"the same again and again, the same again and again");
        let record = NewRecord {
            timestamp: NOW,
            key: None,
            value: Some(value),
            headers: vec![],
        };
        let sent = vec![record; 50];
        produce(&cluster, name, name, false, &sent);
        let batches = fetch_all(&mut raw, name, sent.len());
        assert!(
            batches.iter().any(|batch| batch.compression() == codec),
            "{name}: {batches:?}"
        );
        if let Ok(folder) = std::env::var("TOWLINE_CAPTURE") {
            std::fs::write(
                format!("{folder}/librdkafka-{name}.batch"),
                batches[0].bytes(),
            )
            .unwrap();
        }
    }
}

#[test]
fn our_batches_are_read_by_librdkafka() {
    let mut rng = interop::seed::rng();
    let cluster = MockCluster::new(1).unwrap();
    let mut raw = RawKafka::connect(&cluster.bootstrap_servers());
    for (name, codec) in CODECS
        .into_iter()
        .filter(|(name, _)| ["none", "lz4", "zstd"].contains(name))
    {
        let topic = format!("to-{name}");
        cluster.create_topic(&topic, 1, 1).unwrap();
        let mut sent = Vec::new();
        let (mut compressed, mut bytes) = (0, 0);
        for _ in 0..6 {
            let records = some_records(&mut rng);
            let mut builder = BatchBuilder::new().compression(codec);
            for record in &records {
                builder.push(record).unwrap();
            }
            let batch = builder.build().unwrap();
            bytes += batch.bytes().len();
            if bytes > KEPT_BY_THE_MOCK {
                break;
            }
            compressed += usize::from(batch.compression() == codec);
            assert_eq!(raw.produce(&topic, batch.into_bytes()), sent.len() as i64);
            sent.extend(records);
        }
        assert!(compressed > 0, "{topic}: no batch was compressed");

        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "interop")
            .set("check.crcs", "true")
            .create()
            .unwrap();
        let mut from_start = TopicPartitionList::new();
        from_start
            .add_partition_offset(&topic, 0, Offset::Offset(0))
            .unwrap();
        consumer.assign(&from_start).unwrap();
        let mut found = Vec::new();
        while found.len() < sent.len() {
            let message = consumer.poll(PATIENCE).expect("a message in time").unwrap();
            assert_eq!(message.offset(), found.len() as i64);
            let headers = message
                .headers()
                .into_iter()
                .flat_map(Headers::iter)
                .map(|header| Header {
                    name: Bytes::copy_from_slice(header.key.as_bytes()),
                    value: header.value.map(Bytes::copy_from_slice),
                });
            found.push(NewRecord {
                timestamp: message.timestamp().to_millis().unwrap(),
                key: message.key().map(Bytes::copy_from_slice),
                value: message.payload().map(Bytes::copy_from_slice),
                headers: headers.collect(),
            });
        }
        assert_same(&found, &sent, &topic);
    }
}
