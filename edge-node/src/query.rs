//! What the core asks this edge about itself: `status` and `peek`, for people, and `set-aside`, once for each start. Answers are bounded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use admin_api::{Peek, Peeked, PeekedMessage, QueueLane, QueueLink, QueueStatus, Wear};
use record::topic_for_record;
use serde::Serialize;
use store::{Frame, Lane, Store};
use sync::{AnswerFrame, AnswerStatus, QueryFrame};

use crate::clock::Clock;
use crate::link::Link;
use crate::set_aside::SetAside;
use crate::{lanes, limits};

/// Between the two looks that give rates.
const RATE_OVER: Duration = Duration::from_secs(1);

/// What is asked about.
#[derive(Clone)]
pub struct Sources {
    pub store: Arc<Store>,
    pub link: Arc<Link>,
    pub started: Instant,
    pub clock: Arc<Clock>,
    /// Of the configuration.
    pub lanes: Arc<[lanes::Lane]>,
    /// Counted at this start.
    pub set_aside: Arc<SetAside>,
}

/// Answers a question. Takes about a second for `status`: call it in a task of its own.
pub async fn answer(sources: &Sources, query: &QueryFrame) -> AnswerFrame {
    let result = match query.what.as_str() {
        "set-aside" => json(&*sources.set_aside),
        "status" => status(sources).await.and_then(|status| json(&status)),
        "peek" => match arguments(&query.arguments) {
            Ok(wanted) => peek(sources, &wanted)
                .await
                .and_then(|peeked| json(&peeked)),
            Err(refused) => Err(refused),
        },
        other => Err(Refused {
            status: AnswerStatus::UnknownQuery,
            reason: format!("this version knows status, peek and set-aside, not {other}"),
        }),
    };
    let (status, json) = match result {
        Ok(json) => (AnswerStatus::Answered, json),
        // A string always has a JSON form.
        Err(refused) => (
            refused.status,
            serde_json::to_vec(&refused.reason).unwrap_or_default(),
        ),
    };
    AnswerFrame {
        id: query.id,
        status,
        json: json.into(),
    }
}

#[derive(Debug)]
struct Refused {
    status: AnswerStatus,
    reason: String,
}

fn failed(error: impl ToString) -> Refused {
    Refused {
        status: AnswerStatus::Failed,
        reason: error.to_string(),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Refused> {
    let json = serde_json::to_vec(value).map_err(failed)?;
    if json.len() > sync::limits::MAX_ANSWER {
        return Err(failed("the answer is too large: ask for less"));
    }
    Ok(json)
}

fn arguments(bytes: &[u8]) -> Result<Peek, Refused> {
    if bytes.is_empty() {
        return Ok(Peek::default());
    }
    serde_json::from_slice(bytes).map_err(|error| Refused {
        status: AnswerStatus::BadArguments,
        reason: error.to_string(),
    })
}

async fn status(sources: &Sources) -> Result<QueueStatus, Refused> {
    let Sources {
        store,
        link,
        started,
        clock,
        lanes: configured,
        ..
    } = sources;
    let (before, at) = (store.lane_stats(), Instant::now());
    tokio::time::sleep(RATE_OVER).await;
    let (after, seconds) = (store.lane_stats(), at.elapsed().as_secs_f64());
    let gaps = store.gaps();
    let mut lanes = Vec::with_capacity(after.len());
    for ((info, now), (_, then)) in after.iter().zip(&before) {
        let oldest = first_frames(store, info.lane, 1).await?;
        let came = now.messages_in.saturating_sub(then.messages_in);
        // What came, does not wait and was not evicted has gone.
        let evicted = (now.evicted - now.dropped).saturating_sub(then.evicted - then.dropped);
        let gone = (then.messages + came).saturating_sub(now.messages + evicted);
        lanes.push(QueueLane {
            lane: info.lane.0,
            name: info.name.to_string(),
            priority: lanes::of_log(configured, &info.name).map(|lane| lane.priority),
            messages: now.messages,
            bytes: now.bytes,
            oldest_ms: oldest.first().map(|frame| frame.batch.base_timestamp()),
            in_per_second: came as f64 / seconds,
            out_per_second: gone as f64 / seconds,
            gaps: gaps.iter().filter(|gap| gap.lane == info.lane).count() as u64,
            evicted: now.evicted,
        });
    }
    let store = store.stats();
    Ok(QueueStatus {
        time_ms: clock.now_ms(),
        time_known: clock.is_known(),
        uptime_seconds: started.elapsed().as_secs(),
        link: QueueLink {
            up: link.is_up(),
            state: link.state(),
            transport: link.transport().map(|transport| transport.to_string()),
            connections: link.connections.load(Ordering::Relaxed),
        },
        lanes,
        quarantined: store.quarantined,
        set_aside: store.set_aside,
        disk_bytes: store.disk_bytes,
        wear: Wear {
            written_bytes: store.worn_bytes(),
            payload_bytes: store.payload_bytes,
        },
    })
}

async fn peek(sources: &Sources, wanted: &Peek) -> Result<Peeked, Refused> {
    let store = &sources.store;
    let mut lanes = store.lanes();
    if let Some(wanted) = &wanted.lane {
        let names: Vec<String> = lanes.iter().map(|lane| lane.name.to_string()).collect();
        lanes.retain(|lane| *lane.name == **wanted || lane.lane.0.to_string() == *wanted);
        if lanes.is_empty() {
            return Err(Refused {
                status: AnswerStatus::BadArguments,
                reason: format!(
                    "there is no lane {wanted:?}; this edge has {}",
                    names.join(", ")
                ),
            });
        }
    }
    let count = wanted.count.unwrap_or(limits::PEEK_DEFAULT) as usize;
    let count = count.min(limits::PEEK_MOST / lanes.len().max(1));
    let mut peeked = Peeked::default();
    for lane in lanes {
        let frames = first_frames(store, lane.lane, limits::PEEK_READ).await?;
        let waiting = frames.iter().flat_map(|frame| messages(&lane.name, frame));
        peeked.messages.extend(waiting.take(count));
    }
    Ok(peeked)
}

/// What a lane sends next.
async fn first_frames(
    store: &Arc<Store>,
    lane: Lane,
    max_bytes: usize,
) -> Result<Vec<Arc<Frame>>, Refused> {
    let read = store.read_outbox(lane, store.uplink(lane), max_bytes);
    Ok(read.await.map_err(failed)?.frames)
}

fn messages(lane: &str, frame: &Frame) -> Vec<PeekedMessage> {
    let Ok(records) = frame.batch.records() else {
        return Vec::new();
    };
    records
        .filter_map(Result::ok)
        .map(|record| {
            let payload = record.value.as_deref().unwrap_or_default();
            let shown = payload.get(..limits::PEEK_PAYLOAD).unwrap_or(payload);
            PeekedMessage {
                lane: lane.to_owned(),
                entry: frame.number,
                stream: frame.stream.as_str().to_owned(),
                topic: topic_for_record(&frame.stream, record.key.as_deref()).into_owned(),
                time_ms: record.timestamp,
                bytes: payload.len() as u64,
                payload: String::from_utf8_lossy(shown).into_owned(),
            }
        })
        .collect()
}
