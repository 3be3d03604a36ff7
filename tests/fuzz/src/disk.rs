//! What the kernel reads from disk at start. Checksums stand in front of it; behind them the decoders are still not to be trusted.

use bytes::Bytes;
use kernel::fuzzing;

/// The header of a frame of the WAL.
pub fn wal_frame(data: &[u8]) {
    if let Some(again) = fuzzing::frame_header(data) {
        assert!(data.starts_with(&again));
    }
}

/// The body of a frame of the WAL: the commands of one entry.
pub fn wal_entry(data: &[u8]) {
    crate::stands_still(fuzzing::entry, Bytes::copy_from_slice(data));
}

/// The body of a checkpoint. The order of what is in it is free, so only its length must stand still.
pub fn checkpoint(data: &[u8]) {
    if let Some(first) = fuzzing::checkpoint(Bytes::copy_from_slice(data)) {
        let second = fuzzing::checkpoint(first.clone());
        assert_eq!(second.map(|bytes| bytes.len()), Some(first.len()));
    }
}

/// A segment of the cold store.
pub fn segment(data: &[u8]) {
    crate::stands_still(fuzzing::segment, Bytes::copy_from_slice(data));
}
