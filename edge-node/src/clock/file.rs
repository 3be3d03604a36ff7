//! What one start leaves to the next about the time: a small file of text.

use std::fs;
use std::io;
use std::path::Path;

use credentials::write_private;

use crate::limits;

const FILE: &str = "clock";

/// A start that does not know the time, or ended before it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blind {
    pub boot: u64,
    /// Its stamps began from the system's clock.
    pub by_system: bool,
    /// What it has stamped with, to within a minute.
    pub first: i64,
    pub last: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// It is later than this, in milliseconds since 1970.
    pub floor: i64,
    /// The number of the last start.
    pub boot: u64,
    /// Oldest first.
    pub blind: Vec<Blind>,
}

impl Kept {
    /// A file that is not there or damaged is as an empty one.
    pub fn read(dir: &Path) -> Kept {
        let text = fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        parse(&text).unwrap_or_default()
    }

    pub fn write(mut self, dir: &Path) -> io::Result<()> {
        let over = self.blind.len().saturating_sub(limits::MAX_BLIND_STARTS);
        self.blind.drain(..over);
        let mut text = format!("{} {}\n", self.floor, self.boot);
        for blind in &self.blind {
            let by = u8::from(blind.by_system);
            text += &format!("{} {by} {} {}\n", blind.boot, blind.first, blind.last);
        }
        write_private(&dir.join(FILE), text.as_bytes())
    }
}

fn parse(text: &str) -> Option<Kept> {
    let mut lines = text.lines();
    let (floor, boot) = lines.next()?.split_once(' ')?;
    let blind = lines.map(|line| {
        let mut words = line.split(' ');
        Some(Blind {
            boot: words.next()?.parse().ok()?,
            by_system: words.next()? == "1",
            first: words.next()?.parse().ok()?,
            last: words.next()?.parse().ok()?,
        })
    });
    Some(Kept {
        floor: floor.parse().ok()?,
        boot: boot.parse().ok()?,
        blind: blind.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_bounded_and_what_is_damaged_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Kept::read(dir.path()), Kept::default());
        let blind = |boot| Blind {
            boot,
            by_system: boot % 2 == 0,
            first: 5,
            last: 9,
        };
        let kept = Kept {
            floor: 77,
            boot: 1000,
            blind: (0..1000).map(blind).collect(),
        };
        kept.clone().write(dir.path()).unwrap();
        let read = Kept::read(dir.path());
        assert_eq!((read.floor, read.boot), (77, 1000));
        assert_eq!(read.blind, kept.blind[1000 - limits::MAX_BLIND_STARTS..]);
        for text in ["", "x", "1", "1 2\n3", "1 2\n3 1 4 x"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(Kept::read(dir.path()), Kept::default(), "{text:?}");
        }
    }
}
