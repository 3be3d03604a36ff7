//! Doors for `tests/fuzz`, no part of the API: what recovery reads from disk, without the disk and the checksums in front of it.
//! Each gives what was read as it is written again.

use bytes::Bytes;

use crate::state::State;
use crate::wal::frame::FrameHeader;
use crate::{entry_codec, snapshot};

/// The header at the front of a frame of the WAL.
pub fn frame_header(bytes: &[u8]) -> Option<Bytes> {
    FrameHeader::decode(bytes).map(|header| header.encode())
}

/// The body of a frame.
pub fn entry(body: Bytes) -> Option<Bytes> {
    let (commands, _) = entry_codec::decode(body).ok()?;
    Some(
        entry_codec::encode(&commands)
            .parts
            .into_iter()
            .flatten()
            .collect(),
    )
}

/// The body of a checkpoint.
pub fn checkpoint(body: Bytes) -> Option<Bytes> {
    let state = State::new(0);
    let head = snapshot::decode(body, &state).ok()?;
    let snapshot = snapshot::take(&state, head.index, head.stamp, head.last);
    Some(snapshot.encode().into_iter().flatten().collect())
}
