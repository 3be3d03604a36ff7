//! An entry as the body of a frame. Batches stand in it unchanged, so that they are written from where they are and read in place.

mod fields;

use bytes::{BufMut, Bytes, BytesMut};
use record::{Batch, HEADER_LEN};
use smallvec::SmallVec;
use std::ops::Range;
use uuid::Uuid;

use crate::codec::{Decoder, Encode, Malformed, len_u32};
use crate::entry::{Command, CursorName, CursorPosition, QueueSettled, SequenceRule};
use crate::queue::QueueName;
use crate::segment::{Compacted, SegmentId, SegmentMeta, SegmentPart};
use crate::stream::StreamId;

pub(crate) use fields::{
    ABORTED, get_aborted, get_address, get_bitmap, get_config, get_partition, put_aborted,
    put_address, put_bitmap, put_config, put_partition,
};

/// Where in a body the batch of each append, and the control batch of each end of a transaction, begins, in order.
pub(crate) type BatchesAt = SmallVec<[u32; 2]>;

/// An encoded entry.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The body without its batches, which stay where they are, in the commands.
    pub rest: BytesMut,
    /// Length of the body.
    pub len: usize,
    /// CRC-32C of the body.
    pub crc: u32,
    /// CRC-32C of the structure: the body without the records of the batches that are appended, of which nothing is needed to apply it.
    pub structure_crc: u32,
    pub batches_at: BatchesAt,
}

impl Encoded {
    /// Cuts the body at its batches: what of `rest` stands before each, and the batch, then what stands after the last one.
    pub fn cut<'a>(
        &self,
        commands: &'a [Command],
    ) -> impl Iterator<Item = (Range<usize>, Option<&'a Batch>)> {
        let mut batches = commands.iter().filter_map(Command::batch);
        let mut batches_at = self.batches_at.iter();
        let (mut from, mut before) = (0, 0);
        let mut end = Some(self.rest.len());
        std::iter::from_fn(move || match (batches.next(), batches_at.next()) {
            (Some(batch), Some(at)) => {
                let range = from..*at as usize - before;
                from = range.end;
                before += batch.len();
                Some((range, Some(batch)))
            }
            _ => end.take().map(|end| (from..end, None)),
        })
    }
}

const APPEND: u8 = 1;
const TABLE_PUT: u8 = 2;
const TABLE_DELETE: u8 = 3;
const CURSOR_COMMIT: u8 = 4;
const CURSOR_DELETE: u8 = 5;
const CREATE_STREAM: u8 = 6;
const DELETE_STREAM: u8 = 7;
const ADD_PARTITIONS: u8 = 8;
const ALTER_STREAM: u8 = 9;
const TRIM: u8 = 10;
const ALLOCATE_PRODUCER_IDS: u8 = 11;
const EXPIRE_PRODUCERS: u8 = 12;
const QUEUE_SOURCES: u8 = 13;
const QUEUE_SETTLE: u8 = 14;
const QUEUE_DELETE: u8 = 15;
const RESERVE: u8 = 16;
const ADVANCE_SEQUENCE: u8 = 17;
const TABLE_DELETE_IF: u8 = 18;
const END_TRANSACTION: u8 = 20;
const COLD_CLAIM: u8 = 24;
const SEGMENT_SEALED: u8 = 25;
const RANGES_REPLACED: u8 = 26;

pub(crate) fn encode(commands: &[Command]) -> Encoded {
    let mut batches_at = BatchesAt::new();
    let mut before = 0;
    let (mut crc, mut structure_crc) = (0, 0);
    let mut from = 0;
    let mut out = BytesMut::with_capacity(4 + commands.iter().map(room).sum::<usize>());
    let mut put_batch = |out: &mut BytesMut, batch: &Batch, structure: usize| {
        out.put_u32_le(len_u32(batch.len()));
        let rest = out.get(from..).unwrap_or_default();
        let (structure, records) = split(batch.bytes(), structure);
        // Up to the first records both are the same.
        let same = batches_at.is_empty();
        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, rest), structure);
        structure_crc = if same {
            crc
        } else {
            crc32c::crc32c_append(crc32c::crc32c_append(structure_crc, rest), structure)
        };
        crc = crc32c::crc32c_append(crc, records);
        batches_at.push(len_u32(out.len() + before));
        from = out.len();
        before += batch.len();
    };
    out.put_u32_le(len_u32(commands.len()));
    for command in commands {
        match command {
            Command::Append {
                partition,
                batch,
                rule,
            } => {
                out.put_u8(APPEND);
                put_partition(&mut out, *partition);
                out.put_u8(match rule {
                    SequenceRule::None => 0,
                    SequenceRule::Window => 1,
                    SequenceRule::Strict => 2,
                });
                put_batch(&mut out, batch, HEADER_LEN);
            }
            Command::EndTransaction { partitions, marker } => {
                out.put_u8(END_TRANSACTION);
                out.put_u32_le(len_u32(partitions.len()));
                partitions.iter().for_each(|p| put_partition(&mut out, *p));
                put_batch(&mut out, marker, usize::MAX);
            }
            Command::TablePut { table, key, value } => {
                out.put_u8(TABLE_PUT);
                out.bytes_with_len(table.as_bytes());
                out.bytes_with_len(key);
                out.bytes_with_len(value);
            }
            Command::TableDelete { table, key } => {
                out.put_u8(TABLE_DELETE);
                out.bytes_with_len(table.as_bytes());
                out.bytes_with_len(key);
            }
            Command::TableDeleteIf { table, key, value } => {
                out.put_u8(TABLE_DELETE_IF);
                out.bytes_with_len(table.as_bytes());
                out.bytes_with_len(key);
                out.bytes_with_len(value);
            }
            Command::CursorCommit { group, positions } => {
                out.put_u8(CURSOR_COMMIT);
                out.bytes_with_len(group.0.as_bytes());
                out.put_u32_le(len_u32(positions.len()));
                for position in positions {
                    put_partition(&mut out, position.partition);
                    out.put_i64_le(position.offset);
                    out.bytes_with_len(&position.metadata);
                }
            }
            Command::CursorDelete { group, partitions } => {
                out.put_u8(CURSOR_DELETE);
                out.bytes_with_len(group.0.as_bytes());
                out.put_u8(u8::from(partitions.is_some()));
                if let Some(partitions) = partitions {
                    out.put_u32_le(len_u32(partitions.len()));
                    partitions.iter().for_each(|p| put_partition(&mut out, *p));
                }
            }
            Command::CreateStream {
                address,
                uuid,
                partitions,
                config,
            } => {
                out.put_u8(CREATE_STREAM);
                put_address(&mut out, address);
                out.put_slice(uuid.as_bytes());
                out.put_u32_le(*partitions);
                put_config(&mut out, config);
            }
            Command::DeleteStream { stream } => {
                out.put_u8(DELETE_STREAM);
                out.put_u64_le(stream.0);
            }
            Command::AddPartitions { stream, partitions } => {
                out.put_u8(ADD_PARTITIONS);
                out.put_u64_le(stream.0);
                out.put_u32_le(*partitions);
            }
            Command::AlterStream { stream, config } => {
                out.put_u8(ALTER_STREAM);
                out.put_u64_le(stream.0);
                put_config(&mut out, config);
            }
            Command::Trim {
                partition,
                log_start,
            } => {
                out.put_u8(TRIM);
                put_partition(&mut out, *partition);
                out.put_i64_le(*log_start);
            }
            Command::Reserve { partition, end } => {
                out.put_u8(RESERVE);
                put_partition(&mut out, *partition);
                out.put_i64_le(*end);
            }
            Command::AdvanceSequence {
                partition,
                producer_id,
                epoch,
                next,
            } => {
                out.put_u8(ADVANCE_SEQUENCE);
                put_partition(&mut out, *partition);
                out.put_i64_le(*producer_id);
                out.put_i16_le(*epoch);
                out.put_i32_le(*next);
            }
            Command::AllocateProducerIds { count } => {
                out.put_u8(ALLOCATE_PRODUCER_IDS);
                out.put_u32_le(*count);
            }
            Command::ExpireProducers { idle_since } => {
                out.put_u8(EXPIRE_PRODUCERS);
                out.put_i64_le(*idle_since);
            }
            Command::QueueSources { queue, sources } => {
                out.put_u8(QUEUE_SOURCES);
                out.bytes_with_len(queue.0.as_bytes());
                out.put_u32_le(len_u32(sources.len()));
                for (partition, from) in sources {
                    put_partition(&mut out, *partition);
                    out.put_i64_le(*from);
                }
            }
            Command::QueueSettle { queue, settled } => {
                out.put_u8(QUEUE_SETTLE);
                out.bytes_with_len(queue.0.as_bytes());
                out.put_u32_le(len_u32(settled.len()));
                for settled in settled {
                    put_partition(&mut out, settled.partition);
                    put_bitmap(&mut out, &settled.offsets);
                    out.put_i64_le(settled.low_water);
                    out.put_i64_le(settled.delivered_to);
                }
            }
            Command::QueueDelete { queue } => {
                out.put_u8(QUEUE_DELETE);
                out.bytes_with_len(queue.0.as_bytes());
            }
            Command::ColdClaim { log, epoch, nonce } => {
                out.put_u8(COLD_CLAIM);
                out.put_slice(log.as_bytes());
                out.put_u32_le(*epoch);
                out.put_slice(nonce.as_bytes());
            }
            Command::SegmentSealed { segment } => {
                out.put_u8(SEGMENT_SEALED);
                put_segment(&mut out, segment);
            }
            Command::RangesReplaced { removed, added } => {
                out.put_u8(RANGES_REPLACED);
                out.put_u32_le(len_u32(removed.len()));
                for (segment, partition) in removed {
                    out.put_u64_le(segment.0);
                    put_partition(&mut out, *partition);
                }
                out.put_u32_le(len_u32(added.len()));
                added.iter().for_each(|meta| put_segment(&mut out, meta));
            }
        }
    }
    let rest = out.get(from..).unwrap_or_default();
    if batches_at.is_empty() {
        crc = crc32c::crc32c(rest);
        structure_crc = crc;
    } else if !rest.is_empty() {
        crc = crc32c::crc32c_append(crc, rest);
        structure_crc = crc32c::crc32c_append(structure_crc, rest);
    }
    Encoded {
        len: out.len() + before,
        rest: out,
        crc,
        structure_crc,
        batches_at,
    }
}

/// A batch as so many bytes that are of the structure, and the rest.
fn split(batch: &[u8], structure: usize) -> (&[u8], &[u8]) {
    batch.split_at(structure.min(batch.len()))
}

/// Of the batch in a command: the bytes that are of the structure. How a transaction ends is told by the records of its control batch, so those
/// are, too.
fn structure_of(command: &Command) -> usize {
    match command {
        Command::Append { .. } => HEADER_LEN,
        _ => usize::MAX,
    }
}

/// Where the batches begin whose records are damaged, in a body that is not what its checksum says. `None`: more than records is damaged, nothing
/// in it can be relied on.
pub(crate) fn damaged_batches(body: &Bytes, structure_crc: u32) -> Option<BatchesAt> {
    let (commands, batches_at) = decode(body.clone()).ok()?;
    let (mut crc, mut from) = (0, 0);
    let mut damaged = BatchesAt::new();
    let batches = commands.iter().filter_map(|c| Some((c, c.batch()?)));
    for ((command, batch), batch_at) in batches.zip(batches_at) {
        let (at, len) = (batch_at as usize, batch.len());
        let (structure, _) = split(batch.bytes(), structure_of(command));
        crc = crc32c::crc32c_append(crc, body.get(from..at)?);
        crc = crc32c::crc32c_append(crc, structure);
        from = at + len;
        if batch.check_crc().is_err() {
            damaged.push(batch_at);
        }
    }
    crc = crc32c::crc32c_append(crc, body.get(from..)?);
    // The records of a control batch are of the structure: when they are damaged, that checksum says so.
    (crc == structure_crc && !damaged.is_empty()).then_some(damaged)
}

/// Bytes that a command takes, its batch aside; exact for what is frequent, a guess for the rest.
fn room(command: &Command) -> usize {
    match command {
        Command::Append { .. } => 18 + 4,
        Command::TablePut { table, key, value } | Command::TableDeleteIf { table, key, value } => {
            13 + table.len() + key.len() + value.len()
        }
        Command::TableDelete { table, key } => 9 + table.len() + key.len(),
        _ => 64,
    }
}

/// The commands of a body, with where the batches in it begin.
pub(crate) fn decode(body: Bytes) -> Result<(Vec<Command>, BatchesAt), Malformed> {
    let mut from = Decoder::new(body);
    let count = from.count(1)?;
    // A command takes far more memory than the one byte that it may take here.
    if count > crate::limits::MAX_ENTRY_COMMANDS {
        return Err(Malformed("too many commands"));
    }
    let mut commands = Vec::with_capacity(count);
    let mut batches_at = BatchesAt::new();
    for _ in 0..count {
        commands.push(decode_command(&mut from, &mut batches_at)?);
    }
    if from.is_done() {
        Ok((commands, batches_at))
    } else {
        Err(Malformed("bytes after the last command"))
    }
}

fn decode_command(from: &mut Decoder, batches_at: &mut BatchesAt) -> Result<Command, Malformed> {
    Ok(match from.u8()? {
        APPEND => {
            let partition = get_partition(from)?;
            let rule = match from.u8()? {
                0 => SequenceRule::None,
                1 => SequenceRule::Window,
                2 => SequenceRule::Strict,
                _ => return Err(Malformed("sequence rule")),
            };
            Command::Append {
                partition,
                batch: get_batch(from, batches_at)?,
                rule,
            }
        }
        END_TRANSACTION => {
            let count = from.count(12)?;
            Command::EndTransaction {
                partitions: (0..count)
                    .map(|_| get_partition(from))
                    .collect::<Result<_, _>>()?,
                marker: get_batch(from, batches_at)?,
            }
        }
        TABLE_PUT => Command::TablePut {
            table: from.string()?.into(),
            key: from.bytes()?,
            value: from.bytes()?,
        },
        TABLE_DELETE => Command::TableDelete {
            table: from.string()?.into(),
            key: from.bytes()?,
        },
        TABLE_DELETE_IF => Command::TableDeleteIf {
            table: from.string()?.into(),
            key: from.bytes()?,
            value: from.bytes()?,
        },
        CURSOR_COMMIT => {
            let group = CursorName(from.string()?.into());
            let count = from.count(24)?;
            let mut positions = Vec::with_capacity(count);
            for _ in 0..count {
                positions.push(CursorPosition {
                    partition: get_partition(from)?,
                    offset: from.i64()?,
                    metadata: from.bytes()?,
                    committed_at: 0,
                });
            }
            Command::CursorCommit { group, positions }
        }
        CURSOR_DELETE => {
            let group = CursorName(from.string()?.into());
            let partitions = match from.u8()? {
                0 => None,
                _ => Some(
                    (0..from.count(12)?)
                        .map(|_| get_partition(from))
                        .collect::<Result<_, _>>()?,
                ),
            };
            Command::CursorDelete { group, partitions }
        }
        CREATE_STREAM => Command::CreateStream {
            address: get_address(from)?,
            uuid: Uuid::from_bytes(from.array16()?),
            partitions: from.u32()?,
            config: get_config(from)?,
        },
        DELETE_STREAM => Command::DeleteStream {
            stream: StreamId(from.u64()?),
        },
        ADD_PARTITIONS => Command::AddPartitions {
            stream: StreamId(from.u64()?),
            partitions: from.u32()?,
        },
        ALTER_STREAM => Command::AlterStream {
            stream: StreamId(from.u64()?),
            config: get_config(from)?,
        },
        TRIM => Command::Trim {
            partition: get_partition(from)?,
            log_start: from.i64()?,
        },
        RESERVE => Command::Reserve {
            partition: get_partition(from)?,
            end: from.i64()?,
        },
        ADVANCE_SEQUENCE => Command::AdvanceSequence {
            partition: get_partition(from)?,
            producer_id: from.i64()?,
            epoch: from.i16()?,
            next: from.i32()?,
        },
        ALLOCATE_PRODUCER_IDS => Command::AllocateProducerIds { count: from.u32()? },
        EXPIRE_PRODUCERS => Command::ExpireProducers {
            idle_since: from.i64()?,
        },
        QUEUE_SOURCES => {
            let queue = QueueName(from.string()?.into());
            let sources = (0..from.count(20)?)
                .map(|_| Ok((get_partition(from)?, from.i64()?)))
                .collect::<Result<_, Malformed>>()?;
            Command::QueueSources { queue, sources }
        }
        QUEUE_SETTLE => {
            let queue = QueueName(from.string()?.into());
            let mut settled = Vec::new();
            for _ in 0..from.count(32)? {
                settled.push(QueueSettled {
                    partition: get_partition(from)?,
                    offsets: get_bitmap(from)?,
                    low_water: from.i64()?,
                    delivered_to: from.i64()?,
                });
            }
            Command::QueueSettle { queue, settled }
        }
        QUEUE_DELETE => Command::QueueDelete {
            queue: QueueName(from.string()?.into()),
        },
        COLD_CLAIM => Command::ColdClaim {
            log: Uuid::from_bytes(from.array16()?),
            epoch: from.u32()?,
            nonce: Uuid::from_bytes(from.array16()?),
        },
        SEGMENT_SEALED => Command::SegmentSealed {
            segment: get_segment(from)?,
        },
        RANGES_REPLACED => {
            let mut removed = Vec::new();
            for _ in 0..from.count(20)? {
                removed.push((SegmentId(from.u64()?), get_partition(from)?));
            }
            let mut added = Vec::new();
            for _ in 0..from.count(28)? {
                added.push(get_segment(from)?);
            }
            Command::RangesReplaced { removed, added }
        }
        _ => return Err(Malformed("unknown command")),
    })
}

fn put_segment(out: &mut BytesMut, meta: &SegmentMeta) {
    out.put_u64_le(meta.id.0);
    out.put_u64_le(meta.bytes);
    out.put_u32_le(meta.footer_bytes);
    out.put_u32_le(meta.footer_crc);
    out.put_u32_le(len_u32(meta.parts.len()));
    for part in &meta.parts {
        put_partition(out, part.partition);
        out.put_i64_le(part.base_offset);
        out.put_i64_le(part.next_offset);
        out.put_i64_le(part.max_timestamp);
        out.put_u64_le(part.bytes);
        out.put_u64_le(part.first_index);
        put_compacted(out, part.compacted);
    }
}

fn get_segment(from: &mut Decoder) -> Result<SegmentMeta, Malformed> {
    let mut meta = SegmentMeta {
        id: SegmentId(from.u64()?),
        bytes: from.u64()?,
        footer_bytes: from.u32()?,
        footer_crc: from.u32()?,
        parts: Vec::new(),
    };
    for _ in 0..from.count(61)? {
        meta.parts.push(SegmentPart {
            partition: get_partition(from)?,
            base_offset: from.i64()?,
            next_offset: from.i64()?,
            max_timestamp: from.i64()?,
            bytes: from.u64()?,
            first_index: from.u64()?,
            compacted: get_compacted(from)?,
        });
    }
    Ok(meta)
}

pub(crate) fn put_compacted(out: &mut BytesMut, compacted: Compacted) {
    let (tag, since) = match compacted {
        Compacted::Never => (0, 0),
        Compacted::Since(since) => (1, since),
        Compacted::Wholly => (2, 0),
    };
    out.put_u8(tag);
    out.put_i64_le(since);
}

pub(crate) fn get_compacted(from: &mut Decoder) -> Result<Compacted, Malformed> {
    let (tag, since) = (from.u8()?, from.i64()?);
    match tag {
        0 => Ok(Compacted::Never),
        1 => Ok(Compacted::Since(since)),
        2 => Ok(Compacted::Wholly),
        _ => Err(Malformed("compaction")),
    }
}

fn get_batch(from: &mut Decoder, batches_at: &mut BatchesAt) -> Result<Batch, Malformed> {
    batches_at.push(len_u32(from.position() + 4));
    // The frame's checksum, just verified, covers the batch.
    Batch::from_trusted(from.bytes()?).map_err(|_| Malformed("batch"))
}
