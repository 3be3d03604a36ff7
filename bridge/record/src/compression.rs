//! The codecs of the record section. All four are read; lz4 and zstd are written.
//!
//! Decompression never writes more than [`limits::MAX_DECOMPRESSED`] bytes, whatever the compressed bytes claim.

use std::io::{Read, Write};

use bytes::Bytes;

use crate::{BatchError, limits};

/// Bits 0 to 2 of a batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// What the Java snappy library (xerial) puts before its blocks; then two 4-byte version numbers.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_LEN: usize = 16;

/// Magic, two descriptor bytes, header checksum, end mark (LZ4 frame format 1.6). The decoder takes less for no frame.
const SHORTEST_LZ4_FRAME: usize = 11;

/// What zstd calls its default: the speed of lz4's neighbourhood with a third fewer bytes.
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    pub(crate) fn from_attributes(attributes: i16) -> Result<Compression, BatchError> {
        match attributes & 0x07 {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(BatchError::UnknownCompression(other.to_le_bytes()[0])),
        }
    }

    pub(crate) fn attribute_bits(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The record section in the clear. Without compression this is the same memory.
    pub(crate) fn decompress(self, section: Bytes) -> Result<Bytes, BatchError> {
        match self {
            Compression::None => Ok(section),
            Compression::Gzip => self
                .drain(flate2::read::MultiGzDecoder::new(&section[..]), Vec::new())
                .map(Bytes::from),
            Compression::Snappy => snappy(&section).map(Bytes::from),
            Compression::Lz4 => self.lz4(&section).map(Bytes::from),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&section[..])
                    .map_err(|error| self.corrupt(&error))?;
                decoder
                    .window_log_max(limits::MAX_ZSTD_WINDOW_LOG)
                    .map_err(|error| self.corrupt(&error))?;
                self.drain(decoder, Vec::new()).map(Bytes::from)
            }
        }
    }

    /// `prefix` followed by the compressed `records`. `None`: this codec is not written, or failed, or did not help;
    /// the caller then keeps the records uncompressed.
    pub(crate) fn compress(self, prefix: &[u8], records: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(prefix.len() + records.len() / 2);
        out.extend_from_slice(prefix);
        let out = match self {
            Compression::None | Compression::Gzip | Compression::Snappy => return None,
            Compression::Lz4 => {
                // Independent 64 KiB blocks and no content checksum: what Kafka's own clients write, and some only read.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
                encoder.write_all(records).ok()?;
                encoder.finish().ok()?
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL).ok()?;
                // The reader can then size its buffer at once.
                encoder
                    .set_pledged_src_size(Some(records.len() as u64))
                    .ok()?;
                encoder.write_all(records).ok()?;
                encoder.finish().ok()?
            }
        };
        (out.len() < prefix.len() + records.len()).then_some(out)
    }

    fn lz4(self, mut section: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::new();
        // Frames may follow one another; each gets a decoder of its own.
        while !section.is_empty() {
            if section.len() < SHORTEST_LZ4_FRAME {
                return Err(self.corrupt(&"frame is cut off"));
            }
            out = self.drain(lz4_flex::frame::FrameDecoder::new(&mut section), out)?;
        }
        Ok(out)
    }

    /// Appends what `reader` yields to `out`, up to the limit.
    fn drain(self, reader: impl Read, mut out: Vec<u8>) -> Result<Vec<u8>, BatchError> {
        let room = limits::MAX_DECOMPRESSED.saturating_sub(out.len()) as u64;
        // One byte more than allowed tells "full" from "too large".
        let read = reader
            .take(room + 1)
            .read_to_end(&mut out)
            .map_err(|error| self.corrupt(&error))?;
        if read as u64 > room {
            return Err(BatchError::DecompressedTooLarge);
        }
        Ok(out)
    }

    fn corrupt(self, error: &dyn std::fmt::Display) -> BatchError {
        BatchError::Decompress {
            codec: self,
            reason: error.to_string(),
        }
    }
}

/// librdkafka writes one raw snappy block; Java writes xerial's header and then blocks, each with its length before it.
fn snappy(section: &[u8]) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    if !section.starts_with(XERIAL_MAGIC) {
        snappy_block(section, &mut out)?;
        return Ok(out);
    }
    let cut_off = || Compression::Snappy.corrupt(&"block is cut off");
    let mut rest = section.get(XERIAL_HEADER_LEN..).ok_or_else(cut_off)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| cut_off())?;
        let (block, after) = after.split_at_checked(length).ok_or_else(cut_off)?;
        snappy_block(block, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    let corrupt = |error: snap::Error| Compression::Snappy.corrupt(&error);
    let length = snap::raw::decompress_len(block).map_err(corrupt)?;
    let start = out.len();
    // Snappy's best copies expand a 3-byte element to 64 bytes: a larger claim is a lie, not worth an allocation.
    if length > limits::MAX_DECOMPRESSED.saturating_sub(start) {
        return Err(BatchError::DecompressedTooLarge);
    }
    if length > block.len().saturating_mul(64) {
        return Err(Compression::Snappy.corrupt(&"announced length cannot be reached"));
    }
    out.resize(start + length, 0);
    let written = match out.get_mut(start..) {
        Some(room) => snap::raw::Decoder::new()
            .decompress(block, room)
            .map_err(corrupt)?,
        None => 0,
    };
    out.truncate(start + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 4] = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    #[test]
    fn xerial_blocks_are_joined() {
        let mut section = XERIAL_MAGIC.to_vec();
        section.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        for part in [&b"hello "[..], b"world"] {
            let block = snap::raw::Encoder::new().compress_vec(part).unwrap();
            section.extend_from_slice(&(block.len() as i32).to_be_bytes());
            section.extend_from_slice(&block);
        }
        assert_eq!(
            Compression::Snappy
                .decompress(section.clone().into())
                .unwrap(),
            "hello world"
        );
        section.pop();
        assert!(Compression::Snappy.decompress(section.into()).is_err());
    }

    #[test]
    fn concatenated_lz4_frames_of_different_kinds_are_joined() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let mut section = Vec::new();
        for (mode, size) in [
            (BlockMode::Linked, BlockSize::Max4MB),
            (BlockMode::Independent, BlockSize::Max64KB),
        ] {
            let info = FrameInfo::new()
                .block_mode(mode)
                .block_size(size)
                .content_checksum(true);
            let mut encoder = FrameEncoder::with_frame_info(info, section);
            encoder.write_all(&b"abcdefgh".repeat(30_000)).unwrap();
            section = encoder.finish().unwrap();
        }
        assert_eq!(
            Compression::Lz4.decompress(section.into()).unwrap().len(),
            480_000
        );
    }

    /// A few kilobytes that announce or contain more than the limit must not take more memory than the limit.
    #[test]
    fn a_bomb_is_refused() {
        let zeros = vec![0u8; limits::MAX_DECOMPRESSED + 1];
        for codec in [Compression::Lz4, Compression::Zstd] {
            let bomb = codec.compress(&[], &zeros).unwrap();
            assert_eq!(
                codec.decompress(bomb.into()),
                Err(BatchError::DecompressedTooLarge),
                "{codec:?}"
            );
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&zeros).unwrap();
        assert_eq!(
            Compression::Gzip.decompress(gzip.finish().unwrap().into()),
            Err(BatchError::DecompressedTooLarge)
        );
        // Snappy states its length first: 2^32 - 1 in five bytes.
        let claim: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(
            Compression::Snappy.decompress(Bytes::from_static(claim)),
            Err(BatchError::DecompressedTooLarge)
        );
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        for codec in ALL {
            for length in [1usize, 3, 4, 7, 15, 16, 64, 300] {
                let garbage: Vec<u8> = (0..length).map(|place| (place * 167 + 13) as u8).collect();
                assert!(
                    codec.decompress(garbage.into()).is_err(),
                    "{codec:?} {length}"
                );
            }
        }
    }
}
