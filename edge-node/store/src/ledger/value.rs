//! How a value stands in sled: behind a checksum over its key and itself, so that one that came back different is never taken for what was written.
//! sled checks what it writes at once, but what is kept in pieces is several rows to it, and what reads a damaged file of its has to know what is whole.

use crate::wire::Reader;
use bytes::Bytes;

/// Until format 2 of the data directory: without a checksum.
const INLINE: u8 = 0;
const IN_PIECES: u8 = 1;
/// No bit or two make one of these out of those.
const CHECKED: u8 = 0x5a;
const CHECKED_IN_PIECES: u8 = 0xa5;

/// The length of a value in pieces, and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    pub len: u32,
    pub sum: u32,
}

/// What stands in a row.
pub(super) enum Stored<'a> {
    Here {
        sum: Option<u32>,
        value: &'a [u8],
    },
    /// In rows whose keys begin with this id.
    InPieces {
        id: [u8; 8],
        whole: Option<Whole>,
    },
}

/// Over the key as sled has it, and the value.
pub(super) fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

impl Whole {
    pub fn of(key: &[u8], value: &[u8]) -> Whole {
        Whole {
            len: value.len() as u32,
            sum: checksum(key, value),
        }
    }
}

impl Stored<'_> {
    /// What stands under a key. `None` = damaged: this was never written.
    pub fn read<'a>(key: &[u8], stored: &'a [u8]) -> Option<Stored<'a>> {
        let (tag, rest) = stored.split_first()?;
        let id = || rest.get(..8)?.try_into().ok();
        Some(match *tag {
            INLINE => Stored::Here {
                sum: None,
                value: rest,
            },
            IN_PIECES if rest.len() == 8 => Stored::InPieces {
                id: id()?,
                whole: None,
            },
            CHECKED => {
                let (sum, value) = rest.split_first_chunk()?;
                Stored::Here {
                    sum: Some(u32::from_be_bytes(*sum)),
                    value,
                }
            }
            CHECKED_IN_PIECES => {
                let (row, sum) = rest.split_last_chunk()?;
                if u32::from_be_bytes(*sum) != checksum(key, row) {
                    return None;
                }
                let mut r = Reader(Bytes::copy_from_slice(row.get(8..)?));
                let whole = Whole {
                    len: r.get_u32().ok()?,
                    sum: r.get_u32().ok()?,
                };
                Stored::InPieces {
                    id: id()?,
                    whole: Some(whole),
                }
            }
            _ => return None,
        })
    }
}

/// How long the value is, without reading its pieces; 0 = it is damaged, or in pieces since before format 2.
pub(super) fn len(key: &[u8], stored: &[u8]) -> usize {
    match Stored::read(key, stored) {
        Some(Stored::Here { value, .. }) => value.len(),
        Some(Stored::InPieces { whole, .. }) => whole.map_or(0, |whole| whole.len as usize),
        None => 0,
    }
}

/// A row with the value in it.
pub(super) fn here(key: &[u8], value: &[u8]) -> Vec<u8> {
    let sum = checksum(key, value).to_be_bytes();
    [&[CHECKED], &sum[..], value].concat()
}

/// A row whose value is in pieces. With a checksum of its own: a wrong id would name the pieces of another one.
pub(super) fn in_pieces(key: &[u8], value: &[u8], id: [u8; 8]) -> Vec<u8> {
    let Whole { len, sum } = Whole::of(key, value);
    let row = [&id[..], &len.to_be_bytes(), &sum.to_be_bytes()].concat();
    let sum = checksum(key, &row).to_be_bytes();
    [&[CHECKED_IN_PIECES], &row[..], &sum].concat()
}

/// As it was written before format 2.
#[cfg(test)]
pub(super) fn unchecked(value: Result<&[u8], [u8; 8]>) -> Vec<u8> {
    match value {
        Ok(value) => [&[INLINE], value].concat(),
        Err(id) => [&[IN_PIECES], &id[..]].concat(),
    }
}
