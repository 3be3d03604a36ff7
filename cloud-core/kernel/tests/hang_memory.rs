//! What waits for a disk that hangs takes no more memory than it may. In a process of its own, for its memory is looked at.

use std::sync::Arc;

use kernel::{AppendError, Kernel, KernelConfig, Ports, SequenceRule};
use sim::batches::{address, batch};
use sim::clock::SimClock;
use sim::disk::{Hang, SimDisk};
use sim::stepped::{self, poll};

const BOUND: usize = 64 * 1024 * 1024;

/// Callers that do not wait for their writes, and never hear of a disk that hangs, are held by the bound in bytes; small entries are counted as what
/// they take.
#[test]
fn what_waits_takes_no_more_memory_than_the_bound() {
    let disk = SimDisk::default();
    let ports = Ports {
        clock: Arc::new(SimClock::default()),
        ..stepped::ports(&disk)
    };
    let config = KernelConfig {
        reader_threads: 0,
        wal_file_bytes: 1024 * 1024,
        queue_bytes: BOUND,
        ..KernelConfig::default()
    };
    let kernel = Kernel::open(ports, config).unwrap();
    let stream = wait(kernel.ensure_stream(&address("s"))).unwrap();
    let append = || {
        let p = stream.id.partition(0);
        Box::pin(kernel.append(p, batch(&["x"]), SequenceRule::None))
    };
    disk.hang(Hang::Sync);
    let held = append();
    disk.wait_hanging();
    let before = resident();
    let mut waiting = 0;
    let full = loop {
        match poll(append().as_mut()) {
            None => waiting += 1,
            Some(answer) => break answer,
        }
        assert!(waiting < BOUND / 64, "nothing is ever refused");
    };
    let grown = resident().saturating_sub(before);
    assert_eq!(full, Err(AppendError::Full));
    let stats = kernel.stats();
    assert_eq!(stats.queued_entries, waiting as u64);
    assert!(stats.queued_bytes <= BOUND as u64);
    let what = format!("{grown} bytes for {waiting} entries");
    assert!(grown < BOUND + BOUND / 4, "{what}");
    // And the bound is not a fraction of what was asked for.
    assert!(grown > BOUND / 2, "{what}");
    // Nobody waits for them, and they are written all the same.
    disk.answer();
    assert_eq!(wait(held).unwrap().base_offset, 0);
    let last = wait(append()).unwrap();
    assert_eq!(last.base_offset, 1 + waiting as i64);
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<usize>().unwrap() * 1024
}
