//! Commands and configuration: sends an edge the records of stream `cmd` below `cmd/<edge>/`, and commits its cursor when it says
//! that they are stored. Pushed by commits, never polled.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use frontend::retained;
use kernel::{PartitionId, ReadError, Stream, StreamId};
use record::{Batch, BatchBuilder, Envelope, NewRecord};
use sync_quic::{DownAcks, DownFrame, DownPosition, EdgeConnection, Hello};

use crate::frontend::Sync;
use crate::limits;
use crate::registry::{RETAINED_FIRST, cursor_name};
use crate::time::now_ms;

/// Why there is no more downlink.
pub(crate) enum Stopped {
    /// The edge confirmed what cannot be.
    Violation(String),
    /// The connection is over, or the log cannot be read.
    Over(String),
}

impl Stopped {
    fn over(error: impl ToString) -> Stopped {
        Stopped::Over(error.to_string())
    }
}

/// Runs until the connection is over or the log cannot be read; returns why.
pub(crate) async fn run(
    sync: &Sync,
    hello: &Hello,
    connection: &EdgeConnection,
    acks: DownAcks,
) -> Stopped {
    let mut downlink = Downlink {
        sync,
        hello,
        connection,
        prefix: format!("cmd/{}/", hello.edge).into_bytes(),
        next: BTreeMap::new(),
        unconfirmed: VecDeque::new(),
        looked: false,
        retained: None,
        acks,
    };
    match downlink.run().await {
        Ok(never) => match never {},
        Err(reason) => reason,
    }
}

enum Never {}

struct Downlink<'a> {
    sync: &'a Sync,
    hello: &'a Hello,
    connection: &'a EdgeConnection,
    prefix: Vec<u8>,
    /// Next offset to look at, by partition of the present command stream.
    next: BTreeMap<PartitionId, i64>,
    unconfirmed: VecDeque<DownPosition>,
    /// Whether anything retained is due is known.
    looked: bool,
    /// What was retained for the edge is on its way with this position.
    retained: Option<DownPosition>,
    acks: DownAcks,
}

impl Downlink<'_> {
    async fn run(&mut self) -> Result<Never, Stopped> {
        let kernel = &self.sync.ctx.kernel;
        let mut streams = kernel.watch_streams();
        loop {
            // Before looking, so that a change after the look is seen by the wait.
            streams.borrow_and_update();
            let stream = self
                .sync
                .registry
                .command_stream()
                .and_then(|address| kernel.stream(&address));
            self.follow(stream.as_deref());
            self.send_retained().await?;
            let partitions: Vec<PartitionId> = self.next.keys().copied().collect();
            for partition in partitions {
                self.drain(partition).await?;
            }
            let positions: Vec<(PartitionId, i64)> = self
                .next
                .iter()
                .map(|(partition, next)| (*partition, *next))
                .collect();
            tokio::select! {
                _ = kernel.wait_stable(&positions), if !positions.is_empty() => {}
                changed = streams.changed() => changed.map_err(|_| Stopped::over("the log is closed"))?,
                ack = self.acks.next() => self.confirm(ack).await?,
            }
        }
    }

    /// Takes up the positions of a command stream that has come, grown or been made anew.
    fn follow(&mut self, stream: Option<&Stream>) {
        let Some(stream) = stream else {
            self.next.clear();
            return;
        };
        self.next
            .retain(|partition, _| partition.stream == stream.id);
        let committed = self.sync.ctx.kernel.cursor(&cursor_name(&self.hello.edge));
        for partition in stream.partition_ids() {
            self.next.entry(partition).or_insert_with(|| {
                // No position: the partition was made after the enrolment, and all of it is new.
                committed
                    .iter()
                    .find(|position| position.partition == partition)
                    .map_or(0, |position| position.offset)
            });
        }
    }

    /// Sends an edge that was enrolled since it was here last what is retained for it, as one frame. Its position is where the commands go on:
    /// an edge that has come so far has it all, and passes it over.
    async fn send_retained(&mut self) -> Result<(), Stopped> {
        if self.looked || self.next.is_empty() {
            return Ok(());
        }
        self.looked = true;
        let kernel = &self.sync.ctx.kernel;
        let group = cursor_name(&self.hello.edge);
        let committed = kernel.cursor(&group);
        let due = committed
            .iter()
            .find(|at| at.metadata == RETAINED_FIRST && self.next.contains_key(&at.partition));
        let Some(at) = due else {
            return Ok(());
        };
        let namespace = self.sync.registry.namespace();
        let prefix = String::from_utf8_lossy(&self.prefix);
        let (mut batch, mut bytes, mut left_out) = (BatchBuilder::new(), 0, 0_u64);
        let mut count = 0_u64;
        for (key, value) in kernel.table_scan(retained::TABLE, &retained::key(namespace, &prefix)) {
            let Some(record) = retained::record(value) else {
                tracing::error!(edge = %self.hello.edge, key = %String::from_utf8_lossy(&key), "a retained message cannot be read: written by a newer version, or damaged");
                continue;
            };
            let expires = Envelope::from_record(&record).expires_at;
            if expires.is_some_and(|at| at <= now_ms()) {
                continue;
            }
            bytes += record.value.as_ref().map_or(0, Bytes::len);
            if bytes > limits::DOWN_RETAINED_BYTES {
                left_out += 1;
                continue;
            }
            batch
                .push(&NewRecord::from(record))
                .map_err(Stopped::over)?;
            count += 1;
        }
        if left_out > 0 {
            tracing::error!(edge = %self.hello.edge, left_out, "there is more retained for an edge than one frame may hold: it does not get the rest");
        }
        if count == 0 {
            let nothing_due = vec![(at.partition, at.offset, Bytes::new())];
            return kernel
                .cursor_commit(&group, nothing_due)
                .await
                .map_err(Stopped::over);
        }
        let position = DownPosition {
            stream: at.partition.stream.0,
            partition: at.partition.partition,
            next: at.offset,
        };
        let batch = batch.build().map_err(Stopped::over)?.into_bytes();
        self.connection
            .send_down(DownFrame { position, batch })
            .await
            .map_err(Stopped::over)?;
        self.unconfirmed.push_back(position);
        self.retained = Some(position);
        self.sync.metrics.down.inc_by(count);
        Ok(())
    }

    /// Sends what there is in one partition.
    async fn drain(&mut self, partition: PartitionId) -> Result<(), Stopped> {
        let kernel = &self.sync.ctx.kernel;
        while let Some(from) = self.next.get(&partition).copied() {
            let read = match kernel
                .read_committed(partition, from, limits::DOWN_READ_BYTES)
                .await
            {
                Ok(read) => read,
                Err(ReadError::OutOfRange { log_start, .. }) if log_start > from => {
                    tracing::warn!(edge = %self.hello.edge, %partition, from, log_start, "commands were deleted before the edge had them");
                    self.next.insert(partition, log_start);
                    continue;
                }
                Err(ReadError::Corrupt { last, reason, .. }) => {
                    tracing::error!(edge = %self.hello.edge, %partition, from, last, reason, "commands are damaged on disk and are left out");
                    self.next.insert(partition, last.saturating_add(1));
                    continue;
                }
                // The stream is gone, or made anew: the next round sees that.
                Err(ReadError::UnknownPartition(_) | ReadError::OutOfRange { .. }) => {
                    self.next.remove(&partition);
                    return Ok(());
                }
                Err(error) => return Err(Stopped::over(error)),
            };
            if read.next_offset == from {
                return Ok(());
            }
            let mut behind = read.next_offset;
            for batch in &read.batches {
                self.send(partition, from, batch).await?;
                behind = behind.max(batch.next_offset());
            }
            // A confirmation heard meanwhile may be further on already.
            self.next
                .entry(partition)
                .and_modify(|next| *next = behind.max(*next));
        }
        Ok(())
    }

    /// Sends the records of a batch that are this edge's, as one frame.
    async fn send(
        &mut self,
        partition: PartitionId,
        from: i64,
        batch: &Batch,
    ) -> Result<(), Stopped> {
        // What the edge has sent itself it has delivered itself.
        let base = batch.producer_id() & !0xff;
        if base == self.hello.producer_id || Some(base) == self.hello.previous_producer_id {
            return Ok(());
        }
        let mut down = BatchBuilder::new();
        let mut count = 0_u64;
        for record in batch.records().map_err(Stopped::over)? {
            let record = record.map_err(Stopped::over)?;
            if record.offset >= from
                && record
                    .key
                    .as_ref()
                    .is_some_and(|key| key.starts_with(&self.prefix))
            {
                down.push(&NewRecord::from(record)).map_err(Stopped::over)?;
                count += 1;
            }
        }
        if count == 0 {
            return Ok(());
        }
        while self.unconfirmed.len() >= limits::MAX_DOWN_UNCONFIRMED {
            let ack = self.acks.next().await;
            self.confirm(ack).await?;
        }
        let position = DownPosition {
            stream: partition.stream.0,
            partition: partition.partition,
            next: batch.next_offset(),
        };
        let batch = down.build().map_err(Stopped::over)?.into_bytes();
        self.connection
            .send_down(DownFrame { position, batch })
            .await
            .map_err(Stopped::over)?;
        self.unconfirmed.push_back(position);
        self.sync.metrics.down.inc_by(count);
        Ok(())
    }

    /// The edge has stored everything of a partition up to a position. It may be one that an earlier connection sent: storing
    /// can take longer than a connection lasts.
    async fn confirm(&mut self, ack: Option<DownPosition>) -> Result<(), Stopped> {
        let ack = ack.ok_or_else(|| Stopped::over("connection closed"))?;
        let partition = StreamId(ack.stream).partition(ack.partition);
        let same =
            |sent: &DownPosition| (sent.stream, sent.partition) == (ack.stream, ack.partition);
        self.unconfirmed
            .retain(|sent| !(same(sent) && sent.next <= ack.next));
        // Of a stream that was deleted since: nothing to remember.
        let (Some(next), Some(watermarks)) = (
            self.next.get_mut(&partition),
            self.sync.ctx.kernel.watermarks(partition),
        ) else {
            return Ok(());
        };
        if ack.next > watermarks.end {
            return Err(Stopped::Violation(
                "the edge confirmed a command that does not exist yet".to_owned(),
            ));
        }
        *next = ack.next.max(*next);
        let group = cursor_name(&self.hello.edge);
        let committed = self.sync.ctx.kernel.cursor(&group);
        let known = committed.iter().find(|at| at.partition == partition);
        // An edge that was enrolled meanwhile is to get what is retained, whatever the one before it confirms.
        let due = known.is_some_and(|at| at.metadata == RETAINED_FIRST);
        let sent = self.retained.as_ref();
        let settles = due && sent.is_some_and(|sent| same(sent) && sent.next <= ack.next);
        if known.is_some_and(|at| at.offset >= ack.next) && !settles {
            return Ok(());
        }
        let note = if due && !settles { RETAINED_FIRST } else { b"" };
        let offset = known.map_or(ack.next, |at| at.offset.max(ack.next));
        let positions = vec![(partition, offset, Bytes::from_static(note))];
        self.sync
            .ctx
            .kernel
            .cursor_commit(&group, positions)
            .await
            .map_err(Stopped::over)
    }
}
