//! A core as the tests run it: a kernel in a directory, and the front end on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use cloud_sync::{SyncFrontend, Timing, TlsListen, TokenOptions};
use frontend::Context;
use kernel::{Kernel, KernelConfig, PartitionId, Ports};
use record::{
    Batch, BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName, partition_for_key,
};
use sync_quic::{
    AnswerFrame, AnswerStatus, BatchFlags, BatchFrame, ConnectError, Connection, CoreAddress,
    Dialer, EnrolError, Event, Hello, Identity, LaneInfo, QueryFrame, Token, Window, system_now,
};
use tokio::task::JoinHandle;

pub const TIMING: Timing = Timing {
    keep_alive: Duration::from_millis(200),
    idle_timeout: Duration::from_secs(60),
    handshake: Duration::from_secs(30),
};
pub const PRODUCER: i64 = (1 << 62) + 0x700;

/// What an edge hears that does not count what it sets aside, and says so when it is asked.
pub struct Events {
    connection: Connection,
    all: sync_quic::Events,
}

impl Events {
    pub async fn next(&mut self) -> Event {
        loop {
            match self.all.next().await {
                Event::Query(QueryFrame { id, what, .. }) if what == "set-aside" => {
                    let answer = AnswerFrame {
                        id,
                        status: AnswerStatus::UnknownQuery,
                        json: "\"not known\"".into(),
                    };
                    // An error: the connection is over, which is the next event.
                    let _ = self.connection.answer(answer).await;
                }
                event => return event,
            }
        }
    }
}

pub struct Core {
    pub ctx: Context,
    pub sync: SyncFrontend,
    task: JoinHandle<()>,
}

impl Core {
    pub async fn start(dir: &Path, address: &str) -> Core {
        let ports = Ports::system(
            dir.join("kernel"),
            std::sync::Arc::new(kernel::ports::MemoryColdStore::default()),
        )
        .unwrap();
        let kernel = tokio::task::spawn_blocking(|| Kernel::open(ports, KernelConfig::default()))
            .await
            .unwrap()
            .unwrap();
        let ctx = Context::new(kernel, dir).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        let began = Instant::now();
        let (sync, task) = loop {
            match cloud_sync::start(ctx.clone(), address, TlsListen::Same, TIMING) {
                Ok(started) => break started,
                // A core that was here a moment ago may have the port still: the last words of its connections.
                Err(_) if address.port() != 0 && began.elapsed() < TIMING.handshake => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        Core { ctx, sync, task }
    }

    pub async fn stop(self) {
        self.ctx.shutdown.cancel();
        self.task.await.unwrap();
        self.ctx.kernel.shutdown().await;
    }

    /// A counter without labels.
    pub fn counter(&self, name: &str) -> u64 {
        let families = self.ctx.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0, |family| {
            family.get_metric()[0].get_counter().get_value() as u64
        })
    }

    pub fn address(&self) -> String {
        self.sync.local_addr().to_string()
    }

    pub async fn token(&self, options: impl FnOnce(&mut TokenOptions)) -> Token {
        let mut wanted = TokenOptions {
            ttl: Duration::from_secs(60),
            labels: BTreeMap::new(),
            single_use: false,
        };
        options(&mut wanted);
        self.sync.create_token(wanted).await.unwrap().token
    }

    pub async fn enrol(&self, name: &str) -> Identity {
        let token = self.token(|_| {}).await;
        enrol(&self.address(), &token, name).await.unwrap()
    }

    pub async fn connect(
        &self,
        identity: &Identity,
        producer_id: i64,
    ) -> Result<(Connection, Events), ConnectError> {
        connect(&self.address(), identity, producer_id).await
    }

    /// All records of the partition that the edge's batches go to: (key, value).
    pub async fn records(&self, stream: &str, edge: &str) -> Vec<(String, Vec<u8>)> {
        let stream = self.ctx.kernel.stream(&address(stream)).unwrap();
        let partition = partition_for_key(Some(edge.as_bytes()), stream.partitions);
        self.records_of(stream.id.partition(partition)).await
    }

    /// All records of a stream, partition after partition.
    pub async fn all_records(&self, stream: &str) -> Vec<(String, Vec<u8>)> {
        let stream = self.ctx.kernel.stream(&address(stream)).unwrap();
        let mut all = Vec::new();
        for partition in stream.partition_ids() {
            all.extend(self.records_of(partition).await);
        }
        all
    }

    async fn records_of(&self, partition: PartitionId) -> Vec<(String, Vec<u8>)> {
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

pub async fn connect(
    core: &str,
    identity: &Identity,
    producer_id: i64,
) -> Result<(Connection, Events), ConnectError> {
    connect_as(core, identity, hello(producer_id, 0, 0)).await
}

/// Of one lane, number 0.
pub fn hello(producer_id: i64, incarnation: i16, nonce: u64) -> Hello {
    Hello {
        version: sync::VERSION,
        producer_id,
        incarnation,
        nonce,
        software: "test".to_owned(),
        ..Hello::default()
    }
}

pub fn lane(number: u8, name: &str) -> LaneInfo {
    LaneInfo {
        number,
        name: name.to_owned(),
        priority: 4,
        link_compression: false,
    }
}

pub async fn connect_as(
    core: &str,
    identity: &Identity,
    hello: Hello,
) -> Result<(Connection, Events), ConnectError> {
    let hello = Hello {
        edge: identity.edge.clone(),
        ..hello
    };
    let cores = CoreAddress::parse_list(core).unwrap();
    let dialer = Dialer::new(cores, identity, system_now(), TIMING)?;
    let (connection, all) = dialer.connect(hello, Window::default()).await?;
    let events = Events {
        connection: connection.clone(),
        all,
    };
    Ok((connection, events))
}

pub async fn enrol(core: &str, token: &Token, name: &str) -> Result<Identity, EnrolError> {
    let cores = CoreAddress::parse_list(core).unwrap();
    sync_quic::enrol(&cores, token, name, system_now(), TIMING).await
}

pub fn address(stream: &str) -> StreamAddress {
    StreamAddress::new(Namespace::default(), StreamName::new(stream).unwrap())
}

pub fn record(key: &str, value: &[u8]) -> NewRecord {
    NewRecord {
        timestamp: 1_700_000_000_000,
        key: Some(key.as_bytes().to_vec().into()),
        value: Some(value.to_vec().into()),
        headers: Vec::new(),
    }
}

pub fn batch(producer_id: i64, first: i32, records: &[NewRecord]) -> Batch {
    batch_of(producer_id, 0, first, records)
}

pub fn batch_of(producer_id: i64, epoch: i16, first: i32, records: &[NewRecord]) -> Batch {
    let mut builder = BatchBuilder::new().producer(producer_id, epoch, first);
    for record in records {
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}

pub fn frame(number: u64, batch: &Batch) -> BatchFrame {
    BatchFrame {
        lane: 0,
        frame: number,
        stream: "plant".to_owned(),
        flags: BatchFlags::empty(),
        link: None,
        batch: batch.bytes().clone(),
    }
}

pub trait With {
    fn with(self, record: &NewRecord) -> Batch;
}

impl With for BatchBuilder {
    fn with(mut self, record: &NewRecord) -> Batch {
        self.push(record).unwrap();
        self.build().unwrap()
    }
}
