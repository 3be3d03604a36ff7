//! What the core asks this edge about itself: `status` and `peek`. Answers are bounded, and asked for by people only.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use admin_api::{Peek, Peeked, PeekedMessage, QueueLane, QueueLink, QueueStatus, Wear};
use record::topic_for_record;
use serde::Serialize;
use store::{Frame, From, LogId, Store};
use sync::{AnswerFrame, AnswerStatus, QueryFrame};

use crate::limits;
use crate::link::Link;

/// Between the two looks that give rates.
const RATE_OVER: Duration = Duration::from_secs(1);

/// What is asked about.
#[derive(Clone)]
pub struct Sources {
    pub store: Arc<Store>,
    pub link: Arc<Link>,
    pub started: Instant,
}

/// Answers a question. Takes about a second for `status`: call it in a task of its own.
pub async fn answer(sources: &Sources, query: &QueryFrame) -> AnswerFrame {
    let result = match query.what.as_str() {
        "status" => status(sources).await.and_then(|status| json(&status)),
        "peek" => match arguments(&query.arguments) {
            Ok(wanted) => peek(sources, &wanted)
                .await
                .and_then(|peeked| json(&peeked)),
            Err(refused) => Err(refused),
        },
        other => Err(Refused {
            status: AnswerStatus::UnknownQuery,
            reason: format!("this version knows status and peek, not {other}"),
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
    } = sources;
    let delivered = || link.delivered.load(Ordering::Relaxed);
    let (before, out_before, at) = (store.stats(), delivered(), Instant::now());
    tokio::time::sleep(RATE_OVER).await;
    let (now, seconds) = (store.stats(), at.elapsed().as_secs_f64());
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let next = store.uplink().number;
    let oldest = first_frames(store, next, 1).await?;
    let lane = QueueLane {
        lane: 0,
        name: LANE.to_owned(),
        messages: now.outbox_messages,
        bytes: now.outbox_bytes,
        oldest_ms: oldest.first().map(|frame| frame.batch.base_timestamp()),
        in_per_second: rate(before.messages_in, now.messages_in),
        out_per_second: rate(out_before, delivered()),
        ..QueueLane::default()
    };
    Ok(QueueStatus {
        time_ms: now_ms(),
        time_known: false,
        uptime_seconds: started.elapsed().as_secs(),
        link: QueueLink {
            up: link.is_up(),
            state: link.state(),
            transport: None,
            connections: link.connections.load(Ordering::Relaxed),
        },
        lanes: vec![lane],
        quarantined: now.quarantined,
        disk_bytes: now.disk_bytes,
        wear: Wear {
            written_bytes: now.bytes_written,
            payload_bytes: now.payload_bytes,
        },
    })
}

/// The only lane.
const LANE: &str = "default";

async fn peek(sources: &Sources, wanted: &Peek) -> Result<Peeked, Refused> {
    if let Some(lane) = wanted
        .lane
        .as_deref()
        .filter(|lane| ![LANE, "0"].contains(lane))
    {
        return Err(Refused {
            status: AnswerStatus::BadArguments,
            reason: format!("there is no lane {lane:?}; this edge has {LANE}"),
        });
    }
    let count = wanted.count.unwrap_or(limits::PEEK_DEFAULT) as usize;
    let count = count.min(limits::PEEK_MOST);
    let store = &sources.store;
    let frames = first_frames(store, store.uplink().number, limits::PEEK_READ).await?;
    let messages = frames.iter().flat_map(|frame| messages(LANE, frame));
    Ok(Peeked {
        messages: messages.take(count).collect(),
    })
}

async fn first_frames(
    store: &Arc<Store>,
    number: u64,
    max_bytes: usize,
) -> Result<Vec<Arc<Frame>>, Refused> {
    let read = store.read(LogId::Outbox, From::Number(number), max_bytes);
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
                topic: topic_for_record(&frame.stream, record.key.as_deref()),
                time_ms: record.timestamp,
                bytes: payload.len() as u64,
                payload: String::from_utf8_lossy(shown).into_owned(),
            }
        })
        .collect()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
