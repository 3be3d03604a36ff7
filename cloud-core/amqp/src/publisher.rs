//! From published messages to appends: what one reading of the socket brought goes to each partition as one batch, and the
//! confirms follow its commit.

use futures_util::{FutureExt, future::BoxFuture, future::join_all};
use kernel::{AppendError, Kernel, PartitionId, SequenceRule, StreamId};
use record::{BatchBuilder, NewRecord};

use crate::{
    error::{Exception, code},
    limits,
};

/// A message that waits for its commit: channel (holder, number) and its sequence there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub holder: u64,
    pub channel: u16,
    /// `None` outside confirm mode.
    pub sequence: Option<u64>,
}

/// Messages of one batch, and the reason if it was refused.
type Ended = (Vec<Waiting>, Result<(), String>);

/// Neighbours that go to one stream. A message for another stream begins a new run, so that the order of a channel's messages is
/// also their order of commit.
struct Run {
    stream: StreamId,
    batches: Vec<Open>,
}

struct Open {
    partition: PartitionId,
    builder: BatchBuilder,
    waiting: Vec<Waiting>,
}

/// What became of the messages of one flush.
pub struct Committed {
    pub bytes: usize,
    pub stored: Vec<Waiting>,
    pub refused: Vec<(Waiting, String)>,
}

#[derive(Default)]
pub struct Publisher {
    runs: Vec<Run>,
    /// Messages confirmed without an append: nowhere to store them.
    dropped: Vec<Waiting>,
    bytes: usize,
    messages: usize,
}

impl Publisher {
    pub fn is_full(&self) -> bool {
        self.bytes >= limits::BATCH_BYTES || self.messages >= limits::BATCH_MESSAGES
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(
        &mut self,
        partition: PartitionId,
        record: &NewRecord,
        waiting: Waiting,
    ) -> Result<(), Exception> {
        if self
            .runs
            .last()
            .is_none_or(|run| run.stream != partition.stream)
        {
            self.runs.push(Run {
                stream: partition.stream,
                batches: Vec::new(),
            });
        }
        let Some(run) = self.runs.last_mut() else {
            return Ok(());
        };
        let position = run.batches.iter().position(|b| b.partition == partition);
        let position = position.unwrap_or_else(|| {
            run.batches.push(Open {
                partition,
                builder: BatchBuilder::new(),
                waiting: Vec::new(),
            });
            run.batches.len() - 1
        });
        let Some(open) = run.batches.get_mut(position) else {
            return Ok(());
        };
        let before = open.builder.len();
        open.builder
            .push(record)
            .map_err(|e| Exception::channel(code::PRECONDITION_FAILED, e))?;
        self.bytes += open.builder.len().saturating_sub(before);
        self.messages += 1;
        open.waiting.push(waiting);
        Ok(())
    }

    pub fn push_dropped(&mut self, waiting: Waiting) {
        self.dropped.push(waiting);
    }

    /// Hands everything to the kernel, now, in order; the future tells when it is durable.
    pub fn flush(&mut self, kernel: &Kernel) -> Option<BoxFuture<'static, Committed>> {
        if self.runs.is_empty() && self.dropped.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.messages = 0;
        let dropped = std::mem::take(&mut self.dropped);
        let mut appends: Vec<BoxFuture<'static, Ended>> = Vec::new();
        for open in self.runs.drain(..).flat_map(|run| run.batches) {
            // A batch whose first record did not fit has none.
            if open.waiting.is_empty() {
                continue;
            }
            match open.builder.build() {
                Ok(batch) => {
                    let append = kernel.append(open.partition, batch, SequenceRule::None);
                    appends.push(
                        append
                            .map(|r| {
                                (
                                    open.waiting,
                                    r.map(drop).map_err(|e: AppendError| e.to_string()),
                                )
                            })
                            .boxed(),
                    );
                }
                Err(error) => {
                    appends.push(std::future::ready((open.waiting, Err(error.to_string()))).boxed())
                }
            }
        }
        Some(
            join_all(appends)
                .map(move |results| {
                    let mut committed = Committed {
                        bytes,
                        stored: dropped,
                        refused: Vec::new(),
                    };
                    for (waiting, result) in results {
                        match result {
                            Ok(()) => committed.stored.extend(waiting),
                            Err(reason) => committed
                                .refused
                                .extend(waiting.into_iter().map(|w| (w, reason.clone()))),
                        }
                    }
                    committed
                })
                .boxed(),
        )
    }
}
