//! A gap of the outbox as the core is told of it.

use serde::Serialize;
use store::Gap;
use sync_quic::GapFrame;

/// What people and programs read in stream `_gaps`.
#[derive(Serialize)]
struct Report {
    reason: &'static str,
    /// The first entry that is missing, and the first that is not.
    first: u64,
    next: u64,
    records: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_time_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_time_ms: Option<i64>,
}

pub fn frame(gap: &Gap) -> GapFrame {
    let time = |ms: i64| (ms >= 0).then_some(ms);
    let report = Report {
        reason: gap.reason.as_str(),
        first: gap.first,
        next: gap.next.number,
        records: gap.records,
        bytes: gap.bytes,
        first_time_ms: time(gap.first_time),
        last_time_ms: time(gap.last_time),
    };
    let sequences = gap.sequences.iter();
    GapFrame {
        lane: gap.lane.0,
        frame: gap.next.number.saturating_sub(1),
        // Numbers and one word always have a JSON form.
        report: serde_json::to_vec(&report).unwrap_or_default().into(),
        producer_id: gap.producer_id,
        epoch: gap.epoch,
        next: sequences
            .map(|(stream, next)| (stream.as_str().to_owned(), *next))
            .collect(),
    }
}
