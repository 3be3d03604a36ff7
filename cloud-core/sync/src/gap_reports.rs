//! Every gap that an edge reported, from the records of stream `_gaps`: a page at a time, so that nobody holds all of them.

use std::collections::VecDeque;

use frontend::Context;
use kernel::{PartitionId, ReadError};
use record::{Batch, Namespace, Record};

use crate::handle_gap::{self, Gap};
use crate::limits;

/// A page of gaps, in the order in which the core heard of them.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct GapsPage {
    pub gaps: Vec<Gap>,
    /// Where the next page begins; `None`: that was all.
    pub next: Option<String>,
    /// Records of whatever edge that the page would have come to, and that are not in the stream any more.
    pub gone: u64,
    /// The same of records that are damaged.
    pub damaged: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum GapsError {
    #[error("that is no place in stream _gaps, or in one that was deleted since")]
    Place,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What was read of a partition.
#[derive(Debug, Default)]
struct Part {
    /// Reports of the edge, by their offsets.
    reports: VecDeque<(i64, Gap)>,
    /// Where reading goes on.
    behind: i64,
    /// There is more to read now.
    more: bool,
}

impl Part {
    /// Where the next page goes on.
    fn next(&self) -> i64 {
        self.reports
            .front()
            .map_or(self.behind, |(offset, _)| *offset)
    }
}

pub(crate) async fn page(
    ctx: &Context,
    namespace: &Namespace,
    edge: &str,
    after: Option<&str>,
) -> Result<GapsPage, GapsError> {
    let mut page = GapsPage::default();
    let address = handle_gap::reports(namespace).map_err(|_| GapsError::Place)?;
    let Some(stream) = ctx.kernel.stream(&address) else {
        return Ok(page);
    };
    let from = match after {
        None => Vec::new(),
        Some(place) => read_place(place, stream.id.0).ok_or(GapsError::Place)?,
    };
    let partitions: Vec<PartitionId> = stream.partition_ids().collect();
    let of_each = limits::GAPS_READ_BYTES / partitions.len().max(1);
    let mut parts = Vec::with_capacity(partitions.len());
    for (index, partition) in partitions.into_iter().enumerate() {
        // A partition that was added since is read from its beginning.
        let part = Part {
            behind: from.get(index).copied().unwrap_or(0),
            ..Part::default()
        };
        let most = of_each.max(limits::GAPS_READ_OF_EACH);
        parts.push(read(ctx, partition, part, most, edge, &mut page).await?);
    }
    page.gaps = merge(&mut parts);
    // Reports are left only where there is more of another partition.
    if parts.iter().any(|part| part.more) {
        page.next = Some(place(stream.id.0, &parts));
    }
    Ok(page)
}

/// Reads on in a partition.
async fn read(
    ctx: &Context,
    partition: PartitionId,
    mut part: Part,
    max_bytes: usize,
    edge: &str,
    page: &mut GapsPage,
) -> Result<Part, ReadError> {
    let read = loop {
        let from = part.behind;
        match ctx.kernel.read_committed(partition, from, max_bytes).await {
            Ok(read) => break read,
            Err(ReadError::OutOfRange { log_start, .. }) if log_start > from => {
                page.gone += log_start.abs_diff(from);
                part.behind = log_start;
            }
            Err(ReadError::Corrupt { first, last, .. }) => {
                part.behind = last.max(from).saturating_add(1);
                page.damaged += part.behind.abs_diff(first.max(from));
            }
            // Of a log that is shorter than it was, or was deleted meanwhile.
            Err(ReadError::OutOfRange { .. } | ReadError::UnknownPartition(_)) => return Ok(part),
            Err(error) => return Err(error),
        }
    };
    for batch in &read.batches {
        if reports(batch, part.behind, edge, &mut part.reports).is_none() {
            page.damaged += u64::from(batch.record_count());
        }
    }
    part.more = read.next_offset > part.behind && read.next_offset < read.watermarks.last_stable;
    part.behind = read.next_offset.max(part.behind);
    Ok(part)
}

/// The reports of an edge in a batch, from an offset on. `None`: the batch can not be read.
fn reports(batch: &Batch, from: i64, edge: &str, into: &mut VecDeque<(i64, Gap)>) -> Option<()> {
    for record in batch.records().ok()? {
        let record = record.ok()?;
        if record.offset >= from
            && let Some(gap) = report(&record, edge)
        {
            into.push_back((record.offset, gap));
        }
    }
    Some(())
}

/// What a record says, where it is a report of this edge. Clients can write to the stream, too: what is no report is left out.
fn report(record: &Record, edge: &str) -> Option<Gap> {
    let of_edge = record.key.as_deref()?.strip_prefix(edge.as_bytes())?;
    of_edge.strip_prefix(b"/")?;
    serde_json::from_slice(record.value.as_deref()?).ok()
}

/// Takes the reports of all parts in the order in which they were heard, until the next one may be one that was not read yet.
fn merge(parts: &mut [Part]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    while !parts
        .iter()
        .any(|part| part.more && part.reports.is_empty())
    {
        let heads = parts
            .iter_mut()
            .filter_map(|part| Some((part.reports.front()?.1.received_ms, part)));
        let first = heads.min_by_key(|(heard, _)| *heard);
        let Some((_, gap)) = first.and_then(|(_, part)| part.reports.pop_front()) else {
            break;
        };
        gaps.push(gap);
    }
    gaps
}

/// `STREAM:OFFSET,OFFSET,...`: the number of the stream, and where each partition is read on.
fn place(stream: u64, parts: &[Part]) -> String {
    let next: Vec<String> = parts.iter().map(|part| part.next().to_string()).collect();
    format!("{stream}:{}", next.join(","))
}

fn read_place(text: &str, stream: u64) -> Option<Vec<i64>> {
    let (of, next) = text.split_once(':')?;
    if of.parse() != Ok(stream) {
        return None;
    }
    let next = next.split(',').map(|offset| offset.parse().ok());
    next.map(|offset: Option<i64>| offset.filter(|offset| *offset >= 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(times: &[i64]) -> VecDeque<(i64, Gap)> {
        let gap = |received_ms| Gap {
            lane: 0,
            name: "data".to_owned(),
            producer_id: 1,
            first: 1,
            last: 1,
            received_ms,
            report: serde_json::Value::Null,
        };
        let gaps = times.iter().map(|received_ms| gap(*received_ms));
        (100..).zip(gaps).collect()
    }

    fn times(gaps: Vec<Gap>) -> Vec<i64> {
        gaps.into_iter().map(|gap| gap.received_ms).collect()
    }

    #[test]
    fn partitions_are_merged_by_time_as_far_as_all_of_them_are_read() {
        let part = |times: &[i64], more| Part {
            reports: heard(times),
            behind: 200,
            more,
        };
        let mut parts = [
            part(&[1, 4, 9], true),
            part(&[2, 3], true),
            part(&[], false),
            part(&[7], false),
        ];
        // After 3 the second one may go on with 3, or with 4.
        assert_eq!(times(merge(&mut parts)), [1, 2, 3]);
        assert_eq!(place(7, &parts), "7:101,200,200,100");
        assert_eq!(read_place("7:101,200,200,100", 7).unwrap()[0], 101);
        parts[1] = part(&[8], false);
        assert_eq!(times(merge(&mut parts)), [4, 7, 8, 9]);
        assert_eq!(place(7, &parts), "7:200,200,200,200");
    }

    #[test]
    fn what_is_no_place_of_the_stream_is_refused() {
        for text in ["", "7", "7:", "7:1,x", "7:-1", "8:1", "x:1"] {
            assert_eq!(read_place(text, 7), None, "{text}");
        }
    }
}
