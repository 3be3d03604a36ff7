//! A kernel on one thread, on the simulated disk.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use kernel::ports::MemoryColdStore;
use kernel::{Kernel, KernelConfig, OpenError, Ports, Stepper};

use rand::{RngExt, rngs::StdRng};

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::spawner::SimSpawner;

/// Everything small, so that every limit is met soon.
pub fn config() -> KernelConfig {
    KernelConfig {
        wal_file_bytes: 4096,
        tail_bytes: 3000,
        checkpoint_wal_bytes: 6000,
        group_bytes: 4096,
        reader_threads: 0,
        ..KernelConfig::default()
    }
}

/// That disk, and otherwise nothing that survives.
pub fn ports(disk: &SimDisk) -> Ports {
    Ports {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SimClock::default()),
        cold: Arc::new(MemoryColdStore::default()),
        spawner: Arc::new(SimSpawner::default()),
    }
}

/// Opens what is on that disk.
pub fn open(disk: &SimDisk) -> Result<(Kernel, Stepper), OpenError> {
    Kernel::open_stepped(ports(disk), config())
}

/// Opens what is on a disk of which the power may go meanwhile, any number of times; `made` does the first steps, and gives `None` if it goes in these.
pub fn open_in_the_end<W>(
    disk: &mut SimDisk,
    rng: &mut StdRng,
    made: impl Fn(Kernel, Stepper) -> Option<W>,
) -> Result<W, OpenError> {
    loop {
        if rng.random_bool(0.3) {
            disk.crash_after(rng.random_range(0..30));
        }
        match open(disk) {
            Ok((kernel, stepper)) => {
                if let Some(world) = made(kernel, stepper) {
                    return Ok(world);
                }
            }
            Err(OpenError::Io { .. }) => {}
            Err(error) => return Err(error),
        }
        *disk = disk.after_crash(rng.random());
    }
}

/// Polls once.
pub fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Drives the writer until the future is done.
pub fn drive<F: Future>(stepper: &mut Stepper, future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Some(output) = poll(future.as_mut()) {
            return output;
        }
        stepper.step();
    }
    panic!("it never ends");
}
