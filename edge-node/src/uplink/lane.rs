//! One lane over one connection: reads its log from the cursor on, and sends what is there when its turn comes.

use std::sync::Arc;

use record::Batch;
use store::{End, Frame, Gap, LogId};
use sync_quic::{BatchFlags, BatchFrame, LaneFrame, SendError};
use tokio::time::Instant;

use super::connection::{Ended, Session};
use super::flight::InFlight;
use super::gap;
use super::plan::LanePlan;
use crate::limits;

/// Runs until the connection is over.
pub async fn run(session: &Session<'_>, plan: &LanePlan) -> Ended {
    let store = &session.uplink.store;
    let lane = plan.lane;
    let mut news = store.watch(LogId::Outbox(lane));
    let mut from = store.uplink(lane);
    // Of what is dropped all the time nobody wants to hear more often.
    let mut count_again = Instant::now();
    loop {
        news.mark_unchanged();
        let read = match store.read_outbox(lane, from, session.read_bytes).await {
            Ok(read) => read,
            Err(error) => return Ended::Outbox(format!("the outbox can not be read: {error}")),
        };
        if read.gap.is_none() && read.frames.is_empty() {
            if read.next.number > from.number && session.flight.is_empty(lane) {
                // Nothing that the core has to know of.
                store.advance_uplink(lane, read.next);
            }
            if read.next.number == from.number {
                let dropped = async {
                    tokio::time::sleep_until(count_again).await;
                    store.count_dropped(lane).await
                };
                tokio::select! {
                    changed = news.changed() => if changed.is_err() {
                        return Ended::Outbox("the store is closed".into());
                    },
                    // The count is there to be read now.
                    counted = dropped => {
                        if let Err(error) = counted {
                            tracing::warn!(lane = lane.0, %error, "what was dropped can not be counted: the core is told later");
                        }
                        count_again = Instant::now() + limits::DROPPED_AGAIN;
                    }
                }
            }
            from = read.next;
            continue;
        }
        match send(session, plan, read.gap, read.frames).await {
            Ok(None) => from = read.next,
            Ok(Some(again)) => from = again,
            Err(ended) => return ended,
        }
    }
}

/// Sends what was read. `Some`: to be read again from there.
async fn send(
    session: &Session<'_>,
    plan: &LanePlan,
    gap: Option<Gap>,
    frames: Vec<Arc<Frame>>,
) -> Result<Option<End>, Ended> {
    if let Some(gap) = gap {
        let in_flight = InFlight {
            number: gap.next.number.saturating_sub(1),
            end: gap.next,
            batch: None,
            ticket: None,
        };
        let frame = LaneFrame::Gap(gap::frame(&gap));
        match session.send(plan.lane, in_flight, frame).await {
            Ok(()) => {}
            Err(SendError::Lost(lost)) => return Err(Ended::Lost(lost)),
            Err(error) => return Err(Ended::Outbox(format!("a gap can not be told: {error}"))),
        }
    }
    for frame in frames {
        let in_flight = InFlight {
            number: frame.number,
            end: End {
                number: frame.number + 1,
                position: frame.end(),
            },
            batch: Some((frame.stream.clone(), frame.batch.record_count().into())),
            ticket: None,
        };
        let sent = session.send(plan.lane, in_flight, encode(session, plan, &frame));
        match sent.await {
            Ok(()) => {}
            Err(SendError::Lost(lost)) => return Err(Ended::Lost(lost)),
            Err(error @ (SendError::TooLarge { .. } | SendError::Lanes(_))) => {
                session.flight.take_back(plan.lane, frame.number);
                let place = End {
                    number: frame.number,
                    position: frame.position,
                };
                session.set_aside(frame, error.to_string()).await?;
                // A gap is there now.
                return Ok(Some(place));
            }
        }
    }
    Ok(None)
}

/// What was stamped before the time was known, as it would have been stamped.
fn placed_in_time(session: &Session<'_>, frame: &Frame) -> Batch {
    let boot_offset = |boot| session.uplink.store.boot_offset(boot);
    // One of a start that is forgotten goes as it is.
    frame
        .batch
        .rebased(frame.blind.and_then(boot_offset).unwrap_or(0))
}

fn encode(session: &Session<'_>, plan: &LanePlan, frame: &Frame) -> LaneFrame {
    let flags = if frame.retained.is_empty() {
        BatchFlags::empty()
    } else {
        BatchFlags::HAS_RETAINED
    };
    let stream = frame.stream.as_str();
    let batch = placed_in_time(session, frame).into_bytes();
    let compressed = plan.link_compression.then(|| {
        let dictionaries = &session.uplink.dictionaries;
        dictionaries.compress(plan.lane.0, frame.number, stream, &batch)
    });
    let (link, batch) = match compressed.flatten() {
        Some((link, smaller)) => (Some(link), smaller),
        None => (None, batch),
    };
    LaneFrame::Batch(BatchFrame {
        lane: plan.lane.0,
        frame: frame.number,
        stream: stream.to_owned(),
        flags,
        link,
        batch,
    })
}
