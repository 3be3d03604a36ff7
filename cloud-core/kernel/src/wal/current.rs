//! The file that is written.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::frame::{Format, FrameHeader};
use super::intake::Pending;
use crate::ports::DiskFile;
use crate::state::FrameAt;

pub(crate) struct Current {
    pub file: Arc<dyn DiskFile>,
    pub first_index: u64,
    /// See [`Format::V2`].
    pub salt: u64,
    /// Where the next frame goes.
    pub len: u64,
    /// Size of the file.
    pub bytes: u64,
}

impl Current {
    pub fn format(&self) -> Format {
        Format::V2 { salt: self.salt }
    }

    /// Where frames of these headers go.
    pub fn places(&self, headers: &[FrameHeader]) -> io::Result<Vec<FrameAt>> {
        let format = self.format();
        let mut at = self.len;
        let place = |header: &FrameHeader| {
            let frame_at = u32::try_from(at).map_err(io::Error::other)?;
            at += format.frame_len(header.length);
            Ok(FrameAt {
                index: header.index,
                frame_at,
                body_len: header.length,
                stamp: header.stamp,
                volatile: false,
                in_tail: true,
            })
        };
        headers.iter().map(place).collect()
    }

    /// Writes frames at the end. They are not durable yet, and after an error nobody knows what is there.
    pub fn write(&mut self, headers: &[FrameHeader], group: &[&Pending]) -> io::Result<()> {
        let format = self.format();
        let mut fronts = BytesMut::with_capacity(headers.len() * format.header_len());
        let mut parts: Vec<Bytes> = Vec::with_capacity(headers.len() * 4);
        let mut end = self.len;
        for (header, pending) in headers.iter().zip(group) {
            header.encode(format, &mut fronts);
            parts.push(fronts.split().freeze());
            parts.extend(pending.encoded.parts.iter().cloned());
            end += format.frame_len(header.length);
        }
        self.file.write_at(self.len, &parts)?;
        self.len = end;
        self.bytes = self.bytes.max(end);
        Ok(())
    }

    /// Takes back, for sure, what a write that found no room left behind: the room for its frames stays, they do not.
    pub fn take_back(&self, places: &[FrameAt]) -> io::Result<()> {
        let nothing = Bytes::from_static(&[0; 8]);
        for place in places {
            let at = u64::from(place.frame_at);
            if at < self.bytes {
                // Without its salt it is no frame.
                self.file.write_at(at, std::slice::from_ref(&nothing))?;
            }
        }
        self.file.truncate(self.bytes)?;
        self.file.sync()
    }
}
