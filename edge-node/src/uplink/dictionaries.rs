//! What batches are compressed with for the link: the dictionaries that the core has sent, one file each, so that a restart needs no
//! new ones.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use credentials::write_private;
use parking_lot::Mutex;
use sync::{LinkCompression, LinkCompressor};
use sync_quic::DictionaryFrame;

/// The directory of them.
const DIR: &str = "dictionaries";
/// What ends the name of a file; before it stands the id.
const ENDING: &str = ".dict";

pub struct Dictionaries {
    dir: PathBuf,
    compressor: Mutex<LinkCompressor>,
    /// The last frame of each lane, up to which batches go as they are: the core could not restore one.
    plain: Mutex<HashMap<u8, u64>>,
}

impl Dictionaries {
    /// Reads those that are kept. One that can not be read is deleted: the core sends it again.
    pub fn open(data_dir: &Path) -> Dictionaries {
        let dir = data_dir.join(DIR);
        let mut compressor = LinkCompressor::new();
        let files = fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut found: Vec<(u32, PathBuf)> = files
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let id = name.strip_suffix(ENDING)?.parse().ok()?;
                Some((id, file.path()))
            })
            .collect();
        // The newest of a stream is the last that is learnt.
        found.sort_unstable();
        for (id, path) in found {
            let learnt = read(id, &path).is_some_and(|frame| compressor.learn(&frame).is_ok());
            if !learnt {
                let _ = fs::remove_file(path);
            }
        }
        Dictionaries {
            dir,
            compressor: Mutex::new(compressor),
            plain: Mutex::default(),
        }
    }

    /// For [`sync_quic::Hello::dictionaries`].
    pub fn ids(&self) -> Vec<u32> {
        self.compressor.lock().ids()
    }

    /// Takes a dictionary into use, and keeps it. Blocks on the disk.
    pub fn learn(&self, frame: &DictionaryFrame) -> io::Result<()> {
        let ids = {
            let mut compressor = self.compressor.lock();
            compressor.learn(frame)?;
            compressor.ids()
        };
        match fs::create_dir(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        write_private(&self.dir.join(file_name(frame.id)), &encode(frame))?;
        self.remove_all_but(&ids);
        Ok(())
    }

    /// The core could not restore a frame of a lane: what it does not know is forgotten, and the lane is sent again up to this frame
    /// without compression. Blocks on the disk.
    pub fn forget(&self, lane: u8, frame: u64) {
        self.compressor.lock().forget();
        self.remove_all_but(&[]);
        let mut plain = self.plain.lock();
        let up_to = plain.entry(lane).or_default();
        *up_to = frame.max(*up_to);
    }

    /// A batch as it goes over the link; `None`: as it is.
    pub fn compress(
        &self,
        lane: u8,
        frame: u64,
        stream: &str,
        batch: &[u8],
    ) -> Option<(LinkCompression, Bytes)> {
        let is_plain = self
            .plain
            .lock()
            .get(&lane)
            .is_some_and(|up_to| frame <= *up_to);
        if is_plain {
            return None;
        }
        self.compressor.lock().compress(stream, batch)
    }

    fn remove_all_but(&self, ids: &[u32]) {
        let kept: Vec<String> = ids.iter().map(|id| file_name(*id)).collect();
        for file in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            if !kept.iter().any(|kept| **kept == *name) {
                // One that stays is read at the next start, and does no harm.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

fn file_name(id: u32) -> String {
    format!("{id}{ENDING}")
}

/// CRC-32C of what follows, the stream's length in two bytes, the stream, the dictionary.
fn encode(frame: &DictionaryFrame) -> Vec<u8> {
    let name = frame.stream.as_bytes();
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes();
    let body = [&length[..], name, &frame.dictionary].concat();
    let crc = crc32c::crc32c(&body).to_be_bytes();
    [&crc[..], &body].concat()
}

fn read(id: u32, path: &Path) -> Option<DictionaryFrame> {
    let bytes = fs::read(path).ok()?;
    let (crc, body) = bytes.split_first_chunk()?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (length, rest) = body.split_first_chunk()?;
    let (stream, dictionary) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some(DictionaryFrame {
        stream: String::from_utf8(stream.to_vec()).ok()?,
        id,
        dictionary: Bytes::copy_from_slice(dictionary),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: &str, id: u32) -> DictionaryFrame {
        DictionaryFrame {
            stream: stream.into(),
            id,
            dictionary: Bytes::from(format!("a reading of {stream} and what is said of it {id}")),
        }
    }

    #[test]
    fn they_are_there_after_a_restart_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Dictionaries::open(dir.path());
        kept.learn(&frame("a", 1)).unwrap();
        kept.learn(&frame("b", 2)).unwrap();
        kept.learn(&frame("a", 3)).unwrap();
        let ids = |kept: &Dictionaries| {
            let mut ids = kept.ids();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&Dictionaries::open(dir.path())), [2, 3]);
        let files = || fs::read_dir(dir.path().join(DIR)).unwrap().count();
        assert_eq!(files(), 2, "the older one of the stream is gone");
        fs::write(dir.path().join(DIR).join("2.dict"), "damaged").unwrap();
        let kept = Dictionaries::open(dir.path());
        assert_eq!(ids(&kept), [3]);
        for id in 10..10 + sync::limits::MAX_DICTIONARIES as u32 + 3 {
            kept.learn(&frame(&format!("s{id}"), id)).unwrap();
        }
        assert_eq!(files(), sync::limits::MAX_DICTIONARIES);
        kept.forget(1, 7);
        assert_eq!((files(), ids(&kept).len()), (0, 0));
        let batch = b"a reading and a reading and a reading";
        assert!(
            kept.compress(1, 7, "a", batch).is_none(),
            "sent again as it is"
        );
        assert!(kept.compress(1, 8, "a", batch).is_some());
        assert!(kept.compress(2, 7, "a", batch).is_some());
    }
}
