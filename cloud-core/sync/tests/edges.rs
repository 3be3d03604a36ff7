//! A real kernel and the front end on it, with real edges over QUIC on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cloud_sync::{SyncFrontend, Timing, TokenOptions};
use frontend::Context;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule};
use record::{
    Batch, BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName, partition_for_key,
};
use sync_quic::{
    BatchFlags, BatchFrame, CloseCode, ConnectError, Connection, EnrolError, EnrolRefusal, Event,
    Events, Hello, HelloRefusal, Identity, Lost, RefuseCode, Token, Window,
};
use tokio::task::JoinHandle;

const TIMING: Timing = Timing {
    keep_alive: Duration::from_millis(200),
    idle_timeout: Duration::from_secs(2),
    handshake: Duration::from_secs(5),
};
const PRODUCER: i64 = (1 << 62) + 7;

struct Core {
    ctx: Context,
    sync: SyncFrontend,
    task: JoinHandle<()>,
}

impl Core {
    async fn start(dir: &Path, address: &str) -> Core {
        let ports = Ports::system(dir.join("kernel")).unwrap();
        let kernel = tokio::task::spawn_blocking(|| Kernel::open(ports, KernelConfig::default()))
            .await
            .unwrap()
            .unwrap();
        let ctx = Context::new(kernel, dir).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        let (sync, task) = cloud_sync::start(ctx.clone(), address, TIMING).unwrap();
        Core { ctx, sync, task }
    }

    async fn stop(self) {
        self.ctx.shutdown.cancel();
        self.task.await.unwrap();
        self.ctx.kernel.shutdown().await;
    }

    fn address(&self) -> String {
        self.sync.local_addr().to_string()
    }

    async fn token(&self, options: impl FnOnce(&mut TokenOptions)) -> Token {
        let mut wanted = TokenOptions {
            ttl: Duration::from_secs(60),
            labels: BTreeMap::new(),
            single_use: false,
        };
        options(&mut wanted);
        self.sync.create_token(wanted).await.unwrap().token
    }

    async fn enrol(&self, name: &str) -> Identity {
        let token = self.token(|_| {}).await;
        sync_quic::enrol(&self.address(), &token, name, TIMING)
            .await
            .unwrap()
    }

    async fn connect(
        &self,
        identity: &Identity,
        producer_id: i64,
    ) -> Result<(Connection, Events), ConnectError> {
        connect(&self.address(), identity, producer_id).await
    }

    /// All records of the partition that the edge's batches go to: (key, value).
    async fn records(&self, stream: &str, edge: &str) -> Vec<(String, Vec<u8>)> {
        let stream = self.ctx.kernel.stream(&address(stream)).unwrap();
        let partition = stream
            .id
            .partition(partition_for_key(Some(edge.as_bytes()), stream.partitions));
        let mut all = Vec::new();
        let (mut offset, end) = (0, self.ctx.kernel.watermarks(partition).unwrap().end);
        while offset < end {
            let read = self
                .ctx
                .kernel
                .read(partition, offset, 1 << 20)
                .await
                .unwrap();
            for record in read
                .batches
                .iter()
                .flat_map(|batch| batch.records().unwrap())
            {
                let record = record.unwrap();
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                all.push((key, record.value.unwrap().to_vec()));
            }
            offset = read.next_offset;
        }
        all
    }
}

async fn connect(
    core: &str,
    identity: &Identity,
    producer_id: i64,
) -> Result<(Connection, Events), ConnectError> {
    let hello = Hello {
        version: sync::VERSION,
        edge: identity.edge.clone(),
        producer_id,
        epoch: 0,
        software: "test".to_owned(),
    };
    sync_quic::connect(core, identity, hello, Window::default(), TIMING).await
}

fn address(stream: &str) -> StreamAddress {
    StreamAddress::new(Namespace::default(), StreamName::new(stream).unwrap())
}

fn record(key: &str, value: &[u8]) -> NewRecord {
    NewRecord {
        timestamp: 1_700_000_000_000,
        key: Some(key.as_bytes().to_vec().into()),
        value: Some(value.to_vec().into()),
        headers: Vec::new(),
    }
}

fn batch(producer_id: i64, first: i32, records: &[NewRecord]) -> Batch {
    let mut builder = BatchBuilder::new().producer(producer_id, 0, first);
    for record in records {
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}

fn frame(number: u64, batch: &Batch) -> BatchFrame {
    BatchFrame {
        lane: 0,
        frame: number,
        stream: "plant".to_owned(),
        flags: BatchFlags::empty(),
        batch: batch.bytes().clone(),
    }
}

/// Repeatable chance: splitmix64.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let seed = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(rand::random);
        println!("SEED={seed}");
        Chance(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// An edge's outbox as it is on its disk: batches, and a cursor that may lag behind what was acknowledged.
struct Outbox {
    frames: Vec<BatchFrame>,
    cursor: u64,
    records: usize,
}

impl Outbox {
    fn fill(chance: &mut Chance, frames: u64) -> Outbox {
        let (mut out, mut sequence) = (Vec::new(), 0_i32);
        for number in 1..=frames {
            let records: Vec<_> = (0..=chance.below(5))
                .map(|index| {
                    record(
                        "plant/line",
                        (sequence + index as i32).to_string().as_bytes(),
                    )
                })
                .collect();
            out.push(frame(number, &batch(PRODUCER, sequence, &records)));
            sequence += records.len() as i32;
        }
        Outbox {
            frames: out,
            cursor: 0,
            records: sequence as usize,
        }
    }

    fn is_empty(&self) -> bool {
        self.cursor == self.frames.len() as u64
    }
}

/// One life of a connection: sends from the cursor, hears acknowledgements, and ends at a random moment.
async fn one_connection(core: &str, identity: &Identity, outbox: &mut Outbox, chance: &mut Chance) {
    let Ok((connection, mut events)) = connect(core, identity, PRODUCER).await else {
        return;
    };
    let until = chance.below(40);
    let sending = {
        let (connection, from) = (connection.clone(), outbox.cursor as usize);
        let frames = outbox.frames[from..].to_vec();
        tokio::spawn(async move {
            for frame in frames {
                if connection.send_batch(frame).await.is_err() {
                    return;
                }
            }
        })
    };
    let mut heard = 0;
    while heard < until {
        match events.next().await {
            Event::Ack { frame, .. } => {
                heard += 1;
                // A crash may forget the newest step of the cursor.
                if chance.below(4) != 0 || frame == outbox.frames.len() as u64 {
                    outbox.cursor = frame;
                }
                if outbox.is_empty() {
                    break;
                }
            }
            Event::Refused(refused) => panic!("refused: {refused:?}"),
            Event::Down(_) => {}
            Event::Closed(_) => break,
        }
    }
    connection.close();
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_through_cuts_and_restarts_of_both() {
    let mut chance = Chance::new();
    let dir = tempfile::tempdir().unwrap();
    let mut core = Core::start(dir.path(), "127.0.0.1:0").await;
    let address = core.address();
    let identity = core.enrol("e1").await;
    let mut outbox = Outbox::fill(&mut chance, 600);
    let mut lives = 0;
    while !outbox.is_empty() {
        lives += 1;
        assert!(
            lives < 1000,
            "no progress: cursor {} of {}",
            outbox.cursor,
            outbox.frames.len()
        );
        one_connection(&address, &identity, &mut outbox, &mut chance).await;
        if chance.below(12) == 0 {
            core.stop().await;
            core = Core::start(dir.path(), &address).await;
        }
    }
    println!("{lives} connections");
    let values: Vec<_> = core
        .records("plant", "e1")
        .await
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let all: Vec<_> = (0..outbox.records)
        .map(|number| number.to_string().into_bytes())
        .collect();
    assert_eq!(values.len(), all.len());
    assert!(values == all, "lost, duplicated or out of order");
    let edge = core.sync.edge("e1").unwrap();
    assert_eq!(
        (edge.last_frame, edge.producer_id),
        (Some(600), Some(PRODUCER))
    );
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_expire_are_used_up_and_must_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let refusal = async |token: &Token, name: &str| match sync_quic::enrol(
        &core.address(),
        token,
        name,
        TIMING,
    )
    .await
    {
        Err(EnrolError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let expired = core.token(|options| options.ttl = Duration::ZERO).await;
    assert_eq!(refusal(&expired, "e1").await, EnrolRefusal::ExpiredToken);
    let good = core.token(|_| {}).await;
    let wrong = Token {
        secret: expired.secret.clone(),
        ..good.clone()
    };
    assert_eq!(refusal(&wrong, "e1").await, EnrolRefusal::InvalidToken);
    let unknown = Token {
        id: "AAAA".to_owned(),
        ..good.clone()
    };
    assert_eq!(refusal(&unknown, "e1").await, EnrolRefusal::InvalidToken);
    for name in ["", "a/b", "a+", "ü", ".."] {
        assert_eq!(
            refusal(&good, name).await,
            EnrolRefusal::InvalidName,
            "{name:?}"
        );
    }
    let once = core
        .token(|options| {
            options.single_use = true;
            options
                .labels
                .insert("site".to_owned(), "berlin".to_owned());
        })
        .await;
    sync_quic::enrol(&core.address(), &once, "e1", TIMING)
        .await
        .unwrap();
    assert_eq!(refusal(&once, "e2").await, EnrolRefusal::UsedToken);
    assert_eq!(core.sync.edge("e1").unwrap().labels["site"], "berlin");
    for name in ["e2", "e3"] {
        sync_quic::enrol(&core.address(), &good, name, TIMING)
            .await
            .unwrap();
    }
    assert_eq!(core.sync.edges().len(), 3);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_again_voids_the_former_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let old = core.enrol("e1").await;
    let (_connection, mut events) = core.connect(&old, PRODUCER).await.unwrap();
    let new = core.enrol("e1").await;
    let Event::Closed(Lost::ByCore {
        code: CloseCode::Revoked,
        ..
    }) = events.next().await
    else {
        panic!("still open")
    };
    let refused = core.connect(&old, PRODUCER).await.err();
    assert!(
        matches!(
            refused,
            Some(ConnectError::Refused {
                code: HelloRefusal::CertificateReplaced,
                ..
            })
        ),
        "{refused:?}"
    );
    core.connect(&new, PRODUCER).await.unwrap();

    // A copied data directory shows itself by its producer id.
    let other = core.enrol("e2").await;
    let refused = core.connect(&other, PRODUCER).await.err();
    assert!(
        matches!(
            refused,
            Some(ConnectError::Refused {
                code: HelloRefusal::ProducerTaken,
                ..
            })
        ),
        "{refused:?}"
    );
    // And nobody connects under another's name.
    let disguised = Identity {
        edge: "e1".to_owned(),
        ..other
    };
    assert!(core.connect(&disguised, PRODUCER + 1).await.is_err());
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let (_first, mut first_events) = core.connect(&identity, PRODUCER).await.unwrap();
    let (second, mut second_events) = core.connect(&identity, PRODUCER).await.unwrap();
    let Event::Closed(Lost::ByCore {
        code: CloseCode::TakenOver,
        ..
    }) = first_events.next().await
    else {
        panic!("two")
    };
    second
        .send_batch(frame(1, &batch(PRODUCER, 0, &[record("plant/a", b"x")])))
        .await
        .unwrap();
    assert_eq!(second_events.next().await, Event::Ack { lane: 0, frame: 1 });
    assert!(core.sync.edge("e1").unwrap().connected_since_ms.is_some());
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_edge_may_not_send_is_refused_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    let good = batch(PRODUCER, 0, &[record("plant/a", b"x")]);
    let mut damaged = good.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let table = [
        (
            BatchFrame {
                batch: damaged.into(),
                ..frame(1, &good)
            },
            RefuseCode::Malformed,
        ),
        (
            BatchFrame {
                batch: vec![0; 9].into(),
                ..frame(2, &good)
            },
            RefuseCode::Malformed,
        ),
        (
            frame(3, &batch(PRODUCER + 1, 0, &[record("plant/a", b"x")])),
            RefuseCode::WrongProducer,
        ),
        (
            BatchFrame {
                stream: "no such/name".to_owned(),
                ..frame(4, &good)
            },
            RefuseCode::InvalidStream,
        ),
        (
            frame(
                5,
                &BatchBuilder::new()
                    .producer(PRODUCER, 0, 0)
                    .control()
                    .with(&record("k", b"v")),
            ),
            RefuseCode::Malformed,
        ),
    ];
    for (frame, code) in table {
        let number = frame.frame;
        connection.send_batch(frame).await.unwrap();
        let Event::Refused(refused) = events.next().await else {
            panic!("frame {number} was taken")
        };
        assert_eq!((refused.frame, refused.code), (number, code));
        assert_eq!(
            events.next().await,
            Event::Ack {
                lane: 0,
                frame: number
            },
            "settled by its refusal"
        );
    }
    connection.send_batch(frame(6, &good)).await.unwrap();
    assert_eq!(events.next().await, Event::Ack { lane: 0, frame: 6 });
    // A missing sequence is never papered over.
    connection
        .send_batch(frame(7, &batch(PRODUCER, 5, &[record("plant/a", b"y")])))
        .await
        .unwrap();
    let Event::Refused(refused) = events.next().await else {
        panic!("a gap was taken")
    };
    assert_eq!(refused.code, RefuseCode::OutOfOrder);
    assert_eq!(
        core.records("plant", "e1").await,
        [("plant/a".to_owned(), b"x".to_vec())]
    );
    core.stop().await;
}

trait With {
    fn with(self, record: &NewRecord) -> Batch;
}

impl With for BatchBuilder {
    fn with(mut self, record: &NewRecord) -> Batch {
        self.push(record).unwrap();
        self.build().unwrap()
    }
}

async fn command(core: &Core, partition: PartitionId, key: &str, value: &str) {
    let batch = BatchBuilder::new().with(&record(key, value.as_bytes()));
    core.ctx
        .kernel
        .append(partition, batch, SequenceRule::None)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_their_edge_until_it_has_stored_them() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let stream = core
        .ctx
        .kernel
        .ensure_stream(&address("cmd"))
        .await
        .unwrap();
    let partition = stream.id.partition(0);
    command(&core, partition, "cmd/e1/pump", "before the enrolment").await;
    let identity = core.enrol("e1").await;
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    command(&core, partition, "cmd/e2/pump", "another's").await;
    command(&core, partition, "cmd/e1/pump", "on").await;
    command(&core, partition, "cmd/e10/pump", "another's too").await;
    command(&core, partition, "cmd/e1/pump", "off").await;

    let mut texts = async |events: &mut Events, count: usize| {
        let mut texts = Vec::new();
        let mut last = None;
        while texts.len() < count {
            let Event::Down(down) = events.next().await else {
                panic!("not a command")
            };
            for record in Batch::parse(down.batch).unwrap().records().unwrap() {
                texts.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
            last = Some(down.position);
        }
        (texts, last.unwrap())
    };
    let (first, position) = texts(&mut events, 1).await;
    assert_eq!(first, ["on"]);
    connection.send_down_ack(position).await.unwrap();
    assert_eq!(texts(&mut events, 1).await.0, ["off"]);
    connection.close();

    // What was not confirmed comes again; what came meanwhile comes too; what the edge itself said does not.
    command(&core, partition, "cmd/e1/pump", "while away").await;
    let own = batch(PRODUCER, 0, &[record("cmd/e1/pump", b"its own")]);
    core.ctx
        .kernel
        .append(partition, own, SequenceRule::Strict)
        .await
        .unwrap();
    command(&core, partition, "cmd/e1/pump", "last").await;
    let cursor = kernel::CursorName::from("edge/e1");
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    let (mut again, position) = texts(&mut events, 3).await;
    if again.first().is_some_and(|text| text == "on") {
        // The confirmation and the close raced: then the first comes again as well, at the same position.
        again.remove(0);
        again.extend(texts(&mut events, 1).await.0);
    }
    assert_eq!(again, ["off", "while away", "last"]);
    connection.send_down_ack(position).await.unwrap();
    while core
        .ctx
        .kernel
        .cursor(&cursor)
        .iter()
        .all(|at| at.offset < position.next)
    {
        tokio::task::yield_now().await;
    }
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_survives_and_is_never_replaced_silently() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    core.stop().await;

    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    core.connect(&identity, PRODUCER).await.unwrap();
    let (ctx, file) = (core.ctx.clone(), dir.path().join("sync-ca.pem"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(&file).unwrap();
    let error = cloud_sync::start(ctx, "127.0.0.1:0".parse().unwrap(), TIMING)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("missing") && error.contains("backup"),
        "{error}"
    );
    core.stop().await;
}
