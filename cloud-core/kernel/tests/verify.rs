//! Verification names every damaged place and the records it holds, whether the log is open or not, and nothing else.

use std::sync::Arc;

use kernel::Ports;
use kernel::ports::{ColdStore, MemoryColdStore};
use kernel::verify::{Damage, DirectoryError, Seen, directory};
use kernel::{Kernel, KernelConfig, PartitionId, SequenceRule, Stepper};
use sim::batches::{address, batch};
use sim::disk::SimDisk;
use sim::stepped::{config, drive, ports};

/// A log of two streams, with batches of three records.
fn filled(disk: &SimDisk) -> (Kernel, Stepper, [PartitionId; 2]) {
    let config = KernelConfig {
        wal_file_bytes: 16 * 1024,
        ..config()
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports(disk), config).unwrap();
    let partitions = ["a", "b"].map(|name| {
        let stream = drive(&mut stepper, kernel.ensure_stream(&address(name)));
        stream.unwrap().id.partition(0)
    });
    for n in 0..40 {
        let value = format!("{n} {}", "x".repeat(300));
        let batch = batch(&[&value, &value, &value]);
        let appended = kernel.append(partitions[n % 2], batch, SequenceRule::None);
        drive(&mut stepper, appended).unwrap();
    }
    (kernel, stepper, partitions)
}

fn offline(disk: &SimDisk) -> Vec<Damage> {
    look(disk, &MemoryColdStore::default())
}

fn look(disk: &SimDisk, cold: &MemoryColdStore) -> Vec<Damage> {
    let mut found = Vec::new();
    let mut far = (0, 0);
    let mut see = |seen| match seen {
        Seen::Damage(damage) => found.push(damage),
        Seen::Progress { done, total, .. } => far = (done, total),
    };
    let ports = ports(disk);
    drive_alone(directory(&*ports.disk, cold, &mut see)).unwrap();
    assert!(far.0 > 0 && far.0 <= far.1, "{far:?}");
    found
}

fn online(kernel: &Kernel, stepper: &mut Stepper) -> Vec<Damage> {
    let mut scrub = drive(stepper, kernel.scrub()).unwrap();
    let mut found = Vec::new();
    while let Some(step) = drive(stepper, scrub.step()).unwrap() {
        found.extend(step.damage);
    }
    assert_eq!(scrub.done(), scrub.total());
    found
}

#[test]
fn nothing_is_found_in_what_is_sound() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, _) = filled(&disk);
    assert_eq!(online(&kernel, &mut stepper), []);
    let ports = ports(&disk);
    let locked = async { directory(&*ports.disk, &MemoryColdStore::default(), &mut |_| {}).await };
    let locked = drive(&mut stepper, locked);
    assert!(matches!(locked, Err(DirectoryError::Locked)), "{locked:?}");
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    assert_eq!(offline(&disk), []);
}

#[test]
fn a_damaged_batch_is_named_with_its_offsets() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, partitions) = filled(&disk);
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    let paths = disk.names("wal");
    let path = paths.iter().find(|path| path.ends_with(".wal")).unwrap();
    let sound = disk.bytes(path);
    // In the third batch of the first file: offsets 3 to 5 of the first stream.
    let at = sound.windows(4).position(|w| w == b"2 xx").unwrap();
    disk.damage(path, |bytes| bytes[at + 50] ^= 1);
    let found = offline(&disk);
    let [damage] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(&damage.place, path);
    let place = damage.at.unwrap()..damage.at.unwrap() + damage.bytes.unwrap();
    assert!(place.contains(&(at as u64)));
    let [records] = &damage.records[..] else {
        panic!("{damage}");
    };
    assert_eq!(
        (records.partition, records.first_offset, records.last_offset),
        (partitions[0], 3, 5)
    );
    assert!(damage.to_string().contains("offsets 3 to 5"), "{damage}");
    let (kernel, mut stepper) = sim::stepped::open(&disk).unwrap();
    let [again] = &online(&kernel, &mut stepper)[..] else {
        panic!("the open log does not find it, or finds more");
    };
    assert_eq!(
        (&again.place, again.at, again.bytes, &again.records),
        (path, damage.at, damage.bytes, &damage.records)
    );
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let disk = SimDisk::default();
    let (kernel, mut stepper, _) = filled(&disk);
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    let path = disk.names("checkpoint").pop().unwrap();
    disk.damage(&path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let found = offline(&disk);
    assert!(found.iter().any(|damage| damage.place == path), "{found:?}");
}

#[test]
fn damage_that_a_start_does_not_get_past_says_so() {
    let disk = SimDisk::default();
    let (kernel, stepper, _) = filled(&disk);
    // No checkpoint: a start replays everything.
    drop((kernel, stepper));
    let paths = disk.names("wal");
    let path = paths.iter().find(|path| path.ends_with(".wal")).unwrap();
    let at = disk
        .bytes(path)
        .windows(4)
        .position(|w| w == b"2 xx")
        .unwrap();
    // In the header of the batch.
    disk.damage(path, |bytes| bytes[at - 30] ^= 1);
    let found = offline(&disk);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].reason.contains("does not get past it"),
        "{}",
        found[0]
    );
    assert!(sim::stepped::open(&disk).is_err());
}

/// Flips a bit of an object.
fn damage_object(cold: &MemoryColdStore, key: &str, at: u64) {
    drive_alone(async {
        let size = cold.size(key).await.unwrap();
        let mut bytes = cold.get(key, 0..size).await.unwrap().to_vec();
        bytes[at as usize] ^= 1;
        cold.delete(key).await.unwrap();
        cold.create(key, bytes.into()).await.unwrap();
    });
}

#[test]
fn damage_in_the_cold_store_is_named_open_or_not() {
    let disk = SimDisk::default();
    let cold = Arc::new(MemoryColdStore::default());
    let with_cold = || Ports {
        cold: cold.clone(),
        ..ports(&disk)
    };
    let (kernel, mut stepper) = Kernel::open_stepped(with_cold(), config()).unwrap();
    let stream = drive(&mut stepper, kernel.ensure_stream(&address("s"))).unwrap();
    let p = stream.id.partition(0);
    for n in 0..10 {
        let value = format!("{n} {}", "x".repeat(300_000));
        drive(
            &mut stepper,
            kernel.append(p, batch(&[&value, "-"]), SequenceRule::None),
        )
        .unwrap();
    }
    drive(&mut stepper, kernel.seal_all()).unwrap();
    assert_eq!(online(&kernel, &mut stepper), []);
    let log = kernel.stats().cold_log.unwrap();
    let segments = drive(&mut stepper, cold.list(&format!("{log}/segments/"))).unwrap();
    let [segment] = &segments[..] else {
        panic!("{segments:?}");
    };
    // One batch of 300 kB is a chunk: the third.
    damage_object(&cold, &segment.key, 16 + 2 * 300_100 + 5000);
    let found = online(&kernel, &mut stepper);
    let [damage] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(damage.place, segment.key);
    let [records] = &damage.records[..] else {
        panic!("{damage}");
    };
    assert_eq!(
        (records.partition, records.first_offset, records.last_offset),
        (p, 4, 5)
    );
    drive(&mut stepper, kernel.shutdown());
    drop((kernel, stepper));
    let again = look(&disk, &cold);
    assert_eq!(again, found);
    // Without its footer nothing of it can be found.
    damage_object(&cold, &segment.key, segment.bytes - 60);
    let again = look(&disk, &cold);
    let [damage] = &again[..] else {
        panic!("{again:?}");
    };
    assert_eq!(
        (
            damage.records[0].first_offset,
            damage.records[0].last_offset
        ),
        (0, 19)
    );
    // And it may be gone.
    drive_alone(cold.delete(&segment.key)).unwrap();
    let again = look(&disk, &cold);
    assert!(again[0].reason.contains("missing"), "{again:?}");
    // Another store is not a store with everything missing.
    let other = MemoryColdStore::default();
    let ports = ports(&disk);
    let looked = drive_alone(directory(&*ports.disk, &other, &mut |_| {}));
    assert!(
        matches!(looked, Err(DirectoryError::OtherStore { .. })),
        "{looked:?}"
    );
}

fn drive_alone<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}
