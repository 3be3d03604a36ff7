//! `Gap`: notes in one entry that entries of a lane will never come, so that what comes after them is in its place, and what is
//! missing is in a stream that everybody can read.

use frontend::Context;
use kernel::{Command, Entry, Outcome, SequenceRule};
use record::{
    AddressError, BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName, partition_for_key,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sync_quic::{GapFrame, Hello, RefuseCode};

use crate::handle_batch::{check_writer, refusal};
use crate::lane::{Committed, Refusal, Served, Write};
use crate::limits;
use crate::time::now_ms;

/// The kernel table. Key: `EDGE/LANE/FIRST`, numbers with leading zeros. Value: JSON of [`Gap`].
const TABLE: &str = "sync.gaps";
/// The kernel table of what all gaps of an edge make up. Key: `EDGE`. Value: JSON of [`GapTotals`].
const TOTALS: &str = "sync.gap_totals";
/// The stream of all reports, keyed `EDGE/LANE`.
const STREAM: &str = "_gaps";

/// Entries of an edge's lane that will never come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub lane: u8,
    /// Name of the lane, or its number where the edge does not name it any more.
    pub name: String,
    /// Base of the producer ids of what comes next: a replaced disk numbers its entries from the beginning again.
    #[serde(default)]
    pub producer_id: i64,
    /// First and last missing entry.
    pub first: u64,
    pub last: u64,
    /// When the core heard of it, milliseconds since 1970.
    pub received_ms: i64,
    /// What the edge says: what became of what.
    pub report: Value,
}

/// Of all gaps that an edge ever reported, also of those whose rows and records are gone.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapTotals {
    pub ranges: u64,
    /// Messages in them, as far as the edge knew.
    pub records: u64,
    pub bytes: u64,
}

impl GapTotals {
    fn of(gap: &Gap) -> GapTotals {
        let count = |name: &str| gap.report[name].as_u64().unwrap_or(0);
        GapTotals {
            ranges: 1,
            records: count("records"),
            bytes: count("bytes"),
        }
    }

    fn and(self, more: GapTotals) -> GapTotals {
        GapTotals {
            ranges: self.ranges.saturating_add(more.ranges),
            records: self.records.saturating_add(more.records),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    fn without(self, less: GapTotals) -> GapTotals {
        GapTotals {
            ranges: self.ranges.saturating_sub(less.ranges),
            records: self.records.saturating_sub(less.records),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

pub(crate) fn totals(ctx: &Context, edge: &str) -> GapTotals {
    let row = ctx.kernel.table_get(TOTALS, edge.as_bytes());
    let known = row.and_then(|row| serde_json::from_slice(&row).ok());
    // The gaps of a log that was written before there were totals.
    known.unwrap_or_else(|| {
        let kept = gaps(ctx, edge);
        let each = kept.iter().map(GapTotals::of);
        each.fold(GapTotals::default(), GapTotals::and)
    })
}

/// The stream of all reports, in a namespace.
pub(crate) fn reports(namespace: &Namespace) -> Result<StreamAddress, AddressError> {
    Ok(StreamAddress::new(
        namespace.clone(),
        StreamName::new(STREAM)?,
    ))
}

/// The gaps that are kept of an edge, by lane and place.
pub(crate) fn gaps(ctx: &Context, edge: &str) -> Vec<Gap> {
    let rows = ctx.kernel.table_scan(TABLE, format!("{edge}/").as_bytes());
    rows.iter()
        .filter_map(|(_, value)| serde_json::from_slice(value).ok())
        .collect()
}

/// Hands a gap to the kernel. The write resolves when it is durable.
pub(crate) async fn handle<'a>(served: Served<'a>, frame: &GapFrame) -> Result<Write<'a>, Refusal> {
    let Served { sync, hello, .. } = served;
    check_writer(hello, frame.lane, frame.producer_id, frame.epoch)?;
    if let Some((stream, next)) = frame.next.iter().find(|(_, next)| *next < 0) {
        return Err(Refusal::new(
            RefuseCode::Malformed,
            format!("sequence {next} of stream {stream} is negative"),
        ));
    }
    let gap = read(hello, frame);
    let key = format!("{}/{:03}/{:020}", hello.edge, gap.lane, gap.first);
    // Until it is written: a connection that took over may bring the same gap.
    let held = sync.registry.changing(&hello.edge).await;
    let mut entry = Entry::new();
    for (stream, next) in &frame.next {
        let name = StreamName::new(stream)
            .map_err(|error| Refusal::new(RefuseCode::InvalidStream, error))?;
        let address = StreamAddress::new(sync.registry.namespace().clone(), name);
        // A stream that is not there has no sequence: the first batch may begin anywhere.
        if let Some(stream) = sync.ctx.kernel.stream(&address) {
            let partition = partition_for_key(Some(hello.edge.as_bytes()), stream.partitions);
            entry.push(Command::AdvanceSequence {
                partition: stream.id.partition(partition),
                producer_id: frame.producer_id,
                epoch: frame.epoch,
                next: *next,
            });
        }
    }
    let known = sync.ctx.kernel.table_get(TABLE, key.as_bytes());
    let known = known
        .and_then(|row| serde_json::from_slice::<Gap>(&row).ok())
        .filter(|known| known.producer_id == gap.producer_id);
    // The same first entry and a later last one: the gap has grown before the edge heard that it is known.
    if known.as_ref().is_none_or(|known| known.last < gap.last) {
        tracing::warn!(edge = %hello.edge, lane = %gap.name, first = gap.first, last = gap.last, report = %gap.report, "entries of an edge will never come");
        report(served, &mut entry, &gap, key, known.as_ref()).await?;
    }
    let write = sync.ctx.kernel.write(entry);
    let result = match write.await {
        Ok(outcomes) => match outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Refused(error) => Some(error),
            _ => None,
        }) {
            Some(error) => Err(refusal(&error)),
            None => Ok(Committed::Gap),
        },
        Err(error) => Err(refusal(&error.into())),
    };
    drop(held);
    Ok(Box::pin(std::future::ready(result)))
}

/// What the edge says, in our words where it is not what we expect: a gap is never refused for its report.
fn read(hello: &Hello, frame: &GapFrame) -> Gap {
    let report = match serde_json::from_slice(&frame.report) {
        Ok(Value::Object(report)) => report,
        _ => {
            let text = String::from_utf8_lossy(&frame.report).into_owned();
            Map::from_iter([("report".to_owned(), Value::from(text))])
        }
    };
    let first = report.get("first").and_then(Value::as_u64);
    let lane = hello.lanes.iter().find(|lane| lane.number == frame.lane);
    Gap {
        lane: frame.lane,
        name: lane.map_or_else(|| frame.lane.to_string(), |lane| lane.name.clone()),
        producer_id: frame.producer_id - i64::from(frame.lane),
        first: first.unwrap_or(frame.frame).min(frame.frame),
        last: frame.frame,
        received_ms: now_ms(),
        report: Value::Object(report),
    }
}

/// Adds the row and the record of a gap to an entry. `known`: the same gap before it has grown.
async fn report(
    served: Served<'_>,
    entry: &mut Entry,
    gap: &Gap,
    key: String,
    known: Option<&Gap>,
) -> Result<(), Refusal> {
    let Served { sync, hello, .. } = served;
    let unavailable = |error: &dyn std::fmt::Display| Refusal::new(RefuseCode::Unavailable, error);
    let json = serde_json::to_vec(gap).map_err(|error| unavailable(&error))?;
    let before = known.map(GapTotals::of).unwrap_or_default();
    let totals = totals(&sync.ctx, &hello.edge).without(before);
    let totals = serde_json::to_vec(&totals.and(GapTotals::of(gap)));
    let totals = totals.map_err(|error| unavailable(&error))?;
    let address = reports(sync.registry.namespace()).map_err(|error| unavailable(&error))?;
    // Made even where clients may not make streams: it is the core's own.
    let stream = sync
        .ctx
        .kernel
        .ensure_stream(&address)
        .await
        .map_err(|error| unavailable(&error))?;
    let of_lane = format!("{}/{}", hello.edge, gap.name);
    let mut record = serde_json::json!({ "edge": hello.edge });
    if let (Some(record), Ok(Value::Object(fields))) =
        (record.as_object_mut(), serde_json::to_value(gap))
    {
        record.extend(fields);
    }
    let mut batch = BatchBuilder::new();
    batch
        .push(&NewRecord {
            timestamp: gap.received_ms,
            key: Some(of_lane.clone().into()),
            value: Some(record.to_string().into()),
            headers: Vec::new(),
        })
        .map_err(|error| unavailable(&error))?;
    let batch = batch.build().map_err(|error| unavailable(&error))?;
    let partition = partition_for_key(Some(of_lane.as_bytes()), stream.partitions);
    entry.push(Command::Append {
        partition: stream.id.partition(partition),
        batch,
        rule: SequenceRule::None,
    });
    let mut rows = sync
        .ctx
        .kernel
        .table_scan(TABLE, format!("{}/", hello.edge).as_bytes());
    // The row that is replaced makes its own room.
    rows.retain(|(row, _)| *row != key.as_bytes());
    let over = (rows.len() + 1).saturating_sub(limits::MAX_GAPS_KEPT);
    if over > 0 {
        let mut by_age: Vec<(i64, _)> = rows
            .iter()
            .map(|(key, value)| {
                let gap = serde_json::from_slice::<Gap>(value);
                (gap.map_or(i64::MIN, |gap| gap.received_ms), key.clone())
            })
            .collect();
        by_age.sort_unstable();
        for (_, oldest) in by_age.into_iter().take(over) {
            entry.push(Command::TableDelete {
                table: TABLE.into(),
                key: oldest,
            });
        }
    }
    entry.push(Command::TablePut {
        table: TABLE.into(),
        key: key.into(),
        value: json.into(),
    });
    entry.push(Command::TablePut {
        table: TOTALS.into(),
        key: hello.edge.clone().into(),
        value: totals.into(),
    });
    Ok(())
}
