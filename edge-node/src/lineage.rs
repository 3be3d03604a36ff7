//! Which starts of this data directory the core has met: what tells this edge from a copy of its directory that went on by itself.
//! A small file, written before a start says its first hello, and when the core has let it in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use credentials::write_private;

const FILE: &str = "lineage";

/// One start: incarnation and nonce, as its hello says them.
pub type Start = (i16, u64);

/// The starts of one producer id that have said hello, from the last on that was welcome; the present one is the last.
#[derive(Debug)]
pub struct Lineage {
    dir: PathBuf,
    producer_id: i64,
    earlier: Vec<Start>,
    present: Start,
    /// The file has the present one.
    noted: bool,
}

impl Lineage {
    /// Reads what is known of the starts before this one. A file that cannot be read is as none: the numbers alone decide then.
    pub fn open(dir: &Path, producer_id: i64, present: Start) -> Lineage {
        let text = fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        let known = parse(&text).filter(|(id, _)| *id == producer_id);
        let mut earlier = known.map(|(_, starts)| starts).unwrap_or_default();
        earlier.retain(|start| *start != present);
        // The oldest that is left is the last welcome one; when there are too many, those after it were hardly ever heard.
        while earlier.len() >= sync::limits::MAX_EARLIER {
            earlier.remove(1);
        }
        Lineage {
            dir: dir.to_owned(),
            producer_id,
            earlier,
            present,
            noted: false,
        }
    }

    /// For [`sync::Hello::earlier`].
    pub fn earlier(&self) -> &[Start] {
        &self.earlier
    }

    /// Before a hello: the core may remember this start even when its answer is never heard. Blocks on the disk, once.
    pub fn before_hello(&mut self) -> io::Result<()> {
        if !self.noted {
            let starts = self.earlier.iter().chain([&self.present]);
            write_private(&self.dir.join(FILE), &line(self.producer_id, starts))?;
            self.noted = true;
        }
        Ok(())
    }

    /// The core has let this start in: those before it are of no more use. Blocks on the disk, once.
    pub fn welcome(&mut self) -> io::Result<()> {
        if !self.earlier.is_empty() {
            let bytes = line(self.producer_id, [&self.present]);
            write_private(&self.dir.join(FILE), &bytes)?;
            self.earlier.clear();
        }
        Ok(())
    }
}

/// `PRODUCER-ID INCARNATION:NONCE …`
fn line<'a>(producer_id: i64, starts: impl IntoIterator<Item = &'a Start>) -> Vec<u8> {
    let mut text = producer_id.to_string();
    for (incarnation, nonce) in starts {
        text += &format!(" {incarnation}:{nonce:016x}");
    }
    text += "\n";
    text.into_bytes()
}

fn parse(text: &str) -> Option<(i64, Vec<Start>)> {
    let mut words = text.split_whitespace();
    let producer_id = words.next()?.parse().ok()?;
    let starts = words
        .map(|word| {
            let (incarnation, nonce) = word.split_once(':')?;
            Some((
                incarnation.parse().ok()?,
                u64::from_str_radix(nonce, 16).ok()?,
            ))
        })
        .collect::<Option<Vec<_>>>()?;
    Some((producer_id, starts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i64 = 1 << 62;

    #[test]
    fn starts_are_kept_until_one_is_welcome() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Lineage::open(dir.path(), ID, (1, 11));
        assert_eq!(first.earlier(), []);
        first.before_hello().unwrap();
        first.welcome().unwrap();
        let mut second = Lineage::open(dir.path(), ID, (2, 22));
        assert_eq!(second.earlier(), [(1, 11)]);
        second.before_hello().unwrap();
        // Its answer was never heard: the core may have let it in all the same.
        let mut third = Lineage::open(dir.path(), ID, (3, 33));
        assert_eq!(third.earlier(), [(1, 11), (2, 22)]);
        third.before_hello().unwrap();
        third.welcome().unwrap();
        assert_eq!(third.earlier(), []);
        // One that never said hello is not in it, nor are those of another producer id.
        Lineage::open(dir.path(), ID, (4, 44));
        assert_eq!(Lineage::open(dir.path(), ID, (5, 55)).earlier(), [(3, 33)]);
        assert_eq!(Lineage::open(dir.path(), ID + 256, (0, 1)).earlier(), []);
    }

    #[test]
    fn it_is_bounded_and_what_is_damaged_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..200 {
            Lineage::open(dir.path(), ID, (n, 7))
                .before_hello()
                .unwrap();
        }
        let last = Lineage::open(dir.path(), ID, (200, 7));
        assert_eq!(last.earlier().len(), sync::limits::MAX_EARLIER - 1);
        assert_eq!(last.earlier()[0], (0, 7), "the last welcome one stays");
        assert_eq!(last.earlier().last(), Some(&(199, 7)));
        for text in ["", "x", "1 2", "1 2:zz", "1 99999:1"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(
                Lineage::open(dir.path(), ID, (1, 1)).earlier(),
                [],
                "{text:?}"
            );
        }
    }
}
