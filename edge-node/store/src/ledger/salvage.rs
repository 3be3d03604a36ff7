//! Reads what is whole in a file of sled that sled does not open: without it, and with nothing of its but the format.
//!
//! The file is a log in segments. Each message has a checksum and the number of its segment, so that whatever is whole can be found and put
//! in order whatever became of the rest. A message is a whole page of the tree, or a change of one. In the order in which they were written,
//! each page says of the keys between its bounds which there are; in what is damaged, an older one may have the last word.
//!
//! Positions are kept, and no values: a ledger may be larger than the memory of a gateway.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SEGMENT: usize = 512 * 1024;
const SEGMENT_HEADER: usize = 20;
/// Of a message.
const LONGEST_HEADER: usize = 32;
/// Kinds of messages.
const BATCH: u8 = 3;
const FREE: u8 = 4;
const PAGE: u8 = 8;
const CHANGE: u8 = 10;
const LAST_KIND: u8 = 11;

/// Where a value is in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    at: u64,
    len: usize,
}

/// What could be read.
pub(super) struct Salvage {
    file: File,
    rows: BTreeMap<Vec<u8>, Place>,
}

struct Message {
    /// Of the log, which never goes back.
    position: u64,
    kind: u8,
    page: u64,
    body: Place,
}

/// The CRC-32 of sled, which is not the one of the segments. Each start reads the ledger's file with it once.
fn crc32(parts: [&[u8]; 2]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut crc = n as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    let bytes = parts.into_iter().flatten();
    !bytes.fold(!0, |crc: u32, byte| {
        let entry = TABLE.get(usize::from(crc as u8 ^ byte));
        (crc >> 8) ^ entry.copied().unwrap_or_default()
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        Some(match first {
            0..=240 => first.into(),
            241..=248 => 240 + 256 * (u64::from(first) - 241) + u64::from(self.byte()?),
            249 => 2288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?),
            _ => {
                let bytes = self.take(usize::from(first) - 247)?;
                let digits = bytes.iter().rev();
                digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
        })
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(usize::try_from(len).ok()?)
    }
}

/// The message that `bytes` begin with, the number of its segment, and where it ends. `offset`: of `bytes` in the file.
fn message(bytes: &[u8], offset: u64, segment: Option<u64>) -> Option<(Message, u64, usize)> {
    let mut r = Reader { bytes, at: 0 };
    let sum = u32::from_le_bytes(r.take(4)?.try_into().ok()?);
    let kind = r.byte()?;
    if !(1..=LAST_KIND).contains(&kind) {
        return None;
    }
    let len = usize::try_from(r.number()?).ok()?;
    let number = r.number()?;
    if segment.is_some_and(|segment| segment != number) {
        return None;
    }
    let page = r.number()?;
    let head = bytes.get(4..r.at)?;
    let at = offset + r.at as u64;
    let body = r.take(len)?;
    if !crc32([body, head]) != sum {
        return None;
    }
    let base = number.checked_mul(SEGMENT as u64)?;
    let message = Message {
        position: base.checked_add(offset % SEGMENT as u64)?,
        kind,
        page,
        body: Place { at, len },
    };
    Some((message, number, r.at))
}

/// What a segment says that it is.
fn segment_number(bytes: &[u8]) -> Option<u64> {
    let sum = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let rest = bytes.get(4..SEGMENT_HEADER)?;
    if !crc32([rest, &[]]) != sum {
        return None;
    }
    let position = u64::from_le_bytes(rest.get(..8)?.try_into().ok()?) ^ i64::MAX as u64;
    Some(position / SEGMENT as u64)
}

fn read_at(file: &File, place: Place) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; place.len];
    file.read_exact_at(&mut bytes, place.at)?;
    Ok(bytes)
}

/// The segments, each with its place in the file.
fn segments(file: &File) -> io::Result<impl Iterator<Item = Place>> {
    let len = file.metadata()?.len();
    let places = (0..len).step_by(SEGMENT).map(move |at| {
        let here = usize::try_from(len - at).unwrap_or(SEGMENT);
        let len = here.min(SEGMENT);
        Place { at, len }
    });
    Ok(places)
}

/// Copies what the disk can read, durably; where it can not, there is a hole.
pub(super) fn copy_readable(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    for place in segments(from)? {
        if let Ok(bytes) = read_at(from, place) {
            to.write_all_at(&bytes, place.at)?;
        }
    }
    to.sync_all()
}

/// Every message that is whole, and the end of the last.
fn messages(file: &File) -> io::Result<(Vec<Message>, u64)> {
    let mut last = 0;
    let mut found = Vec::new();
    for place in segments(file)? {
        // What the disk itself can not read is passed over like other damage, all of the segment.
        let Ok(bytes) = read_at(file, place) else {
            continue;
        };
        let mut segment = segment_number(&bytes);
        let mut at = SEGMENT_HEADER;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some((message, number, end)) = message(rest, place.at + at as u64, segment) else {
                at += 1;
                continue;
            };
            // Of what stood here before, nothing counts.
            segment = Some(number);
            at += end;
            last = last.max(message.position.saturating_add(end as u64));
            if matches!(message.kind, BATCH | FREE | PAGE | CHANGE) {
                found.push(message);
            }
        }
    }
    // Positions are all different; a stable sort takes memory that a gateway may not have.
    found.sort_unstable_by_key(|message| message.position);
    Ok((found, last))
}

/// What the file of a ledger looks like from outside.
pub(super) struct Survey {
    /// It is what sled leaves behind when nothing happens to it: in each segment one whole message after the other, and nothing behind them. In the
    /// newest, what stood there before it was used again.
    pub is_regular: bool,
    /// The highest mark that stands anywhere in it, see `sled_ledger/mark.rs`; 0: there is none.
    pub mark: u64,
}

/// The key of marks, and what reads one.
pub(super) type MarkRow<'a> = (&'a [u8], fn(&[u8]) -> Option<u64>);

/// Looks at the file in the directory of a ledger.
pub(super) fn survey(dir: &Path, mark: MarkRow<'_>) -> io::Result<Survey> {
    let file = File::open(dir.join("db"))?;
    if let Some(highest) = regular(&file, mark)? {
        return Ok(Survey {
            is_regular: true,
            mark: highest,
        });
    }
    let mut highest = 0;
    let (messages, _) = messages(&file)?;
    for message in messages {
        if let Ok(body) = read_at(&file, message.body) {
            highest = highest.max(mark_in(&message, &body, mark).unwrap_or(0));
        }
    }
    Ok(Survey {
        is_regular: false,
        mark: highest,
    })
}

/// The highest mark of a file that is regular.
fn regular(file: &File, mark: MarkRow<'_>) -> io::Result<Option<u64>> {
    let mut broken_off = Vec::new();
    let mut newest = None;
    let mut highest = 0;
    for place in segments(file)? {
        let Ok(bytes) = read_at(file, place) else {
            return Ok(None);
        };
        let Some(segment) = segment_number(&bytes) else {
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(None);
            }
            continue;
        };
        newest = newest.max(Some(segment));
        let read = |at: usize| message(bytes.get(at..)?, place.at + at as u64, Some(segment));
        let mut at = SEGMENT_HEADER;
        while let Some((message, _, end)) = read(at) {
            at += end;
            let body = bytes.get(at - message.body.len..at).unwrap_or_default();
            highest = highest.max(mark_in(&message, body, mark).unwrap_or(0));
        }
        let rest = bytes.get(at..).unwrap_or_default();
        // Behind the last message there is no room for another one, or nothing.
        if at + LONGEST_HEADER < SEGMENT && rest.iter().any(|byte| *byte != 0) {
            if (at..bytes.len()).any(|at| read(at).is_some()) {
                return Ok(None);
            }
            broken_off.push(segment);
        }
    }
    let is_regular = broken_off
        .into_iter()
        .all(|segment| Some(segment) == newest);
    Ok(is_regular.then_some(highest))
}

/// The mark that a message writes. It is the whole key of its row, in whatever page that is.
fn mark_in(message: &Message, body: &[u8], (key, read): MarkRow<'_>) -> Option<u64> {
    match message.kind {
        PAGE => {
            let leaf = Leaf::read(body)?;
            let may_have = leaf.low <= key && (leaf.high.is_empty() || key < leaf.high);
            if !may_have || leaf.prefix != 0 {
                return None;
            }
            let mut r = leaf.rest;
            let count = r.number()?;
            let mut at = None;
            for n in 0..count {
                if r.text()? == key {
                    at = Some(n);
                }
            }
            let at = at?;
            for _ in 0..at {
                r.text()?;
            }
            read(r.text()?)
        }
        CHANGE => {
            let mut r = Reader { bytes: body, at: 0 };
            let is_this = r.byte()? == 0 && r.text()? == key;
            if is_this { read(r.text()?) } else { None }
        }
        _ => None,
    }
}

/// A leaf of the tree as it stands in a message, up to its keys.
struct Leaf<'a> {
    /// How much of `low` all keys begin with.
    prefix: usize,
    low: &'a [u8],
    high: &'a [u8],
    rest: Reader<'a>,
}

impl Leaf<'_> {
    /// `None`: it is none that counts.
    fn read(body: &[u8]) -> Option<Leaf<'_>> {
        let mut r = Reader { bytes: body, at: 0 };
        r.number()?;
        r.number()?;
        let is_merging = r.byte()? != 0;
        let prefix = usize::from(r.byte()?);
        let low = r.text()?;
        let high = r.text()?;
        let is_leaf = r.byte()? == 0;
        // What is merged into another one is in that one already.
        (is_leaf && !is_merging).then_some(Leaf {
            prefix,
            low,
            high,
            rest: r,
        })
    }
}

impl Salvage {
    /// Reads the file in the directory of a ledger.
    pub fn read(dir: &Path) -> io::Result<Salvage> {
        let file = File::open(dir.join("db"))?;
        let (messages, end) = messages(&file)?;
        let mut salvage = Salvage {
            file,
            rows: BTreeMap::new(),
        };
        // What the keys of each page begin with.
        let mut pages: HashMap<u64, Vec<u8>> = HashMap::new();
        for message in messages {
            let Ok(body) = read_at(&salvage.file, message.body) else {
                continue;
            };
            match message.kind {
                BATCH => {
                    let last = body.try_into().map(u64::from_le_bytes);
                    if last.is_ok_and(|last| last > end) {
                        // It was cut off while it was written, and was never durable.
                        break;
                    }
                }
                FREE => {
                    pages.remove(&message.page);
                }
                PAGE => {
                    let prefix = salvage.page(&body, message.body.at);
                    match prefix {
                        Some(prefix) => pages.insert(message.page, prefix),
                        None => pages.remove(&message.page),
                    };
                }
                _ => {
                    if let Some(prefix) = pages.get(&message.page) {
                        salvage.change(prefix, &body, message.body.at);
                    }
                }
            }
        }
        Ok(salvage)
    }

    /// A leaf replaces all keys between its bounds. Gives what its keys begin with; `None`: it is none that counts.
    fn page(&mut self, body: &[u8], at: u64) -> Option<Vec<u8>> {
        let leaf = Leaf::read(body)?;
        let (low, high, mut r) = (leaf.low, leaf.high, leaf.rest);
        let prefix = low.get(..leaf.prefix)?.to_vec();
        let count = r.number()?;
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push([&prefix, r.text()?].concat());
        }
        let mut rows = Vec::new();
        for key in keys {
            let len = r.text()?.len();
            let at = at + (r.at - len) as u64;
            rows.push((key, Place { at, len }));
        }
        let to = if high.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(high)
        };
        let bounds = (Bound::Included(low), to);
        if high.is_empty() || low < high {
            let replaced = self.rows.range::<[u8], _>(bounds);
            let replaced: Vec<_> = replaced.map(|(key, _)| key.clone()).collect();
            for key in replaced {
                self.rows.remove(&key);
            }
        }
        self.rows.extend(rows);
        Some(prefix)
    }

    /// A change of one key of a leaf. Others are none of a leaf's.
    fn change(&mut self, prefix: &[u8], body: &[u8], at: u64) -> Option<()> {
        let mut r = Reader { bytes: body, at: 0 };
        let what = r.byte()?;
        if what > 1 {
            return None;
        }
        let key = [prefix, r.text()?].concat();
        if what == 1 {
            self.rows.remove(&key);
            return Some(());
        }
        let len = r.text()?.len();
        let at = at + (r.at - len) as u64;
        self.rows.insert(key, Place { at, len });
        Some(())
    }

    /// Keys with a prefix, in their order.
    pub fn keys(&self, prefix: &[u8]) -> impl Iterator<Item = (&[u8], Place)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let rows = self.rows.range::<[u8], _>(from);
        let rows = rows.take_while(move |(key, _)| key.starts_with(prefix));
        rows.map(|(key, place)| (&key[..], *place))
    }

    pub fn value(&self, place: Place) -> io::Result<Vec<u8>> {
        read_at(&self.file, place)
    }
}
