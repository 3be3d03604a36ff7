//! A hole in a lane, and what the core is told of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use record::StreamName;

use crate::frame::Lane;
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::log::End;
use crate::recovery::SKIP;
use crate::wire::{Reader, put_text};

/// Why messages are missing. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GapReason {
    /// The lane's bound on bytes.
    EvictedBytes = 1,
    /// The lane's bound on age.
    EvictedAge = 2,
    /// Damage on the disk: they were there and can not be read.
    Damaged = 3,
    /// The core will never take them; they are in the quarantine.
    Refused = 4,
    /// The disk does not have what it said it had.
    Lost = 5,
    /// Of a copy of this edge that was fenced; they are in the quarantine.
    Fenced = 6,
}

impl GapReason {
    /// The word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::EvictedBytes => "evicted-bytes",
            GapReason::EvictedAge => "evicted-age",
            GapReason::Damaged => "damaged",
            GapReason::Refused => "refused",
            GapReason::Lost => "lost",
            GapReason::Fenced => "fenced",
        }
    }
}

/// Entries `first..next` of a lane are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub lane: Lane,
    pub reason: GapReason,
    /// Number of the first entry that is missing.
    pub first: u64,
    /// Where reading goes on.
    pub next: End,
    /// Messages that are missing, as far as that is known.
    pub records: u64,
    /// About how many bytes of the outbox they were.
    pub bytes: u64,
    /// Between which times they were stamped, in milliseconds since 1970, about; -1 = not known.
    pub first_time: i64,
    pub last_time: i64,
    /// Under which id (that of the lane) and epoch what follows was written.
    pub producer_id: i64,
    pub epoch: i16,
    /// The next sequence of each stream in that epoch. One that is not named begins at 0, or has nothing missing.
    pub sequences: Vec<(StreamName, i32)>,
}

impl GapReason {
    fn from_u8(number: u8) -> Option<GapReason> {
        use GapReason::*;
        let all = [EvictedBytes, EvictedAge, Damaged, Refused, Lost, Fenced];
        all.into_iter().find(|reason| *reason as u8 == number)
    }
}

impl Gap {
    fn key(&self) -> Vec<u8> {
        let mut key = vec![self.lane.0];
        key.extend_from_slice(&self.first.to_be_bytes());
        key
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.reason as u8];
        for number in [
            self.next.number,
            self.next.position,
            self.records,
            self.bytes,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for number in [self.first_time, self.last_time, self.producer_id] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&(self.sequences.len() as u32).to_be_bytes());
        for (stream, next) in &self.sequences {
            put_text(&mut out, stream.as_str());
            out.extend_from_slice(&next.to_be_bytes());
        }
        out
    }

    /// `None` = damaged.
    fn decode(key: &[u8], value: Bytes) -> Option<Gap> {
        let (lane, first) = key.split_first()?;
        let mut r = Reader(value);
        let mut gap = Gap {
            lane: Lane(*lane),
            first: u64::from_be_bytes(first.try_into().ok()?),
            reason: GapReason::from_u8(r.get_u8().ok()?)?,
            next: End {
                number: r.get_u64().ok()?,
                position: r.get_u64().ok()?,
            },
            records: r.get_u64().ok()?,
            bytes: r.get_u64().ok()?,
            first_time: r.get_i64().ok()?,
            last_time: r.get_i64().ok()?,
            producer_id: r.get_i64().ok()?,
            epoch: r.get_i16().ok()?,
            sequences: Vec::new(),
        };
        for _ in 0..r.get_u32().ok()? {
            let stream = StreamName::new(&r.text().ok()?).ok()?;
            gap.sequences.push((stream, r.get_i32().ok()?));
        }
        Some(gap)
    }
}

/// Records between two positions. Those that are skipped after a loss stand for none.
pub(crate) fn records_between(first: u64, next: u64) -> u64 {
    next.saturating_sub(first) % SKIP
}

struct Row {
    gap: Gap,
    /// The core may have been told of it like this: it is not made larger any more.
    told: bool,
}

/// The gap entries of the ledger. One for each range that is missing and of which the core has not said that it knows: few, since
/// ranges that follow one another are one.
pub(crate) struct Gaps {
    ledger: Arc<dyn Ledger>,
    rows: Mutex<BTreeMap<(Lane, u64), Row>>,
}

impl Gaps {
    pub fn load(ledger: Arc<dyn Ledger>) -> Result<Gaps, LedgerError> {
        let mut rows = BTreeMap::new();
        ledger.scan(Table::Gap, b"", &mut |key, value| {
            match Gap::decode(key, value) {
                Some(gap) => {
                    let told = true;
                    rows.insert((gap.lane, gap.first), Row { gap, told });
                }
                None => tracing::error!("a gap entry can not be read and is left out"),
            }
            true
        })?;
        Ok(Gaps {
            ledger,
            rows: Mutex::new(rows),
        })
    }

    /// Keeps a gap: durable when this returns. What is known of parts of it already is not counted twice.
    pub fn add(&self, gap: Gap) -> Result<(), LedgerError> {
        self.add_with(gap, Vec::new())
    }

    /// Like [`Gaps::add`], with other changes in the same step.
    pub fn add_with(&self, mut gap: Gap, mut changes: Vec<Change>) -> Result<(), LedgerError> {
        let mut rows = self.rows.lock();
        let lane = gap.lane;
        let before = rows.range((lane, 0)..=(lane, gap.first)).next_back();
        if let Some((_, Row { gap: before, .. })) = before
            && before.next.number > gap.first
        {
            gap.first = before.next.number;
            if gap.first >= gap.next.number {
                self.ledger.apply(changes)?;
                return self.ledger.flush();
            }
            let left = records_between(before.next.position, gap.next.position);
            gap.records = gap.records.min(left);
        }
        let inside = rows.range((lane, gap.first)..(lane, gap.next.number));
        let inside: Vec<u64> = inside.map(|((_, first), _)| *first).collect();
        for first in inside {
            let Some(Row { gap: known, .. }) = rows.remove(&(lane, first)) else {
                continue;
            };
            changes.push(Change::Delete {
                table: Table::Gap,
                key: known.key(),
            });
            if known.next.number > gap.next.number {
                gap.records += records_between(gap.next.position, known.next.position);
                gap.next = known.next;
                gap.last_time = known.last_time;
                gap.producer_id = known.producer_id;
                gap.epoch = known.epoch;
                gap.sequences = known.sequences;
            }
        }
        let before = rows.range((lane, 0)..(lane, gap.first)).next_back();
        if let Some((_, Row { gap: before, told })) = before
            && !told
            && before.next.number == gap.first
            && before.reason == gap.reason
        {
            gap.first = before.first;
            gap.first_time = before.first_time;
            gap.records += before.records;
            gap.bytes += before.bytes;
            // A gap may say nothing of streams that have nothing missing in it. What the earlier one says of them holds until a new epoch begins.
            if (before.producer_id, before.epoch) == (gap.producer_id, gap.epoch) {
                let named: HashSet<&StreamName> = gap.sequences.iter().map(|(s, _)| s).collect();
                let others = before.sequences.iter().filter(|(s, _)| !named.contains(s));
                let others: Vec<_> = others.cloned().collect();
                gap.sequences.extend(others);
            }
        }
        tracing::warn!(
            lane = lane.0,
            reason = gap.reason.as_str(),
            first = gap.first,
            next = gap.next.number,
            messages = gap.records,
            "a gap: messages of the outbox are gone, and the core will be told"
        );
        changes.push(Change::Put {
            table: Table::Gap,
            key: gap.key(),
            value: gap.encode(),
        });
        let told = false;
        rows.insert((lane, gap.first), Row { gap, told });
        self.ledger.apply(changes)?;
        self.ledger.flush()
    }

    /// The gap in which an entry number is, for the core.
    pub fn tell(&self, lane: Lane, number: u64) -> Option<Gap> {
        let mut rows = self.rows.lock();
        let (_, row) = rows.range_mut((lane, 0)..=(lane, number)).next_back()?;
        if row.gap.next.number <= number {
            return None;
        }
        row.told = true;
        Some(row.gap.clone())
    }

    /// Where the first gap after an entry number begins.
    pub fn after(&self, lane: Lane, number: u64) -> Option<u64> {
        let rows = self.rows.lock();
        let mut after = rows.range((lane, number.checked_add(1)?)..=(lane, u64::MAX));
        after.next().map(|((_, first), _)| *first)
    }

    /// The core knows of everything before `number`; `cursor` says so. Together: without its gap, a hole behind the cursor would be
    /// found as another one.
    pub fn settle(&self, lane: Lane, number: u64, cursor: Change) -> Result<(), LedgerError> {
        let mut rows = self.rows.lock();
        let settled = rows.range((lane, 0)..(lane, number));
        let settled = settled.filter(|(_, row)| row.gap.next.number <= number);
        let settled: Vec<u64> = settled.map(|((_, first), _)| *first).collect();
        let mut changes = Vec::new();
        for first in settled {
            if let Some(row) = rows.remove(&(lane, first)) {
                let key = row.gap.key();
                changes.push(Change::Delete {
                    table: Table::Gap,
                    key,
                });
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        changes.push(cursor);
        self.ledger.apply(changes)
    }

    pub fn all(&self) -> Vec<Gap> {
        let rows = self.rows.lock();
        rows.values().map(|row| row.gap.clone()).collect()
    }
}
