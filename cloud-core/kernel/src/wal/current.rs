//! The file that is written.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use super::frame::{Format, FrameHeader};
use super::intake::Pending;
use crate::codec::len_u32;
use crate::ports::DiskFile;
use crate::state::FrameAt;

/// Bodies, their batches aside, of at most so many bytes are copied behind their headers: one part to write instead of two.
const COPIED: usize = 1024;

/// Entries as frames; its memory is used again.
#[derive(Default)]
pub(crate) struct Framed {
    /// Headers, each with what of its body is copied.
    fronts: BytesMut,
    /// Where each frame goes.
    pub places: Vec<FrameAt>,
}

pub(crate) struct Current {
    pub file: Arc<dyn DiskFile>,
    pub first_index: u64,
    /// See [`Format::V3`].
    pub salt: u64,
    /// Where the next frame goes.
    pub len: u64,
    /// Size of the file.
    pub bytes: u64,
}

impl Current {
    pub fn format(&self) -> Format {
        Format::V3 { salt: self.salt }
    }

    /// Makes frames of entries, of which the first has the index, term and so on of `first`, for the end of the file.
    pub fn frame<'a>(
        &self,
        first: FrameHeader,
        entries: impl Iterator<Item = &'a Pending>,
        framed: &mut Framed,
    ) -> io::Result<()> {
        framed.fronts.clear();
        let format = self.format();
        let mut at = self.len;
        for (index, pending) in (first.index..).zip(entries) {
            let encoded = &pending.encoded;
            let header = FrameHeader {
                length: len_u32(encoded.len),
                body_crc: encoded.crc,
                structure_crc: Some(encoded.structure_crc),
                index,
                ..first
            };
            header.encode(format, &mut framed.fronts);
            if encoded.rest.len() <= COPIED {
                framed.fronts.extend_from_slice(&encoded.rest);
            }
            framed.places.push(FrameAt {
                index,
                frame_at: u32::try_from(at).map_err(io::Error::other)?,
                body_len: header.length,
                stamp: header.stamp,
                volatile: false,
                in_tail: true,
            });
            at += format.frame_len(header.length);
        }
        Ok(())
    }

    /// Writes frames at the end. They are not durable yet, and after an error nobody knows what is there.
    pub fn write<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Pending>,
        framed: &'a Framed,
    ) -> io::Result<()> {
        let format = self.format();
        let fronts = &framed.fronts;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(framed.places.len() * 2 + 1);
        // What is copied lies side by side until a batch, or what is large, comes between.
        let (mut from, mut to) = (0, 0);
        let mut end = self.len;
        for pending in entries {
            let encoded = &pending.encoded;
            to += format.header_len();
            for (range, batch) in encoded.cut(&pending.commands) {
                let mut large = None;
                if encoded.rest.len() <= COPIED {
                    to += range.len();
                } else {
                    large = encoded.rest.get(range).filter(|part| !part.is_empty());
                }
                let batch = batch.map(|batch| &batch.bytes()[..]);
                if large.is_some() || batch.is_some() {
                    parts.extend(fronts.get(from..to));
                    from = to;
                    parts.extend(large);
                    parts.extend(batch);
                }
            }
            end += format.frame_len(len_u32(encoded.len));
        }
        parts.extend(fronts.get(from..to).filter(|part| !part.is_empty()));
        self.file.write_at(self.len, &parts)?;
        self.len = end;
        self.bytes = self.bytes.max(end);
        Ok(())
    }

    /// Takes back, for sure, what a write that found no room left behind: the room for its frames stays, they do not.
    pub fn take_back(&self, places: &[FrameAt]) -> io::Result<()> {
        for place in places {
            let at = u64::from(place.frame_at);
            if at < self.bytes {
                // Without its salt it is no frame.
                self.file.write_at(at, &[&[0; 8]])?;
            }
        }
        self.file.truncate(self.bytes)?;
        self.file.sync()
    }
}
