//! The lanes of a connection: each takes its frames in order and settles them in order, and none waits for another.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use sync_quic::{EdgeConnection, Hello, LaneFrame, Lanes, Received, RefuseCode};
use tokio::sync::mpsc;

use crate::dictionaries::Shipping;
use crate::frontend::Sync;
use crate::registry::Came;
use crate::{handle_batch, handle_gap, limits};

/// Why a frame was not taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub code: RefuseCode,
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(code: RefuseCode, reason: impl ToString) -> Refusal {
        Refusal {
            code,
            reason: reason.to_string(),
        }
    }
}

/// What a frame put into the log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Committed {
    Batch {
        records: u32,
        bytes: u64,
    },
    /// It was there already.
    Duplicate,
    Gap,
}

/// What is on its way to the disk.
pub(crate) type Write<'a> = Pin<Box<dyn Future<Output = Result<Committed, Refusal>> + Send + 'a>>;

/// Who serves whom: what all lanes of a connection share.
#[derive(Clone, Copy)]
pub(crate) struct Served<'a> {
    pub sync: &'a Arc<Sync>,
    pub hello: &'a Hello,
    pub connection: &'a EdgeConnection,
    pub shipping: &'a Shipping,
}

/// Takes frames until the connection is over, or until one had to be refused for now.
pub(crate) async fn run(served: Served<'_>, mut frames: Lanes) {
    let mut lanes = HashMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            // A lane that ends has refused something for now: nothing after it may be settled, and the connection closes.
            Some(()) = running.next(), if !running.is_empty() => return,
            received = frames.next() => {
                let Some(received) = received else { break };
                let lane = lanes.entry(received.frame.lane()).or_insert_with(|| {
                    // Bounded by the bytes and frames that a connection may have unsettled.
                    let (frames, waiting) = mpsc::unbounded_channel();
                    running.push(run_lane(served, waiting));
                    frames
                });
                // An error: the lane has ended, which is seen above.
                let _ = lane.send(received);
            }
        }
    }
    // The connection is over; what is on its way to the disk is still counted.
    lanes.clear();
    while running.next().await.is_some() {}
}

/// Ends when it has refused a frame for now, or when there are no more. Many frames are on their way to the disk at once; the
/// kernel takes them in the order in which they came.
async fn run_lane(served: Served<'_>, mut waiting: mpsc::UnboundedReceiver<Received>) {
    let mut in_flight = FuturesOrdered::new();
    let mut writer = None;
    loop {
        let received = tokio::select! {
            biased;
            Some((received, result)) = in_flight.next(), if !in_flight.is_empty() => {
                if !finish(served, &received, result) {
                    return;
                }
                continue;
            }
            received = waiting.recv(), if in_flight.len() < limits::MAX_LANE_FRAMES_IN_FLIGHT => received,
        };
        let Some(received) = received else { break };
        // Within one producer and epoch the sequence tells that nothing was left out. From one to the next, and over a gap, nothing
        // tells: everything before is settled first.
        let batch = match &received.frame {
            LaneFrame::Batch(frame) => Some(handle_batch::restore(served, frame)),
            LaneFrame::Gap(_) => None,
        };
        let now = match &batch {
            Some(Ok(batch)) => Some((batch.producer_id(), batch.producer_epoch())),
            _ => None,
        };
        if now.is_none() || now != writer {
            while let Some((received, result)) = in_flight.next().await {
                if !finish(served, &received, result) {
                    return;
                }
            }
            writer = now;
        }
        // The write takes its place in the kernel's order here, before the next frame of the lane is looked at.
        let write = match (&received.frame, batch) {
            (LaneFrame::Gap(frame), _) => handle_gap::handle(served, frame).await,
            (LaneFrame::Batch(frame), Some(Ok(batch))) => {
                handle_batch::handle(served, frame, batch).await
            }
            (LaneFrame::Batch(_), Some(Err(refusal))) => Err(refusal),
            (LaneFrame::Batch(_), None) => break,
        };
        in_flight.push_back(async move {
            let result = match write {
                Ok(write) => write.await,
                Err(refusal) => Err(refusal),
            };
            (received, result)
        });
    }
    while let Some((received, result)) = in_flight.next().await {
        if !finish(served, &received, result) {
            return;
        }
    }
}

/// Acknowledges or refuses. False when nothing after this frame may be settled: the edge sends from here again.
fn finish(served: Served<'_>, received: &Received, result: Result<Committed, Refusal>) -> bool {
    let Served {
        sync,
        hello,
        connection,
        ..
    } = served;
    let (lane, frame) = (received.frame.lane(), received.frame.number());
    match result {
        Ok(committed) => {
            let mut came = Came::default();
            match committed {
                Committed::Batch { records, bytes } => {
                    came = Came {
                        records: records.into(),
                        bytes,
                    };
                    sync.metrics.batches.inc();
                    sync.metrics.records.inc_by(records.into());
                }
                Committed::Duplicate => sync.metrics.duplicates.inc(),
                Committed::Gap => sync.metrics.gaps.inc(),
            }
            sync.registry.committed(&hello.edge, lane, frame, came);
            connection.settle(lane, frame);
            true
        }
        Err(Refusal { code, reason }) => {
            sync.metrics.refused.inc();
            tracing::warn!(edge = %hello.edge, lane, frame, %code, reason, "frame refused");
            connection.refuse(lane, frame, code, &reason);
            !code.is_retryable()
        }
    }
}
