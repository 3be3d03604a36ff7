//! How much of what was stored here could not be read at a start and was set aside: counted durably, for the core to ask.
//!
//! The names of what was set aside say what there is; a file says which of them were counted. So each is counted once, whenever the power goes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use credentials::write_private;
use serde::{Deserialize, Serialize};

use crate::limits;

const FILE: &str = "set-aside.json";
/// What is in the directory of values that were set aside, apart from a ledger.
const VALUES: &str = "values";

/// How much of what. Also what the core is told.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetAside {
    /// Of this count: another one begins at nothing.
    id: String,
    ledgers: u64,
    values: u64,
    segments: u64,
    identities: u64,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Counted {
    #[serde(flatten)]
    all: SetAside,
    /// Paths below the data directory that are there and were counted.
    names: Vec<String>,
}

enum What {
    Ledger,
    Values(u64),
    Segment,
    Identity,
}

struct Found {
    name: String,
    path: PathBuf,
    what: What,
    bytes: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

/// Counts what was set aside in a data directory since this was called last, and deletes the oldest where there is too much. Call it before the store is
/// opened as well: a name that is gone may be given again. Blocks on the disk.
pub fn count(dir: &Path) -> SetAside {
    let path = dir.join(FILE);
    let text = fs::read(&path).unwrap_or_default();
    let mut found = find(dir);
    let names = |found: &[Found]| found.iter().map(|found| found.name.clone()).collect();
    let mut counted: Counted = match serde_json::from_slice(&text) {
        Ok(counted) => counted,
        Err(_) if text.is_empty() => Counted::default(),
        // One that is damaged begins anew, with another id. What is there was counted before: it is found damaged at the beginning of a start.
        Err(_) => Counted {
            names: names(&found),
            ..Counted::default()
        },
    };
    let before = std::mem::take(&mut counted.names);
    for Found { name, what, .. } in &found {
        if !before.contains(name) {
            let SetAside {
                ledgers,
                values,
                segments,
                identities,
                ..
            } = &mut counted.all;
            match what {
                What::Ledger => *ledgers += 1,
                What::Values(count) => *values += count,
                What::Segment => *segments += 1,
                What::Identity => *identities += 1,
            }
        }
        counted.names.push(name.clone());
    }
    let has_begun = text.is_empty() || !counted.all.id.is_empty();
    if has_begun && counted.names == before {
        return counted.all;
    }
    if counted.all.id.is_empty() {
        counted.all.id = format!("{:016x}", rand::random::<u64>());
    }
    // A structure of numbers and strings always has a JSON form.
    let json = serde_json::to_vec(&counted).unwrap_or_default();
    if let Err(error) = write_private(&path, &json) {
        // The next start counts them; said before that, they would be counted twice.
        tracing::warn!(%error, "what was set aside can not be counted");
        return serde_json::from_slice::<Counted>(&text)
            .unwrap_or_default()
            .all;
    }
    bound(&mut found);
    counted.all
}

/// The newest stay, whatever they are.
fn bound(found: &mut [Found]) {
    found.sort_by_key(|found| std::cmp::Reverse(found.changed));
    let mut kept = 0;
    for (n, found) in found.iter().enumerate() {
        kept += found.bytes;
        let removed = match found.what {
            What::Identity => continue,
            _ if n == 0 || kept <= limits::SET_ASIDE => continue,
            What::Ledger | What::Values(_) => fs::remove_dir_all(&found.path),
            What::Segment => fs::remove_file(&found.path),
        };
        match removed {
            Ok(()) => {
                tracing::warn!(path = %found.path.display(), "too much is set aside: the oldest is deleted");
            }
            Err(error) => {
                tracing::warn!(path = %found.path.display(), %error, "too much is set aside, and the oldest can not be deleted");
            }
        }
    }
}

/// In the order of their names.
fn find(dir: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for path in list(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if *name == *crate::identity::BROKEN {
            found.extend(one(dir, &path, What::Identity));
        } else if let Some(number) = name.strip_prefix("ledger.broken-")
            && number.parse::<u32>().is_ok()
        {
            found.extend(one(dir, &path, ledger_or_values(&path)));
        }
    }
    let store = dir.join("store");
    let mut logs = list(&store.join("outbox"));
    logs.push(store.join("inbox"));
    for log in logs {
        let broken = list(&log).into_iter();
        let broken = broken.filter(|path| path.to_string_lossy().ends_with(".seg.broken"));
        found.extend(broken.filter_map(|path| one(dir, &path, What::Segment)));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn ledger_or_values(path: &Path) -> What {
    use io::Read;
    let mut count = [0; 4];
    let file = fs::File::open(path.join(VALUES));
    match file.and_then(|mut file| file.read_exact(&mut count)) {
        Ok(()) => What::Values(u32::from_be_bytes(count).into()),
        Err(_) => What::Ledger,
    }
}

fn one(dir: &Path, path: &Path, what: What) -> Option<Found> {
    let name = path.strip_prefix(dir).ok()?.to_string_lossy().into_owned();
    let about = fs::metadata(path).ok()?;
    let inside = if about.is_dir() {
        list(path)
    } else {
        Vec::new()
    };
    let inside = inside.iter().filter_map(|path| fs::metadata(path).ok());
    Some(Found {
        name,
        path: path.to_owned(),
        what,
        bytes: about.len() + inside.map(|about| about.len()).sum::<u64>(),
        // Being given its name changes this, and not when it was modified.
        changed: (about.ctime(), about.ctime_nsec()),
    })
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once_and_the_oldest_go() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        assert_eq!(count(dir), SetAside::default());
        assert!(!dir.join(FILE).exists());
        let lane = dir.join("store/outbox/data");
        fs::create_dir_all(&lane).unwrap();
        fs::write(lane.join("1.seg"), "x").unwrap();
        fs::write(lane.join("2.seg.broken"), "x").unwrap();
        let ledger = dir.join("ledger.broken-0");
        fs::create_dir(&ledger).unwrap();
        let db = fs::File::create(ledger.join("db")).unwrap();
        db.set_len(limits::SET_ASIDE).unwrap();
        let first = count(dir);
        assert_eq!((first.ledgers, first.segments, first.values), (1, 1, 0));
        assert!(!first.id.is_empty());
        // After a restart, and where it was counted and the rest was not reached any more.
        assert_eq!(count(dir), first);

        // A name that is given again after it was gone is another one.
        fs::remove_dir_all(&ledger).unwrap();
        assert_eq!(count(dir), first);
        fs::create_dir(&ledger).unwrap();
        fs::write(ledger.join(VALUES), [0, 0, 0, 3, 9]).unwrap();
        fs::write(dir.join(crate::identity::BROKEN), "x").unwrap();
        let second = count(dir);
        let numbers = (second.ledgers, second.values, second.identities);
        assert_eq!((numbers, second.segments), ((1, 3, 1), 1));
        assert_eq!(second.id, first.id);

        // More than is kept: the newest stays.
        for n in 1..4 {
            let ledger = dir.join(format!("ledger.broken-{n}"));
            fs::create_dir(&ledger).unwrap();
            let db = fs::File::create(ledger.join("db")).unwrap();
            db.set_len(limits::SET_ASIDE / 2 + 1).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(count(dir).ledgers, 4);
        let left = (0..4).filter(|n| dir.join(format!("ledger.broken-{n}")).exists());
        assert_eq!(left.collect::<Vec<_>>(), [3]);
        assert!(lane.join("1.seg").exists() && dir.join(crate::identity::BROKEN).exists());
        assert_eq!(count(dir).ledgers, 4);

        fs::write(dir.join(FILE), "{").unwrap();
        let anew = count(dir);
        assert!(anew.id != first.id && !anew.id.is_empty());
        assert_eq!(
            (anew.ledgers, anew.values),
            (0, 0),
            "that was counted before"
        );
        fs::create_dir(dir.join("ledger.broken-9")).unwrap();
        let more = count(dir);
        assert_eq!((more.id, more.ledgers), (anew.id, 1));
    }
}
