//! A disk that does not come back from a write or a sync: writers are held back, then refused, in bounded memory; and when it answers after all,
//! what was acknowledged is there, and what was refused is not.

use std::pin::Pin;
use std::sync::Arc;

use kernel::{
    AppendError, Appended, Kernel, KernelConfig, KernelStats, PartitionId, Ports, SequenceRule,
};
use record::Batch;
use sim::batches::{address, batch, produced, values};
use sim::clock::SimClock;
use sim::disk::{Hang, SimDisk, SyncFailure};
use sim::stepped::{self, drive, poll};

const STALL_MS: u64 = 10_000;

type Append = Pin<Box<dyn Future<Output = Result<Appended, AppendError>>>>;

/// A kernel whose writer has a thread, which the disk can hold.
struct World {
    disk: SimDisk,
    clock: SimClock,
    kernel: Kernel,
    p: PartitionId,
}

impl World {
    fn new(change: impl FnOnce(&mut KernelConfig)) -> World {
        let disk = SimDisk::default();
        let clock = SimClock::default();
        let ports = Ports {
            clock: Arc::new(clock.clone()),
            ..stepped::ports(&disk)
        };
        let mut config = KernelConfig {
            reader_threads: 0,
            wal_stall_ms: STALL_MS,
            wal_file_bytes: 1024 * 1024,
            ..KernelConfig::default()
        };
        change(&mut config);
        let kernel = Kernel::open(ports, config).unwrap();
        let p = wait(kernel.ensure_stream(&address("s")))
            .unwrap()
            .id
            .partition(0);
        let world = World {
            disk,
            clock,
            kernel,
            p,
        };
        for n in 0..3 {
            wait(world.append(&format!("acknowledged {n}"))).unwrap();
        }
        world
    }

    fn send(&self, batch: Batch) -> Append {
        Box::pin(self.kernel.append(self.p, batch, SequenceRule::Window))
    }

    fn append(&self, value: &str) -> Append {
        self.send(batch(&[value]))
    }

    /// The disk hangs with this in its hands.
    fn hang(&self, what: Hang, value: &str) -> Append {
        self.disk.hang(what);
        let held = self.append(value);
        self.disk.wait_hanging();
        held
    }

    fn look_after(&self, ms: u64) -> KernelStats {
        self.clock.advance(ms * 1000);
        self.kernel.look_at_device();
        self.kernel.stats()
    }

    fn values(&self) -> Vec<String> {
        wait(values(&self.kernel, self.p, 0))
    }

    /// What the next process finds after a power cut.
    fn after_power_cut(&self, seed: u64) -> Vec<String> {
        let config = self.kernel.config().clone();
        let ports = stepped::ports(&self.disk.would_leave(seed));
        let (kernel, mut stepper) = Kernel::open_stepped(ports, config).unwrap();
        drive(&mut stepper, values(&kernel, self.p, 0))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Else the writer, which the kernel waits for, never ends.
        self.disk.answer();
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn acknowledged(more: &[&str]) -> Vec<String> {
    let first = (0..3).map(|n| format!("acknowledged {n}"));
    first.chain(more.iter().map(|v| (*v).to_owned())).collect()
}

#[test]
fn writers_wait_then_are_refused_and_go_on_when_the_disk_answers() {
    for what in [Hang::Sync, Hang::Write] {
        let world = World::new(|_| {});
        let mut held = world.hang(what, "held");
        let mut waiting: Vec<Append> = (0..10).map(|n| world.append(&format!("{n}"))).collect();
        // For a time that is only slow, and nobody is told anything.
        let stats = world.look_after(STALL_MS - 1);
        assert_eq!(stats.device_silent.as_millis(), u128::from(STALL_MS) - 1);
        assert_eq!((stats.queued_entries, stats.failed), (10, None));
        assert!(poll(held.as_mut()).is_none());
        assert!(waiting.iter_mut().all(|w| poll(w.as_mut()).is_none()));
        // What is there can be read meanwhile.
        assert_eq!(world.values(), acknowledged(&[]));
        // Then what waits is refused, and what comes.
        let stats = world.look_after(1);
        assert_eq!((stats.queued_entries, stats.queued_bytes), (0, 0));
        for refused in &mut waiting {
            assert_eq!(poll(refused.as_mut()), Some(Err(AppendError::Full)));
        }
        assert_eq!(
            poll(world.append("late").as_mut()),
            Some(Err(AppendError::Full))
        );
        // Of what the disk has nobody knows: neither this nor that is said.
        world.look_after(10 * STALL_MS);
        assert!(poll(held.as_mut()).is_none(), "{what:?}");
        // It answers: what it had is acknowledged, what was refused is not there, and may be sent again.
        world.disk.answer();
        assert_eq!(wait(held).unwrap().base_offset, 3);
        assert_eq!(wait(world.append("0")).unwrap().base_offset, 4);
        let there = acknowledged(&["held", "0"]);
        assert_eq!(world.values(), there);
        assert_eq!(world.look_after(STALL_MS).device_silent.as_millis(), 0);
        wait(world.append("last")).unwrap();
        for seed in 0..10 {
            let there = acknowledged(&["held", "0", "last"]);
            assert_eq!(world.after_power_cut(seed), there, "{what:?}");
        }
    }
}

/// A client that does not wait as long as the disk takes sends again, and again.
#[test]
fn what_is_sent_again_while_the_disk_hangs_is_there_once() {
    let world = World::new(|_| {});
    let held = world.hang(Hang::Sync, "held");
    let send = || world.send(produced(7, 0, 0, &["once"]));
    let given_up = send();
    drop(given_up);
    let again = send();
    world.disk.answer();
    assert_eq!(wait(held).unwrap().base_offset, 3);
    let again = wait(again).unwrap();
    assert_eq!((again.base_offset, again.duplicate), (4, true));
    // The same through a refusal.
    let held = world.hang(Hang::Sync, "held, too");
    let send = || world.send(produced(7, 0, 1, &["once more"]));
    let mut refused = send();
    world.look_after(STALL_MS);
    assert_eq!(poll(refused.as_mut()), Some(Err(AppendError::Full)));
    world.disk.answer();
    wait(held).unwrap();
    let again = wait(send()).unwrap();
    assert_eq!((again.base_offset, again.duplicate), (6, false));
    let there = ["held", "once", "held, too", "once more"];
    assert_eq!(world.values(), acknowledged(&there));
}

#[test]
fn the_disk_fails_in_the_end() {
    let world = World::new(|_| {});
    let held = world.hang(Hang::Sync, "held");
    let mut refused = world.append("refused");
    world.look_after(STALL_MS);
    assert_eq!(poll(refused.as_mut()), Some(Err(AppendError::Full)));
    world.disk.fail_sync(0, SyncFailure::ForEver);
    world.disk.answer();
    assert!(matches!(wait(held), Err(AppendError::Failed(_))));
    let later = wait(world.append("later"));
    assert!(matches!(later, Err(AppendError::Failed(_))), "{later:?}");
    assert_eq!(world.values(), acknowledged(&[]));
    for seed in 0..10 {
        let there = world.after_power_cut(seed);
        let may_be = acknowledged(&["held"]);
        assert!(there == may_be || there == acknowledged(&[]), "{there:?}");
    }
}

#[test]
fn the_power_goes_while_the_disk_hangs() {
    let world = World::new(|_| {});
    let _held = world.hang(Hang::Sync, "held");
    let _waiting = world.append("waiting");
    for refused in [false, true] {
        if refused {
            world.look_after(STALL_MS);
        }
        for seed in 0..20 {
            let there = world.after_power_cut(seed);
            let may_be = acknowledged(&["held"]);
            assert!(there == may_be || there == acknowledged(&[]), "{there:?}");
        }
    }
}
