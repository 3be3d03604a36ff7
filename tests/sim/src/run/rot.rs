//! A bit of the WAL flips while nobody looks: what it stood for is reported and not served, all the rest is there. On a copy of the disk, so that
//! the run goes on with what is sound.

use std::ops::RangeInclusive;

use kernel::{Kernel, OpenError, PartitionId};
use rand::RngExt;

use super::Sim;
use super::life::{Life, Stop};
use crate::disk::SimDisk;
use crate::model::Model;
use crate::model::view::is_within;

/// Opens a copy with a flipped bit: in a checkpoint, or in a file of the WAL that others follow, for what stands at the end of the newest could be a write that
/// was cut short.
pub fn look_at_copy(sim: &mut Sim) -> Result<(), Stop> {
    if sim.rng.random_bool(0.4) {
        return look_at_checkpoint(sim);
    }
    let mut files = sim.disk.names("wal");
    files.retain(|path| path.ends_with(".wal"));
    files.pop();
    if files.is_empty() {
        return Ok(());
    }
    let path = files.swap_remove(sim.rng.random_range(0..files.len()));
    let whole = sim.disk.bytes(&path);
    let (copy, at) = flipped(sim, &path, whole.len());
    let sound = std::mem::replace(&mut sim.disk, copy.clone());
    let looked = look(sim, &copy, &path, &whole, at);
    sim.disk = sound;
    looked
}

/// A copy of the disk with a flipped bit in a file, and the byte that it is in.
fn flipped(sim: &mut Sim, path: &str, len: usize) -> (SimDisk, usize) {
    let at = sim.rng.random_range(0..len);
    let bit = sim.rng.random_range(0..8);
    sim.trace.note(format_args!(
        "bit {bit} of byte {at} of a copy of {path} flips"
    ));
    let copy = sim.disk.copy(sim.rng.random());
    copy.damage(path, |bytes| bytes[at] ^= 1 << bit);
    (copy, at)
}

/// Damage to one of two checkpoints costs nothing; without another one it is refused by name, or the log is whole from its first entry on.
fn look_at_checkpoint(sim: &mut Sim) -> Result<(), Stop> {
    let mut files = sim.disk.names("checkpoint");
    files.retain(|path| path.ends_with(".checkpoint"));
    if files.is_empty() {
        return Ok(());
    }
    let path = files.swap_remove(sim.rng.random_range(0..files.len()));
    let len = sim.disk.bytes(&path).len();
    let (copy, _) = flipped(sim, &path, len);
    let before = copy.bytes(&path);
    let sound = std::mem::replace(&mut sim.disk, copy.clone());
    let opened = Kernel::open_stepped(sim.ports(), sim.plan.config.clone());
    let looked = match opened {
        Ok((kernel, stepper)) => {
            let mut life = Life::new(kernel, stepper);
            let damaged = !sim.damage.borrow().is_empty();
            sim.look(&mut life)
                .and_then(|view| Ok(sim.truth.borrow().is_all_there(&view, damaged)?))
        }
        // A flipped version number is believed.
        Err(OpenError::NewerVersion { path: named, .. }) if named == path => Ok(()),
        Err(OpenError::Corrupt { path: named, .. })
            if named == path && files.is_empty() && copy.bytes(&path) == before =>
        {
            sim.trace.note(format_args!("it is refused"));
            Ok(())
        }
        Err(error) => Err(Stop::Wrong(format!(
            "{path} is damaged, {files:?} are sound, and opening says: {error}"
        ))),
    };
    sim.disk = sound;
    looked
}

fn look(sim: &mut Sim, copy: &SimDisk, path: &str, whole: &[u8], at: usize) -> Result<(), Stop> {
    let before = copy.bytes(path);
    let (kernel, stepper) = match Kernel::open_stepped(sim.ports(), sim.plan.config.clone()) {
        Ok(opened) => opened,
        // More than records of entries that have to be applied: it says which file, and leaves it as it is.
        // A flipped version number or name of the format is believed.
        Err(
            OpenError::Corrupt { path: named, .. }
            | OpenError::NewerVersion { path: named, .. }
            | OpenError::Foreign { path: named, .. },
        ) if named == path => {
            sim.trace.note(format_args!("it is refused"));
            if is_in_records(&sim.truth.borrow().now, whole, at) {
                let why = format!("{path} is refused for records alone, at byte {at}");
                return Err(Stop::Wrong(why));
            }
            return if copy.bytes(path) == before {
                Ok(())
            } else {
                Err(Stop::Wrong(format!("{path} was refused, and changed")))
            };
        }
        Err(error) => {
            let why = format!("{path} is damaged, and opening says: {error}");
            return Err(Stop::Wrong(why));
        }
    };
    let mut life = Life::new(kernel, stepper);
    let view = sim.read_all(&mut life, true)?;
    let truth = sim.truth.borrow();
    truth.is_there(&view)?;
    let damage = sim.damage.borrow();
    for (id, (_, partitions)) in &view.streams {
        for (number, found) in partitions.iter().enumerate() {
            let partition = id.partition(u32::try_from(number).unwrap_or(0));
            let known = |first: i64, last: i64| is_within(&damage, partition, first, last);
            let reported = found.corrupt.iter().filter(|(f, l)| !known(*f, *l));
            for (first, last) in reported {
                stood_there(&truth.now, partition, *first..=*last, whole)?;
            }
        }
    }
    Ok(())
}

/// Whether a byte of a file is one of the records of a batch that is in the log.
fn is_in_records(model: &Model, whole: &[u8], at: usize) -> bool {
    let logs = model.streams.values().flat_map(|stream| &stream.logs);
    let batches = logs.flat_map(|log| &log.batches);
    let mut records = batches
        .filter(|kept| !kept.batch.is_control())
        .filter_map(|kept| kept.batch.bytes().get(61..));
    records.any(|records| {
        let from = at.saturating_sub(records.len() - 1);
        let near = whole.get(from..whole.len().min(at + records.len()));
        let mut windows = near.unwrap_or_default().windows(records.len());
        windows.any(|window| window == records)
    })
}

/// What is reported must have been in the file.
fn stood_there(
    model: &Model,
    partition: PartitionId,
    offsets: RangeInclusive<i64>,
    whole: &[u8],
) -> Result<(), Stop> {
    let log = model.log(partition);
    let batches = log.into_iter().flat_map(|log| &log.batches);
    for kept in batches.filter(|kept| offsets.contains(&kept.batch.base_offset())) {
        let bytes = kept.batch.bytes().get(16..).unwrap_or_default();
        if !whole.windows(bytes.len()).any(|window| window == bytes) {
            return Err(Stop::Wrong(format!(
                "{partition} {offsets:?} are reported as damaged, and were in another file"
            )));
        }
    }
    Ok(())
}
