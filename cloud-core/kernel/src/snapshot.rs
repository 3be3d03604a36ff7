//! The state as bytes, for checkpoints.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::codec::{Decoder, Encode, Malformed, len_u32};
use crate::entry::{CursorName, CursorPosition};
use crate::entry_codec::{
    ABORTED, get_aborted, get_address, get_bitmap, get_compacted, get_config, get_partition,
    put_aborted, put_address, put_bitmap, put_compacted, put_config, put_partition,
};
use crate::queue::QueueName;
use crate::segment::SegmentId;
use crate::state::cold::{ColdRange, SegmentState};
use crate::state::partition::{BatchRef, Partition, PartitionLog};
use crate::state::producer::{Producer, Sent};
use crate::state::transaction::{Aborted, Open};
use crate::state::{Positions, QueueSources, Shared, SourceState, State, Table};
use crate::stream::{Stream, StreamId};

/// The state after one entry. What can be large is a copy that shares its memory with the state: the writer makes it for the price of some
/// pointers, and [`Snapshot::encode`] turns it to bytes on another thread.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The entry.
    pub index: u64,
    /// Head, streams and logs, encoded.
    logs: BytesMut,
    tables: Shared<Arc<str>, Table>,
    cursors: Shared<CursorName, Positions>,
    queues: Shared<QueueName, QueueSources>,
}

/// What a snapshot says besides the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SnapshotHead {
    pub index: u64,
    /// Stamp of the newest entry.
    pub stamp: i64,
    /// Made at an orderly shutdown, after everything else.
    pub last: bool,
    /// The WAL file in which the next entry was to be written (its first index), and where in it. 0 = there was none.
    pub wal_file: u64,
    pub wal_position: u64,
}

/// A wish for a snapshot.
struct Request {
    /// It shall be the last one.
    last: bool,
    /// Memory for what is encoded at once: see [`room`].
    room: BytesMut,
    sender: oneshot::Sender<Snapshot>,
}

/// Wishes for a snapshot; the writer answers between two groups.
#[derive(Default)]
pub(crate) struct SnapshotRequests {
    /// `None` when there is no writer any more. The last one waits until nothing else does.
    waiting: Mutex<Option<Vec<Request>>>,
}

impl SnapshotRequests {
    pub fn new() -> SnapshotRequests {
        SnapshotRequests {
            waiting: Mutex::new(Some(Vec::new())),
        }
    }

    pub fn request(&self, last: bool, room: BytesMut) -> Option<oneshot::Receiver<Snapshot>> {
        let (sender, receiver) = oneshot::channel();
        let request = Request { last, room, sender };
        self.waiting.lock().as_mut()?.push(request);
        Some(receiver)
    }

    /// Whether there is anything that can be answered.
    pub fn is_wanted(&self, idle: bool) -> bool {
        let waiting = self.waiting.lock();
        let mut requests = waiting.iter().flatten();
        requests.any(|request| idle || !request.last)
    }

    /// Answers what can be answered; true if there was anything.
    pub fn answer(&self, idle: bool, make: impl Fn(bool, BytesMut) -> Snapshot) -> bool {
        let mut ready = Vec::new();
        if let Some(waiting) = self.waiting.lock().as_mut() {
            ready.extend(waiting.extract_if(.., |r| idle || !r.last));
        }
        let any = !ready.is_empty();
        for Request { last, room, sender } in ready {
            // Whoever asked may have left.
            let _ = sender.send(make(last, room));
        }
        any
    }

    pub fn close(&self) {
        *self.waiting.lock() = None;
    }
}

/// Memory for what [`take`] encodes, as far as that can be told beforehand. It is written to here, where nobody waits: pages that are new to the
/// process cost several times what is then put in them.
pub(crate) fn room(state: &State) -> BytesMut {
    let mut bytes = 4096 + state.cold.lock().segments.len() * SEGMENT;
    let directory = state.directory.read();
    for partition in directory.partitions.values() {
        let log = partition.log.lock();
        bytes += LOG
            + log.cold.len() * RANGE
            + log.batches.len() * BATCH
            + log.producers.len() * PRODUCER;
    }
    bytes += directory.by_id.len() * STREAM;
    drop(directory);
    // What comes meanwhile.
    bytes += bytes / 8;
    let mut room = BytesMut::with_capacity(bytes);
    room.resize(bytes, 1);
    room.clear();
    room
}

/// Copies the state, part of it as bytes that are put to `out`; the caller is the only one who changes it.
pub(crate) fn take(state: &State, head: SnapshotHead, mut out: BytesMut) -> Snapshot {
    let index = head.index;
    out.put_u64_le(index);
    out.put_i64_le(head.stamp);
    out.put_u8(u8::from(head.last));
    out.put_u64_le(head.wal_file);
    out.put_u64_le(head.wal_position);
    let directory = state.directory.read();
    out.put_u64_le(directory.next_stream);
    out.put_i64_le(directory.next_producer_id);
    put_cold(&mut out, state);
    out.put_u32_le(len_u32(directory.by_id.len()));
    for stream in directory.by_id.values() {
        put_stream(&mut out, stream);
        for id in stream.partition_ids() {
            match directory.partitions.get(&id) {
                Some(partition) => put_log(&mut out, &partition.log.lock()),
                None => put_log(&mut out, &PartitionLog::default()),
            }
        }
    }
    Snapshot {
        index,
        logs: out,
        tables: state.tables.read().clone(),
        cursors: state.cursors.read().clone(),
        queues: state.queues.read().clone(),
    }
}

impl Snapshot {
    /// The bytes, in parts of bounded size.
    pub fn encode(self) -> Vec<Bytes> {
        let mut parts = Parts {
            done: Vec::new(),
            open: self.logs,
        };
        let out = &mut parts.open;
        out.put_u32_le(len_u32(self.tables.size()));
        for (name, table) in &self.tables {
            let out = &mut parts.open;
            out.bytes_with_len(name.as_bytes());
            out.put_u32_le(len_u32(table.rows().size()));
            for (key, value) in table.rows() {
                let out = parts.next();
                out.bytes_with_len(key);
                out.bytes_with_len(value);
            }
        }
        parts.open.put_u32_le(len_u32(self.cursors.size()));
        for (name, positions) in &self.cursors {
            let out = parts.next();
            out.bytes_with_len(name.0.as_bytes());
            out.put_u32_le(len_u32(positions.size()));
            for position in positions.values() {
                put_partition(out, position.partition);
                out.put_i64_le(position.offset);
                out.bytes_with_len(&position.metadata);
                out.put_i64_le(position.committed_at);
            }
        }
        parts.open.put_u32_le(len_u32(self.queues.size()));
        for (name, sources) in &self.queues {
            let out = parts.next();
            out.bytes_with_len(name.0.as_bytes());
            out.put_u32_le(len_u32(sources.size()));
            for (partition, source) in sources {
                put_partition(out, *partition);
                out.put_i64_le(source.low_water);
                out.put_i64_le(source.delivered_to);
                put_bitmap(out, &source.settled);
            }
        }
        parts.done.push(parts.open.freeze());
        parts.done
    }
}

/// Bytes of a part of a checkpoint.
const PART: usize = 1024 * 1024;

/// One buffer that doubles again and again would be copied each time.
struct Parts {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Parts {
    /// Where to go on: a new part when the last is full.
    fn next(&mut self) -> &mut BytesMut {
        if self.open.len() >= PART {
            let full = std::mem::replace(&mut self.open, BytesMut::with_capacity(PART + PART / 8));
            self.done.push(full.freeze());
        }
        &mut self.open
    }
}

/// Whose the cold store is, the segments (what lives of them follows from the ranges of the partitions), and how old the WAL is.
fn put_cold(out: &mut BytesMut, state: &State) {
    let cold = state.cold.lock();
    out.put_u8(u8::from(cold.log.is_some()));
    out.put_slice(cold.log.unwrap_or_default().as_bytes());
    out.put_u32_le(cold.epoch);
    out.put_slice(cold.nonce.as_bytes());
    out.put_u32_le(len_u32(cold.segments.len()));
    for (id, segment) in &cold.segments {
        out.put_u64_le(id.0);
        out.put_u64_le(segment.bytes);
        out.put_u32_le(segment.footer_bytes);
        out.put_u32_le(segment.footer_crc);
    }
    drop(cold);
    let wal_use = state.wal_use.lock();
    out.put_u32_le(len_u32(wal_use.marks().len()));
    for (index, stamp) in wal_use.marks() {
        out.put_u64_le(*index);
        out.put_i64_le(*stamp);
    }
}

fn get_cold(from: &mut Decoder, state: &State) -> Result<(), Malformed> {
    let mut cold = state.cold.lock();
    let has_log = from.u8()? != 0;
    let log = Uuid::from_bytes(from.array16()?);
    cold.log = has_log.then_some(log);
    cold.epoch = from.u32()?;
    cold.nonce = Uuid::from_bytes(from.array16()?);
    for _ in 0..from.count(24)? {
        let id = SegmentId(from.u64()?);
        let segment = SegmentState {
            bytes: from.u64()?,
            footer_bytes: from.u32()?,
            footer_crc: from.u32()?,
            live_bytes: 0,
            live_ranges: 0,
        };
        cold.segments.insert(id, segment);
    }
    drop(cold);
    let marks = (0..from.count(16)?)
        .map(|_| Ok((from.u64()?, from.i64()?)))
        .collect::<Result<VecDeque<_>, Malformed>>()?;
    state.wal_use.lock().set_marks(marks);
    Ok(())
}

pub(crate) fn put_stream(out: &mut BytesMut, stream: &Stream) {
    out.put_u64_le(stream.id.0);
    out.put_slice(stream.uuid.as_bytes());
    put_address(out, &stream.address);
    out.put_u32_le(stream.partitions);
    put_config(out, &stream.config);
    out.put_i64_le(stream.created_at);
}

pub(crate) fn get_stream(from: &mut Decoder) -> Result<Stream, Malformed> {
    Ok(Stream {
        id: StreamId(from.u64()?),
        uuid: Uuid::from_bytes(from.array16()?),
        address: get_address(from)?,
        partitions: from.u32()?,
        config: get_config(from)?,
        created_at: from.i64()?,
    })
}

/// Bytes of a hot batch.
const BATCH: usize = 44;
/// About the bytes of others: a stream, a partition without what follows, a cold range, a producer, a segment.
const STREAM: usize = 256;
const LOG: usize = 64;
const RANGE: usize = 57;
const PRODUCER: usize = 192;
const SEGMENT: usize = 24;

/// What is said of a producer in one byte: never expires, and from a restoration.
const STRICT: u8 = 1;
const RESTORED: u8 = 2;

fn put_log(out: &mut BytesMut, log: &PartitionLog) {
    out.put_i64_le(log.log_start);
    out.put_i64_le(log.end);
    out.put_i64_le(log.reserved);
    out.put_u32_le(len_u32(log.cold.len()));
    for range in &log.cold {
        out.put_u64_le(range.segment.0);
        out.put_i64_le(range.base_offset);
        out.put_i64_le(range.next_offset);
        out.put_i64_le(range.max_timestamp);
        out.put_u64_le(range.bytes);
        out.put_u64_le(range.first_index);
        put_compacted(out, range.compacted);
    }
    out.put_u32_le(len_u32(log.batches.len()));
    for batch in &log.batches {
        let mut fields = [0; BATCH];
        let mut to = &mut fields[..];
        to.put_i64_le(batch.base_offset);
        to.put_i64_le(batch.max_timestamp);
        to.put_u64_le(batch.index);
        to.put_u32_le(batch.frame_at);
        to.put_u32_le(batch.body_len);
        to.put_u32_le(batch.batch_at);
        to.put_u32_le(batch.batch_len);
        to.put_u32_le(batch.last_offset_delta);
        out.put_slice(&fields);
    }
    out.put_u32_le(len_u32(log.producers.len()));
    for (id, producer) in &log.producers {
        out.put_i64_le(*id);
        let strict = if producer.strict { STRICT } else { 0 };
        let restored = if producer.restored { RESTORED } else { 0 };
        out.put_u8(strict | restored);
        out.put_i16_le(producer.epoch);
        out.put_i32_le(producer.last_sequence);
        out.put_i64_le(producer.last_used);
        out.put_i32_le(producer.coordinator_epoch);
        out.put_u8(u8::from(producer.open.is_some()));
        if let Some(open) = producer.open {
            out.put_i64_le(open.first_offset);
            out.put_i64_le(open.started_at);
        }
        out.put_u32_le(len_u32(producer.window.len()));
        for sent in &producer.window {
            out.put_i32_le(sent.first_sequence);
            out.put_i32_le(sent.last_sequence);
            out.put_i64_le(sent.base_offset);
            out.put_i64_le(sent.last_offset);
        }
    }
    out.put_u32_le(len_u32(log.transactions.aborted().len()));
    for aborted in log.transactions.aborted() {
        put_aborted(out, &aborted.transaction);
        out.put_i64_le(aborted.stable_after);
    }
}

/// Fills an empty state.
pub(crate) fn decode(bytes: Bytes, version: u32, state: &State) -> Result<SnapshotHead, Malformed> {
    let mut from = Decoder::new(bytes);
    let mut head = SnapshotHead {
        index: from.u64()?,
        stamp: from.i64()?,
        last: from.u8()? != 0,
        ..SnapshotHead::default()
    };
    if version >= 2 {
        head.wal_file = from.u64()?;
        head.wal_position = from.u64()?;
    }
    let mut directory = state.directory.write();
    directory.next_stream = from.u64()?;
    directory.next_producer_id = from.i64()?;
    if version >= 2 {
        get_cold(&mut from, state)?;
    }
    for _ in 0..from.count(32)? {
        let stream = get_stream(&mut from)?;
        for id in stream.partition_ids() {
            let log = get_log(&mut from, version)?;
            let mut cold = state.cold.lock();
            log.cold.iter().for_each(|range| cold.gain(range));
            drop(cold);
            directory.partitions.insert(id, Partition::new(id, log));
        }
        State::place_stream(&mut directory, stream);
    }
    drop(directory);
    let mut tables = state.tables.write();
    for _ in 0..from.count(8)? {
        let name = from.string()?;
        let count = from.count(8)?;
        let mut table = Table::default();
        for _ in 0..count {
            // Copies: a slice would keep the whole checkpoint in memory.
            table.insert(
                Bytes::copy_from_slice(&from.bytes()?),
                Bytes::copy_from_slice(&from.bytes()?),
            );
        }
        tables.insert_mut(name.into(), table);
    }
    drop(tables);
    let mut cursors = state.cursors.write();
    for _ in 0..from.count(8)? {
        let name = CursorName(from.string()?.into());
        let mut positions = Positions::new_sync();
        for _ in 0..from.count(32)? {
            let position = CursorPosition {
                partition: get_partition(&mut from)?,
                offset: from.i64()?,
                metadata: Bytes::copy_from_slice(&from.bytes()?),
                committed_at: from.i64()?,
            };
            positions.insert_mut(position.partition, position);
        }
        cursors.insert_mut(name, positions);
    }
    drop(cursors);
    let mut queues = state.queues.write();
    for _ in 0..from.count(8)? {
        let name = QueueName(from.string()?.into());
        let mut sources = QueueSources::new_sync();
        for _ in 0..from.count(32)? {
            let partition = get_partition(&mut from)?;
            let source = SourceState {
                low_water: from.i64()?,
                delivered_to: from.i64()?,
                settled: get_bitmap(&mut from)?,
            };
            sources.insert_mut(partition, source);
        }
        queues.insert_mut(name, sources);
    }
    if from.is_done() {
        Ok(head)
    } else {
        Err(Malformed("bytes after the end"))
    }
}

fn get_log(from: &mut Decoder, version: u32) -> Result<PartitionLog, Malformed> {
    let mut log = PartitionLog {
        log_start: from.i64()?,
        end: from.i64()?,
        ..PartitionLog::default()
    };
    if version >= 2 {
        log.reserved = from.i64()?;
    }
    let cold = if version >= 2 { from.count(57)? } else { 0 };
    for _ in 0..cold {
        let range = ColdRange {
            segment: SegmentId(from.u64()?),
            base_offset: from.i64()?,
            next_offset: from.i64()?,
            max_timestamp: from.i64()?,
            bytes: from.u64()?,
            first_index: from.u64()?,
            compacted: get_compacted(from)?,
        };
        log.bytes = log.bytes.saturating_add(range.bytes);
        log.cold.push_back(range);
    }
    for _ in 0..from.count(44)? {
        let batch = BatchRef {
            base_offset: from.i64()?,
            max_timestamp: from.i64()?,
            index: from.u64()?,
            frame_at: from.u32()?,
            body_len: from.u32()?,
            batch_at: from.u32()?,
            batch_len: from.u32()?,
            last_offset_delta: from.u32()?,
        };
        log.bytes = log.bytes.saturating_add(u64::from(batch.batch_len));
        log.batches.push_back(batch);
    }
    for _ in 0..from.count(27)? {
        let id = from.i64()?;
        let flags = from.u8()?;
        let mut producer = Producer {
            strict: flags & STRICT != 0,
            restored: flags & RESTORED != 0,
            epoch: from.i16()?,
            last_sequence: from.i32()?,
            last_used: from.i64()?,
            coordinator_epoch: -1,
            open: None,
            window: VecDeque::new(),
        };
        if version >= 2 {
            producer.coordinator_epoch = from.i32()?;
            if from.u8()? != 0 {
                producer.open = Some(Open {
                    first_offset: from.i64()?,
                    started_at: from.i64()?,
                });
            }
        }
        if let Some(open) = producer.open {
            log.transactions.begin(id, open.first_offset);
        }
        for _ in 0..from.count(24)? {
            producer.window.push_back(Sent {
                first_sequence: from.i32()?,
                last_sequence: from.i32()?,
                base_offset: from.i64()?,
                last_offset: from.i64()?,
            });
        }
        log.producers.insert(id, producer);
    }
    let aborted = if version >= 2 {
        from.count(ABORTED + 8)?
    } else {
        0
    };
    for _ in 0..aborted {
        log.transactions.restore(Aborted {
            transaction: get_aborted(from)?,
            stable_after: from.i64()?,
        });
    }
    Ok(log)
}
