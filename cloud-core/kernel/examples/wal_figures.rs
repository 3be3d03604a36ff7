//! Recovery of a log without a checkpoint, and reading what has left the memory: `cargo run -p kernel --example wal_figures DIRECTORY MIB`.

use std::sync::Arc;
use std::time::Instant;

use kernel::ports::MemoryColdStore;
use kernel::{Kernel, KernelConfig, Ports, SequenceRule, StreamSpec};
use record::{BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("a directory");
    let mib: usize = arguments.next().map_or(256, |n| n.parse().expect("MiB"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(run(&directory, mib));
}

async fn run(directory: &str, mib: usize) {
    let open = || {
        let ports = Ports::system(directory, Arc::new(MemoryColdStore::default())).expect("ports");
        let config = KernelConfig {
            tail_bytes: 64 * 1024 * 1024,
            ..KernelConfig::default()
        };
        let started = Instant::now();
        let kernel = Kernel::open(ports, config).expect("it opens");
        (kernel, started.elapsed())
    };
    let (kernel, _) = open();
    let name = StreamName::new("s").expect("a name");
    let address = StreamAddress::new(Namespace::default(), name);
    let spec = StreamSpec::default();
    let p = kernel
        .create_stream(&address, spec)
        .await
        .expect("a stream")
        .id
        .partition(0);
    let mut builder = BatchBuilder::new();
    builder
        .push(&NewRecord {
            timestamp: 1000,
            key: None,
            value: Some(vec![7; 64 * 1024].into()),
            headers: Vec::new(),
        })
        .expect("it fits");
    let batch = builder.build().expect("a batch");
    let started = Instant::now();
    for _ in 0..mib {
        let sent: Vec<_> = (0..16)
            .map(|_| kernel.append(p, batch.clone(), SequenceRule::None))
            .collect();
        for sent in sent {
            sent.await.expect("it is written");
        }
    }
    let took = started.elapsed();
    println!("written {mib} MiB in {took:?}");
    drop(kernel);
    let (kernel, took) = open();
    let stats = kernel.stats();
    println!("opened in {took:?}, {} entries", stats.recovered_entries);
    let started = Instant::now();
    let (mut offset, mut bytes) = (0, 0);
    let end = kernel.watermarks(p).expect("marks").end;
    while offset < end {
        let read = kernel.read(p, offset, 1 << 20).await.expect("it reads");
        bytes += read.batches.iter().map(|b| b.len()).sum::<usize>();
        offset = read.next_offset;
    }
    println!("read {} MiB in {:?}", bytes >> 20, started.elapsed());
}
