//! The writer thread of a log: takes all that waits, writes it with one call, syncs once, then tells those who wait.
//!
//! Publishes that arrive while a sync is running are coalesced: records of one stream become one batch. Sequence numbers are
//! given and batches encoded here, so that what is in the file is in the order of the sequences.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use record::{BatchBuilder, StreamName};
use tokio::sync::oneshot;

use crate::config::Eviction;
use crate::delayed::DelayedKey;
use crate::disk::DiskFile;
use crate::frame::{Entry, Frame, PacketRef, View};
use crate::item::{Control, Item};
use crate::limits;
use crate::log::{Segment, Shared, WriteError, segment_name};
use crate::segment::{LogState, Stamp, encode_header};

type Done = oneshot::Sender<Result<(), WriteError>>;

pub(crate) struct Waiting {
    pub item: Item,
    pub weight: usize,
    pub done: Done,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: LogState,
    active: Arc<dyn DiskFile>,
    /// When its first record was stamped.
    pub(crate) active_since: Option<Stamp>,
    /// Reused from group to group.
    buffer: Vec<u8>,
}

/// A batch that still takes records.
struct OpenBatch {
    stream: StreamName,
    blind: Option<u64>,
    builder: BatchBuilder,
    retained: Vec<u32>,
    packets: Vec<PacketRef>,
    views: Vec<(u32, View)>,
    delayed: Vec<DelayedKey>,
    payload: usize,
    done: Vec<Done>,
}

/// What one sync makes durable.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    done: Vec<Done>,
    records: u64,
    payload: u64,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, state: LogState, active: Arc<dyn DiskFile>) -> Writer {
        Writer {
            shared,
            state,
            active,
            active_since: None,
            buffer: Vec::new(),
        }
    }

    /// Until the log is closed and nothing is left.
    pub fn run(mut self) {
        while self.wait() {
            self.step();
        }
    }

    /// Writes one group of what waits; false if nothing does.
    pub fn step(&mut self) -> bool {
        let (items, weight) = self.take();
        if items.is_empty() {
            return false;
        }
        let count = items.len() as u64;
        let items = self.controls(items);
        let mut group = self.build(items);
        let result = if group.entries.is_empty() {
            Ok(())
        } else {
            self.write(&group)
        };
        if result.is_ok() {
            self.publish(&mut group);
            self.leave_little();
        } else {
            let refused = group.done.len() as u64;
            self.shared
                .counters
                .refused
                .fetch_add(refused, Ordering::Relaxed);
        }
        let counters = &self.shared.counters;
        counters.groups.fetch_add(1, Ordering::Relaxed);
        {
            let mut queue = self.shared.queue.lock();
            queue.weight -= weight;
            queue.done += count;
        }
        self.shared.bound.wait_no_more(weight);
        for done in group.done {
            // The publisher may be gone; what it published is stored all the same.
            let _ = done.send(result.clone());
        }
        if self.buffer.capacity() > limits::GROUP_TARGET {
            self.buffer = Vec::new();
        }
        true
    }

    /// Waits for items, and for others to come along with them where the lane is set so. False: closed, and nothing is left.
    fn wait(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        while queue.waiting.is_empty() {
            if queue.closing {
                return false;
            }
            self.shared.wake.wait(&mut queue);
        }
        let linger = self.shared.config.linger;
        if !linger.is_zero() {
            let until = Instant::now() + linger;
            while queue.weight < limits::LINGER_TARGET
                && !(queue.hurry || queue.closing)
                && !self.shared.wake.wait_until(&mut queue, until).timed_out()
            {}
            queue.hurry = false;
        }
        true
    }

    /// What waits, as much as makes a group, and its weight.
    fn take(&self) -> (Vec<Waiting>, usize) {
        let mut queue = self.shared.queue.lock();
        let mut items: Vec<Waiting> = Vec::new();
        let mut weight = 0;
        let part = usize::try_from(self.shared.bound.part()).unwrap_or(usize::MAX);
        while (items.is_empty() || weight < limits::GROUP_TARGET.min(part))
            && let Some(item) = queue.waiting.pop_front()
        {
            weight += item.weight;
            items.push(item);
        }
        (items, weight)
    }

    /// Does what is to be done between writes; returns the rest.
    fn controls(&mut self, items: Vec<Waiting>) -> Vec<Waiting> {
        let mut rest = Vec::with_capacity(items.len());
        for waiting in items {
            let Item::Control(control) = waiting.item else {
                rest.push(waiting);
                continue;
            };
            let result = match control {
                // An entry like others.
                Control::Count => {
                    let item = Item::Control(Control::Count);
                    rest.push(Waiting { item, ..waiting });
                    continue;
                }
                Control::Roll => self.roll_if_used(),
                Control::Expire { now_ms, boots } => self.expire(now_ms, &boots),
                Control::Become(producer) => {
                    self.state.producer = producer;
                    self.state.sequences.clear();
                    self.roll()
                }
            };
            let _ = waiting.done.send(result);
        }
        rest
    }

    fn build(&self, items: Vec<Waiting>) -> Group {
        let mut group = Group::default();
        let mut batches: Vec<Result<OpenBatch, Frame>> = Vec::new();
        let lane = self.state.lane;
        // The newest batch of each stream.
        let mut open: HashMap<StreamName, usize> = HashMap::new();
        // Sequences after the batches of this group; they count only if it is written.
        let mut sequences: HashMap<StreamName, i32> = HashMap::new();
        let mut number = self.state.next_number;
        let counts = |waiting: &Waiting| {
            let item = &waiting.item;
            matches!(item, Item::Record { .. } | Item::Control(Control::Count))
        };
        if items.iter().any(counts)
            && let Some(dropped) = self.uncounted()
        {
            group.entries.push(Entry::Dropped { number, dropped });
            number += 1;
        }

        for Waiting { item, done, .. } in items {
            match item {
                // Its entry is there, or was written with a record before; the others are done.
                Item::Control(_) => group.done.push(done),
                // Before the frames: a client sends PUBREL only after its message was durable, so a release never belongs to a
                // message of this group, but the same packet id may already be used again in it.
                Item::Release(packet) => {
                    group.entries.push(Entry::Release { number, packet });
                    number += 1;
                    group.done.push(done);
                }
                Item::Batch {
                    stream,
                    batch,
                    retained,
                    origin,
                } => {
                    group.records += u64::from(batch.record_count());
                    group.payload += batch.len() as u64;
                    group.done.push(done);
                    batches.push(Err(Frame {
                        number: 0,
                        position: 0,
                        lane,
                        stream,
                        batch,
                        retained,
                        exactly_once: Vec::new(),
                        origin: Some(origin),
                        blind: None,
                        views: Vec::new(),
                        delayed: Vec::new(),
                    }));
                }
                Item::Record {
                    stream: key,
                    record,
                    retained,
                    packet,
                    blind,
                    view,
                    delayed,
                } => {
                    let payload = record.value.as_ref().map_or(0, |value| value.len())
                        + record.key.as_ref().map_or(0, |key| key.len());
                    let place = open.get(&key).copied().filter(|&at| {
                        matches!(&batches[at], Ok(batch) if batch.blind == blind
                            && batch.builder.count() < limits::BATCH_RECORDS
                            && batch.builder.len() + payload <= limits::BATCH_TARGET)
                    });
                    let at = match place {
                        Some(at) => at,
                        None => {
                            let sequence = match open.get(&key).map(|&at| &batches[at]) {
                                Some(Ok(full)) => record::sequence_after(
                                    sequences.get(&key).copied().unwrap_or(0),
                                    full.builder.count(),
                                ),
                                _ => self.state.sequences.get(&key).copied().unwrap_or(0),
                            };
                            let known = self.state.sequences.len() + sequences.len();
                            if !self.state.sequences.contains_key(&key)
                                && !sequences.contains_key(&key)
                                && known >= limits::MAX_STREAMS
                            {
                                let _ = done.send(Err(WriteError::TooManyStreams));
                                continue;
                            }
                            sequences.insert(key.clone(), sequence);
                            let producer = self.state.producer;
                            batches.push(Ok(OpenBatch {
                                stream: key.clone(),
                                blind,
                                builder: BatchBuilder::new()
                                    .compression(self.shared.config.compression)
                                    .producer(
                                        producer.id + i64::from(lane.0),
                                        producer.epoch,
                                        sequence,
                                    ),
                                retained: Vec::new(),
                                packets: Vec::new(),
                                views: Vec::new(),
                                delayed: Vec::new(),
                                payload: 0,
                                done: Vec::new(),
                            }));
                            open.insert(key, batches.len() - 1);
                            batches.len() - 1
                        }
                    };
                    let Some(Ok(batch)) = batches.get_mut(at) else {
                        continue;
                    };
                    let index = batch.builder.count();
                    if let Err(error) = batch.builder.push(&record) {
                        let _ = done.send(Err(WriteError::Encode(error.to_string())));
                        continue;
                    }
                    if retained {
                        batch.retained.push(index);
                    }
                    batch.packets.extend(packet);
                    batch.views.extend(view.map(|view| (index, view)));
                    batch.delayed.extend(delayed);
                    batch.payload += payload;
                    batch.done.push(done);
                }
            }
        }

        let mut position = self.state.next_position;
        // Streams of which a batch could not be encoded: what follows it would leave a hole in the sequence.
        let mut broken: HashSet<StreamName> = HashSet::new();
        for batch in batches {
            let mut frame = match batch {
                Err(frame) => frame,
                Ok(open) if open.builder.is_empty() => continue,
                Ok(open) if broken.contains(&open.stream) => {
                    for done in open.done {
                        let _ =
                            done.send(Err(WriteError::Encode("a batch before it failed".into())));
                    }
                    continue;
                }
                Ok(open) => {
                    let count = u64::from(open.builder.count());
                    match open.builder.build() {
                        Ok(batch) => {
                            group.records += count;
                            group.payload += open.payload as u64;
                            group.done.extend(open.done);
                            Frame {
                                number: 0,
                                position: 0,
                                lane,
                                stream: open.stream,
                                batch,
                                retained: open.retained,
                                exactly_once: open.packets,
                                origin: None,
                                blind: open.blind,
                                views: open.views,
                                delayed: open.delayed,
                            }
                        }
                        Err(error) => {
                            broken.insert(open.stream);
                            for done in open.done {
                                let _ = done.send(Err(WriteError::Encode(error.to_string())));
                            }
                            continue;
                        }
                    }
                }
            };
            frame.number = number;
            frame.position = position;
            number += 1;
            position = frame.end();
            group.entries.push(Entry::Frame(frame));
        }
        group
    }

    fn write(&mut self, group: &Group) -> Result<(), WriteError> {
        self.shared.check_works()?;
        self.buffer.clear();
        for (place, entry) in (0..).zip(&group.entries) {
            entry.encode(place, &mut self.buffer);
        }
        let written = self.buffer.len() as u64;
        let evicts = self.shared.config.eviction == Eviction::Oldest;
        if evicts {
            self.make_room(written)?;
        }
        let bound = self.shared.bound.clone();
        match self.append() {
            Ok(()) if evicts => {}
            // It has its room from when it came: as long as it waits.
            Ok(()) => bound.grow(written),
            Err(error) => {
                if evicts {
                    bound.shrink(written);
                }
                return Err(error);
            }
        }
        let counters = &self.shared.counters;
        counters.bytes_written.fetch_add(written, Ordering::Relaxed);
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters.records.fetch_add(group.records, Ordering::Relaxed);
        counters
            .payload_bytes
            .fetch_add(group.payload, Ordering::Relaxed);
        Ok(())
    }

    /// What is in the buffer goes to the end of the log. The bound counts it elsewhere.
    fn append(&mut self) -> Result<(), WriteError> {
        let (_, len) = self.active_segment();
        if len >= self.shared.config.segment_bytes {
            self.roll_if_used()?;
        }
        let (first, len) = self.active_segment();
        if let Err(error) = self.active.append(&self.buffer) {
            // Part of it may stand there; it must go before anything else is written behind it, and before anybody hears that it was refused: a
            // power cut could bring it back.
            let gone = self.active.truncate(len);
            if let Err(error) = gone.and_then(|()| self.active.sync()) {
                self.fail(&error);
                return Err(WriteError::Failed(error.to_string()));
            }
            return Err(self.write_error(&error));
        }
        if let Err(error) = self.active.sync() {
            // What is on the disk now is unknown, and asking again does not tell: Linux reports such an error once.
            self.fail(&error);
            return Err(WriteError::Failed(error.to_string()));
        }
        self.shared.lengthen(first, self.buffer.len() as u64);
        Ok(())
    }

    /// The group is durable: show it to readers.
    fn publish(&mut self, group: &mut Group) {
        if group.entries.is_empty() {
            return;
        }
        for entry in &group.entries {
            self.state.pass(entry);
            if self.active_since.is_none() && matches!(entry, Entry::Frame(_)) {
                self.active_since = Some(self.state.last);
            }
        }
        (self.shared.on_durable)(&group.entries);
        let mut index = self.shared.index.lock();
        for entry in group.entries.drain(..) {
            match entry {
                Entry::Frame(frame) => index.push_tail(Arc::new(frame)),
                // Readers for the core must meet it.
                Entry::Dropped { dropped, .. } => {
                    index.clear_tail();
                    self.shared
                        .dropped
                        .send_modify(|so_far| so_far.count(&dropped));
                }
                Entry::Release { .. } => {}
            }
        }
        // Under the lock, so that a reader who sees the end finds the frames before it.
        self.shared.end.send_replace(self.state.end());
    }

    pub(crate) fn active_segment(&self) -> (u64, u64) {
        let index = self.shared.index.lock();
        let last = index.segments.iter().next_back();
        last.map_or((0, 0), |(first, segment)| (*first, segment.len))
    }

    /// Begins a new segment. Not after a failed sync: what it was to keep may stand in the old one all the same, and the numbers of the new one
    /// would be those of entries that are there.
    pub(crate) fn roll(&mut self) -> Result<(), WriteError> {
        self.shared.check_works()?;
        let (file, segment) = create_segment(
            &*self.shared.disk,
            &self.shared.dir,
            self.shared.config.id.kind(),
            &self.state,
        )
        .map_err(|error| self.write_error(&error))?;
        let counters = &self.shared.counters;
        counters
            .bytes_written
            .fetch_add(segment.len, Ordering::Relaxed);
        counters.syncs.fetch_add(2, Ordering::Relaxed);
        self.shared.grow(segment.len);
        let mut index = self.shared.index.lock();
        if let Some(old) = index.segments.insert(self.state.next_number, segment) {
            self.shared.shrink(old.len);
        }
        self.active = file;
        self.active_since = None;
        Ok(())
    }

    pub(crate) fn write_error(&self, error: &io::Error) -> WriteError {
        self.shared.write_error(error)
    }

    /// Begins a new segment, unless nothing is in this one.
    pub(crate) fn roll_if_used(&mut self) -> Result<(), WriteError> {
        let (first, _) = self.active_segment();
        if self.state.next_number > first {
            self.roll()?;
        }
        Ok(())
    }

    /// What one log is writing to, the other one of its bound can not evict: a segment that is full does not stay open.
    fn leave_little(&mut self) {
        let (_, len) = self.active_segment();
        if len >= self.shared.config.segment_bytes && self.shared.bound.is_shared() {
            // If that fails, it is done before the next write.
            let _ = self.roll_if_used();
        }
    }

    fn fail(&self, error: &io::Error) {
        tracing::error!(log = %self.shared.config.name, %error, "the disk failed: nothing is taken until a restart");
        self.shared.failed.store(true, Ordering::Relaxed);
    }
}

/// What ends the name of a segment that is being made.
pub(crate) const DRAFT: &str = "new";

/// Makes the segment that begins with `state`, durably: header and name are synced before anything is written behind it.
pub(crate) fn create_segment(
    disk: &dyn crate::disk::Disk,
    dir: &std::path::Path,
    kind: u8,
    state: &LogState,
) -> io::Result<(Arc<dyn DiskFile>, Segment)> {
    let path = dir.join(segment_name(state.next_number));
    // Made under another name: a segment that begins at the same place, because nothing was written since, stays until its
    // successor is whole.
    let draft = path.with_extension(DRAFT);
    let file = match disk.create(&draft) {
        // Left by an attempt that found the disk full, or the power cut.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&draft)?;
            disk.create(&draft)?
        }
        result => result?,
    };
    let header = encode_header(kind, state);
    file.append(&header)?;
    file.sync()?;
    disk.rename(&draft, &path)?;
    disk.sync_dir(dir)?;
    let len = header.len() as u64;
    let segment = Segment {
        path,
        first_position: state.next_position,
        producer: state.producer,
        last: state.last,
        dropped: state.dropped,
        data_start: len,
        len,
    };
    Ok((file, segment))
}
