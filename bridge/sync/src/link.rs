//! Compression of batches for the link: one zstd frame a batch, with a dictionary that the core has trained where there is one.
//! What is stored at both ends is the batch as it was.

use std::collections::HashMap;

use bytes::Bytes;
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::{self, CCtx, DCtx};

use crate::frame::{DictionaryFrame, LinkCompression};
use crate::limits;

/// zstd's own default: a gateway's processor keeps up with any link at it.
const LEVEL: i32 = 3;

/// Why bytes from the link are not the batch that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("{claimed} bytes are more than the largest batch")]
    TooLarge { claimed: usize },
    #[error("the zstd frame is damaged, or made with another dictionary: {0}")]
    Damaged(&'static str),
    #[error("the zstd frame holds {found} bytes where {claimed} were announced")]
    Length { claimed: usize, found: usize },
}

/// The edge's side: compresses batches, and keeps the newest dictionary of each stream.
pub struct LinkCompressor {
    context: CCtx<'static>,
    dictionaries: HashMap<String, Learnt>,
    /// Counts uses, to forget the dictionary that was not used for longest.
    uses: u64,
}

struct Learnt {
    id: u32,
    encoder: EncoderDictionary<'static>,
    used: u64,
}

impl Default for LinkCompressor {
    fn default() -> Self {
        LinkCompressor {
            context: CCtx::create(),
            dictionaries: HashMap::new(),
            uses: 0,
        }
    }
}

impl LinkCompressor {
    pub fn new() -> LinkCompressor {
        LinkCompressor::default()
    }

    /// The ids for [`crate::Hello::dictionaries`].
    pub fn ids(&self) -> Vec<u32> {
        self.dictionaries.values().map(|learnt| learnt.id).collect()
    }

    /// Takes a dictionary that came; the one before it for the same stream is forgotten.
    pub fn learn(&mut self, frame: &DictionaryFrame) -> std::io::Result<()> {
        let encoder = EncoderDictionary::try_copy(&frame.dictionary, LEVEL)?;
        let is_new = !self.dictionaries.contains_key(&frame.stream);
        if is_new && self.dictionaries.len() >= limits::MAX_DICTIONARIES {
            let oldest = self.dictionaries.iter().min_by_key(|(_, l)| l.used);
            if let Some(oldest) = oldest.map(|(stream, _)| stream.clone()) {
                self.dictionaries.remove(&oldest);
            }
        }
        let learnt = Learnt {
            id: frame.id,
            encoder,
            used: self.uses,
        };
        self.dictionaries.insert(frame.stream.clone(), learnt);
        Ok(())
    }

    /// Forgets all dictionaries: the core does not have one of them ([`crate::RefuseCode::UnknownDictionary`]).
    pub fn forget(&mut self) {
        self.dictionaries.clear();
    }

    /// A batch as it goes over the link; `None`: as it is, since it would not get smaller. Not worth calling for a batch that is
    /// compressed already.
    pub fn compress(&mut self, stream: &str, batch: &[u8]) -> Option<(LinkCompression, Bytes)> {
        let raw_length = u32::try_from(batch.len()).ok()?;
        if batch.len() > limits::MAX_BATCH {
            return None;
        }
        self.uses += 1;
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(batch.len()));
        let (dictionary, written) = match self.dictionaries.get_mut(stream) {
            Some(learnt) => {
                learnt.used = self.uses;
                let cdict = learnt.encoder.as_cdict();
                let written = self.context.compress_using_cdict(&mut out, batch, cdict);
                (learnt.id, written)
            }
            None => (0, self.context.compress(&mut out, batch, LEVEL)),
        };
        written.ok()?;
        if out.len() >= batch.len() {
            return None;
        }
        // The buffer is as large as the worst case; what is kept is not.
        let link = LinkCompression {
            dictionary,
            raw_length,
        };
        Some((link, Bytes::copy_from_slice(&out)))
    }
}

/// The batch that was compressed. Allocates what was announced, after checking it against [`limits::MAX_BATCH`].
pub fn restore(
    compressed: &[u8],
    link: LinkCompression,
    dictionary: Option<&DecoderDictionary<'_>>,
) -> Result<Bytes, RestoreError> {
    let claimed = link.raw_length as usize;
    if claimed > limits::MAX_BATCH {
        return Err(RestoreError::TooLarge { claimed });
    }
    let mut out = Vec::with_capacity(claimed);
    let mut context = DCtx::create();
    let read = match dictionary {
        Some(dictionary) => {
            context.decompress_using_ddict(&mut out, compressed, dictionary.as_ddict())
        }
        None => context.decompress(&mut out, compressed),
    };
    let found = read.map_err(|code| RestoreError::Damaged(zstd_safe::get_error_name(code)))?;
    if found != claimed {
        return Err(RestoreError::Length { claimed, found });
    }
    Ok(out.into())
}

/// A trained dictionary as it is shipped: without the number of its own that zstd would write into each frame, since the frame of a
/// batch names it already.
pub fn without_number(mut trained: Vec<u8>) -> Vec<u8> {
    /// Of a dictionary with tables (RFC 8878, 5): magic number, then the dictionary's number.
    const MAGIC: [u8; 4] = 0xEC30_A437_u32.to_le_bytes();
    if trained.starts_with(&MAGIC)
        && let Some(number) = trained.get_mut(4..8)
    {
        number.fill(0);
    }
    trained
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_what_was_sent() {
        let mut compressor = LinkCompressor::new();
        let batch = "a reading and a reading and a reading ".repeat(30);
        let dictionary = DictionaryFrame {
            stream: "s".to_owned(),
            id: 7,
            dictionary: Bytes::from_static(b"a reading and another reading of a thing"),
        };
        let (plain, without) = compressor.compress("s", batch.as_bytes()).unwrap();
        assert_eq!(plain.dictionary, 0);
        assert_eq!(restore(&without, plain, None).unwrap(), batch);

        compressor.learn(&dictionary).unwrap();
        assert_eq!(compressor.ids(), [7]);
        let (link, with) = compressor.compress("s", batch.as_bytes()).unwrap();
        assert_eq!(link.dictionary, 7);
        assert!(
            with.len() < without.len(),
            "{} {}",
            with.len(),
            without.len()
        );
        let decoder = DecoderDictionary::copy(&dictionary.dictionary);
        assert_eq!(restore(&with, link, Some(&decoder)).unwrap(), batch);
        assert_eq!(
            compressor.compress("other", batch.as_bytes()).unwrap().0,
            plain
        );
        compressor.forget();
        assert_eq!(compressor.compress("s", batch.as_bytes()).unwrap().0, plain);

        assert_eq!(
            compressor.compress("s", b"x"),
            None,
            "it would not get smaller"
        );
    }

    #[test]
    fn what_was_damaged_or_lies_is_refused() {
        let batch = "a reading and a reading and a reading ".repeat(30);
        let (link, frame) = LinkCompressor::new()
            .compress("s", batch.as_bytes())
            .unwrap();
        for claimed in [link.raw_length - 1, link.raw_length + 1, 0] {
            let lie = LinkCompression {
                raw_length: claimed,
                ..link
            };
            assert!(restore(&frame, lie, None).is_err(), "{claimed}");
        }
        let huge = LinkCompression {
            raw_length: u32::MAX,
            ..link
        };
        assert!(matches!(
            restore(&frame, huge, None),
            Err(RestoreError::TooLarge { .. })
        ));
        for cut in 0..frame.len() {
            assert!(restore(&frame[..cut], link, None).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn the_number_of_dictionaries_is_bounded() {
        let mut compressor = LinkCompressor::new();
        for id in 1..=limits::MAX_DICTIONARIES as u32 + 5 {
            let stream = format!("s{id}");
            let dictionary = Bytes::from(format!("dictionary of {stream}"));
            compressor
                .learn(&DictionaryFrame {
                    stream: stream.clone(),
                    id,
                    dictionary,
                })
                .unwrap();
            compressor.compress(&stream, b"dictionary dictionary dictionary dictionary");
        }
        let mut ids = compressor.ids();
        ids.sort_unstable();
        assert_eq!(ids.len(), limits::MAX_DICTIONARIES);
        assert_eq!(ids[0], 6, "the oldest go first");
    }
}
