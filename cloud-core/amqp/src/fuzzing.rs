//! Doors for `tests/fuzz`, no part of the API: what is read before anything is known about who sends it.

use bytes::{Bytes, BytesMut};
use record::Record;

use crate::{frame, limits, message, method::Method, properties::Properties, wire::Reader};

/// Everything a connection reads, up to the first error: frames, then what each holds. Gives the number of frames.
pub fn stream(bytes: &[u8]) -> usize {
    let mut input = BytesMut::from(bytes);
    let mut frames = 0;
    while let Ok(Some(frame)) = frame::split(&mut input, limits::FRAME_MAX) {
        frames += 1;
        match frame.kind {
            frame::METHOD => {
                let _ = Method::id_of(&frame.payload);
                let _ = Method::parse(frame.payload);
            }
            frame::HEADER => {
                let mut reader = Reader::new(frame.payload);
                if reader.u32().is_ok() && reader.u64().is_ok() {
                    let _ = properties(reader.rest());
                }
            }
            _ => {}
        }
    }
    frames
}

/// A property block, as what the broker keeps of it is written again.
pub fn properties(block: Bytes) -> Option<Bytes> {
    let properties = Properties::parse(block).ok()?;
    let _ = message::expiration(&properties);
    Some(properties.block())
}

/// A field table, as it is written again.
pub fn table(bytes: Bytes) -> Option<Bytes> {
    let mut reader = Reader::new(bytes);
    let table = reader.table().ok()?;
    let mut out = BytesMut::new();
    table.put(&mut out);
    Some(out.freeze())
}

/// A record that anybody may have written, as a consumer gets it: its property block.
pub fn delivered(record: &Record) -> Bytes {
    message::from_record(record).properties
}
