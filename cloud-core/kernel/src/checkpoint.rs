//! Checkpoint files: the state after one entry, so that the WAL before it need not be replayed. The two newest are kept, and the WAL that
//! the older of them needs, so that damage to the newest costs nothing.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::OpenError;
use crate::ports::Disk;
use crate::snapshot::{self, SnapshotHead};
use crate::state::State;
use crate::wal::recover::io_error;

/// Directory of the checkpoints, in the data directory.
pub(crate) const DIRECTORY: &str = "checkpoint";
const MAGIC: &[u8; 8] = b"TLCKPT\0\0";
/// Version of the format; 1 knew no cold store, no transactions, and not where in the WAL the next entry stands.
pub(crate) const VERSION: u32 = 2;
/// Magic, version, length of the body, CRC-32C of the body.
const HEADER: usize = 24;
/// Checkpoints kept.
const KEEP: usize = 2;

pub(crate) fn path(index: u64) -> String {
    format!("{DIRECTORY}/{}", name(index))
}

/// Name of the checkpoint after an entry.
pub(crate) fn name(index: u64) -> String {
    format!("{index:020}.checkpoint")
}

/// The entry of the checkpoint with that name; `None` for a file that is none.
pub(crate) fn index_of(name: &str) -> Option<u64> {
    name.strip_suffix(".checkpoint")
        .filter(|digits| digits.len() == 20)
        .and_then(|digits| digits.parse().ok())
}

/// Writes a checkpoint so that after a crash at any point it is there whole or not at all. Returns the indexes of those kept,
/// oldest first.
pub(crate) fn save(disk: &dyn Disk, index: u64, parts: &[Bytes]) -> std::io::Result<Vec<u64>> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let crc = parts
        .iter()
        .fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    let mut header = BytesMut::with_capacity(HEADER);
    header.put_slice(MAGIC);
    header.put_u32_le(VERSION);
    header.put_u64_le(length as u64);
    header.put_u32_le(crc);
    let temporary = format!("{DIRECTORY}/new.tmp");
    let stale = disk.list(DIRECTORY)?;
    if stale.iter().any(|name| name == "new.tmp") {
        disk.remove(&temporary)?;
    }
    let mut whole = vec![&header[..]];
    whole.extend(parts.iter().map(|part| &part[..]));
    let file = disk.create(&temporary)?;
    if let Err(error) = file.write_at(0, &whole).and_then(|()| file.sync()) {
        // Where there is no room, what is of no use must not take any.
        disk.remove(&temporary)?;
        return Err(error);
    }
    disk.rename(&temporary, &path(index))?;
    disk.sync_dir(DIRECTORY)?;
    keep(disk, KEEP)
}

/// Removes all checkpoints but the newest; true if there were others. They must not come back in a power cut: the log that they need goes next,
/// and a start would try them when the newest is damaged.
pub(crate) fn keep_newest(disk: &dyn Disk) -> std::io::Result<bool> {
    let before = disk.list(DIRECTORY)?.len();
    let removed = keep(disk, 1)?.len() < before;
    if removed {
        disk.sync_dir(DIRECTORY)?;
    }
    Ok(removed)
}

/// Removes all checkpoints but the newest few; returns their indexes, oldest first.
fn keep(disk: &dyn Disk, count: usize) -> std::io::Result<Vec<u64>> {
    let names = disk.list(DIRECTORY)?;
    let mut indexes: Vec<u64> = names.iter().filter_map(|name| index_of(name)).collect();
    indexes.sort_unstable();
    while indexes.len() > count {
        let oldest = indexes.remove(0);
        disk.remove(&path(oldest))?;
    }
    Ok(indexes)
}

/// What was found at open.
pub(crate) struct Loaded {
    pub state: State,
    pub head: SnapshotHead,
    /// Indexes of the checkpoints on disk that may be relied on, oldest first.
    pub kept: Vec<u64>,
    /// There are checkpoints, and all are damaged: what is wrong with the newest. The log begins with its first entry, but files behind it may
    /// be gone since the checkpoint had what was in them.
    pub damage: Option<OpenError>,
}

impl Loaded {
    /// What is wrong when the log cannot be replayed: where the checkpoint is damaged that it needed, that.
    pub fn blame(damage: Option<OpenError>, error: OpenError) -> OpenError {
        match error {
            OpenError::Corrupt { .. } => damage.unwrap_or(error),
            error => error,
        }
    }
}

/// Loads the newest checkpoint that is sound; an empty state if there has never been one.
pub(crate) fn load(disk: &dyn Disk, tail_bytes: usize) -> Result<Loaded, OpenError> {
    let names = disk.list(DIRECTORY).map_err(io_error("list", DIRECTORY))?;
    let mut indexes: Vec<u64> = names.iter().filter_map(|name| index_of(name)).collect();
    indexes.sort_unstable();
    let mut damage = None;
    while let Some(index) = indexes.last().copied() {
        let state = State::new(tail_bytes);
        match load_one(disk, index, &state) {
            Ok(head) => {
                return Ok(Loaded {
                    state,
                    head,
                    kept: indexes,
                    damage: None,
                });
            }
            Err(error @ OpenError::Corrupt { .. }) => {
                tracing::error!(%error, "a checkpoint is damaged; trying the one before");
                damage.get_or_insert(error);
                indexes.pop();
            }
            Err(error) => return Err(error),
        }
    }
    match damage {
        // With all of them damaged, the state before the first entry in the WAL is lost, unless that is the very first entry:
        // recovery finds out, since it does not accept a gap.
        Some(error) if !wal_is_complete(disk)? => Err(error),
        damage => Ok(Loaded {
            state: State::new(tail_bytes),
            head: SnapshotHead::default(),
            kept: Vec::new(),
            damage,
        }),
    }
}

fn wal_is_complete(disk: &dyn Disk) -> Result<bool, OpenError> {
    let names = disk
        .list(crate::wal::DIRECTORY)
        .map_err(io_error("list", crate::wal::DIRECTORY))?;
    Ok(names
        .iter()
        .filter_map(|name| crate::wal::first_index(name))
        .min()
        == Some(1))
}

/// Bytes of the file that a state of these parts becomes.
pub(crate) fn file_bytes(parts: &[Bytes]) -> u64 {
    (HEADER + parts.iter().map(Bytes::len).sum::<usize>()) as u64
}

/// Indexes and sizes of the checkpoints on the disk, oldest first.
pub(crate) fn sizes(disk: &dyn Disk) -> std::io::Result<Vec<(u64, u64)>> {
    let names = disk.list(DIRECTORY)?;
    let mut sizes = Vec::new();
    for index in names.iter().filter_map(|name| index_of(name)) {
        sizes.push((index, disk.open(&path(index), false)?.len()?));
    }
    sizes.sort_unstable();
    Ok(sizes)
}

/// Reads a checkpoint into an empty state.
pub(crate) fn load_one(
    disk: &dyn Disk,
    index: u64,
    state: &State,
) -> Result<SnapshotHead, OpenError> {
    let (version, body) = read(disk, index)?;
    snapshot::decode(body, version, state).map_err(|e| corrupt(index, &e.to_string()))
}

fn corrupt(index: u64, reason: &str) -> OpenError {
    OpenError::Corrupt {
        path: path(index),
        position: 0,
        index,
        reason: reason.to_owned(),
    }
}

/// The version and the body of a checkpoint, verified.
pub(crate) fn read(disk: &dyn Disk, index: u64) -> Result<(u32, Bytes), OpenError> {
    let path = path(index);
    let file = disk.open(&path, false).map_err(io_error("open", &path))?;
    let len = file.len().map_err(io_error("measure", &path))?;
    let corrupt = |reason: &str| corrupt(index, reason);
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| corrupt("it is too large"))?];
    file.read_at(0, &mut bytes)
        .map_err(io_error("read", &path))?;
    open_up(index, Bytes::from(bytes))
}

/// Some bytes of a checkpoint; none at its end.
pub(crate) fn piece(disk: &dyn Disk, index: u64, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let file = disk.open(&path(index), false)?;
    let left = usize::try_from(file.len()?.saturating_sub(at)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(len)];
    file.read_at(at, &mut bytes)?;
    Ok(bytes)
}

/// Reads the bytes of a checkpoint into an empty state.
pub(crate) fn parse(index: u64, bytes: Bytes, state: &State) -> Result<SnapshotHead, OpenError> {
    let (version, body) = open_up(index, bytes)?;
    snapshot::decode(body, version, state).map_err(|e| corrupt(index, &e.to_string()))
}

/// The version and the body, verified.
fn open_up(index: u64, mut body: Bytes) -> Result<(u32, Bytes), OpenError> {
    let corrupt = |reason: &str| corrupt(index, reason);
    if body.len() < HEADER {
        return Err(corrupt("it is too short"));
    }
    let mut header = crate::codec::Decoder::new(body.split_to(HEADER).slice(8..));
    let (version, length, crc) = (header.u32(), header.u64(), header.u32());
    let (Ok(version), Ok(length), Ok(crc)) = (version, length, crc) else {
        return Err(corrupt("it is too short"));
    };
    if version > VERSION {
        return Err(OpenError::NewerVersion {
            path: path(index),
            found: version,
            supported: VERSION,
        });
    }
    if length != body.len() as u64 || crc32c::crc32c(&body) != crc {
        return Err(corrupt("the checksum does not match"));
    }
    Ok((version, body))
}
