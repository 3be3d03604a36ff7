//! A backend over a kernel that writes only when the test lets it.

use std::path::Path;
use std::pin::pin;

use futures_util::poll;
use kernel::{Entry, Kernel, KernelConfig, Stepper};
use mqtt::CoreBackend;
use sim::disk::SimDisk;
use sim::stepped;

use super::backend;

pub struct World {
    pub backend: CoreBackend,
    pub kernel: Kernel,
    pub stepper: Stepper,
}

impl World {
    pub fn open(dir: &Path, disk: &SimDisk) -> World {
        World::with_queue(dir, disk, 4096)
    }

    /// So many bytes may wait to be written.
    pub fn with_queue(dir: &Path, disk: &SimDisk, queue_bytes: usize) -> World {
        let config = KernelConfig {
            reader_threads: 0,
            wal_file_bytes: 1024 * 1024,
            queue_bytes,
            ..KernelConfig::default()
        };
        let (kernel, stepper) = Kernel::open_stepped(stepped::ports(disk), config).unwrap();
        let ctx = frontend::Context::new(kernel.clone(), dir).unwrap();
        World {
            backend: backend(&ctx),
            kernel,
            stepper,
        }
    }

    /// Nothing finds room until something is driven.
    pub fn fill(&self) {
        let entry = Entry::new().put("filling", "key", vec![0; 5000]);
        drop(self.kernel.write(entry));
    }
}

/// Drives the writer until the future is done.
pub async fn drive<F: Future>(stepper: &mut Stepper, future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let std::task::Poll::Ready(output) = poll!(future.as_mut()) {
            return output;
        }
        stepper.step();
        tokio::task::yield_now().await;
    }
    panic!("it never ends");
}
