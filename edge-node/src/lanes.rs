//! The lanes of the outbox, `[[lane]]`: what is set, and whether it makes sense together.

use std::time::Duration;

use settings::{Rate, Section, SettingsError, Size, choices, settings};

use crate::limits;

choices! {
    /// What a full lane does.
    pub enum Evict {
        /// The oldest messages go, and are reported to the core as a gap.
        Oldest = "oldest",
        /// What comes is not kept, and is reported to the core as a gap.
        Newest = "newest",
        /// What comes is refused: the device keeps it and tries again.
        Reject = "reject",
    }
}

choices! {
    /// How batches of a lane are compressed, once, for the disk, the link and the consumers alike.
    pub enum Compression {
        None = "none",
        Lz4 = "lz4",
        Zstd = "zstd",
    }
}

settings! {
    pub struct LaneSettings {
        pub name: String;
        pub priority: u8 = "4";
        pub size: Option<Size>;
        pub age: Option<Duration>;
        pub evict: Evict = "reject";
        pub compression: Compression = "none";
        pub link_compression: bool = "false";
        pub linger: Duration = "0s";
        pub fresh_first: bool = "false";
        pub rate: Option<Rate>;
    }
}

/// One lane as it is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    pub name: String,
    /// 0 to 9; the highest goes first.
    pub priority: u8,
    /// Most bytes on the disk, of a fresh-first lane those of both logs.
    pub size: u64,
    /// Messages older than this go.
    pub age: Option<Duration>,
    pub evict: Evict,
    pub compression: Compression,
    pub link_compression: bool,
    /// How long a message may wait for others, to be stored and sent with them.
    pub linger: Duration,
    pub fresh_first: bool,
    /// Most bytes a second on the link.
    pub rate: Option<u64>,
}

/// The priority of a lane where none is set.
pub const PRIORITY: u8 = 4;
/// The lane where none is configured.
pub const DEFAULT: &str = "data";
/// What the second log of a fresh-first lane is called after its lane.
pub const BACKFILL: &str = ".backfill";
/// Names of logs that are no lanes.
const RESERVED: [&str; 3] = [store::LOCAL, "inbox", "outbox"];

impl From<Evict> for store::Eviction {
    fn from(evict: Evict) -> store::Eviction {
        match evict {
            Evict::Oldest => store::Eviction::Oldest,
            Evict::Newest => store::Eviction::Newest,
            Evict::Reject => store::Eviction::Reject,
        }
    }
}

impl From<Compression> for record::Compression {
    fn from(compression: Compression) -> record::Compression {
        match compression {
            Compression::None => record::Compression::None,
            Compression::Lz4 => record::Compression::Lz4,
            Compression::Zstd => record::Compression::Zstd,
        }
    }
}

impl Lane {
    fn default_of(outbox_size: Size) -> Lane {
        Lane {
            name: DEFAULT.to_owned(),
            priority: PRIORITY,
            size: outbox_size.bytes(),
            age: None,
            evict: Evict::Reject,
            compression: Compression::None,
            link_compression: false,
            linger: Duration::ZERO,
            fresh_first: false,
            rate: None,
        }
    }
}

/// The lane of the configuration that a log of the outbox belongs to; none: it was taken out.
pub fn of_log<'a>(lanes: &'a [Lane], log: &str) -> Option<&'a Lane> {
    let backfill = log.strip_suffix(BACKFILL);
    lanes.iter().find(|lane| match backfill {
        Some(name) => lane.fresh_first && lane.name == name,
        None => lane.name == log,
    })
}

/// The lanes in the order of the file; never none. The first is the one of everything that no rule gives another.
pub fn lanes(
    sections: &[Section<LaneSettings>],
    outbox_size: Size,
) -> Result<Vec<Lane>, SettingsError> {
    if sections.is_empty() {
        return Ok(vec![Lane::default_of(outbox_size)]);
    }
    let mut lanes: Vec<Lane> = Vec::new();
    let mut logs = 0;
    for section in sections {
        let set = &section.settings;
        if let Err(reason) = check_name(&set.name) {
            return Err(section.wrong_key("name", reason));
        }
        if lanes.iter().any(|lane| lane.name == set.name) {
            return Err(section.wrong_key("name", "another lane has this name"));
        }
        if set.priority > limits::MAX_PRIORITY {
            return Err(section.wrong_key("priority", "expected 0 to 9; the highest goes first"));
        }
        let size = set.size.unwrap_or(outbox_size).bytes();
        if size < limits::MIN_LANE {
            let least = Size(limits::MIN_LANE);
            let key = if set.size.is_some() {
                "size"
            } else {
                "outbox-size"
            };
            return Err(section.wrong_key(key, format!("a lane needs {least} at least")));
        }
        if set.age.is_some_and(|age| age < limits::MIN_AGE) {
            return Err(section.wrong_key("age", "expected 1s at least"));
        }
        if set.link_compression && set.compression != Compression::None {
            return Err(section.wrong_key(
                "link-compression",
                "batches that `compression` has compressed do not get smaller on the link: set one of the two",
            ));
        }
        if set.linger > limits::MAX_LINGER {
            return Err(section.wrong_key(
                "linger",
                "expected 10s at most: devices wait so long for their acknowledgements",
            ));
        }
        logs += 1 + usize::from(set.fresh_first);
        if logs > limits::MAX_LOGS {
            return Err(section.wrong(format!(
                "one lane too many: there can be {} logs, and a lane with fresh-first is two",
                limits::MAX_LOGS
            )));
        }
        lanes.push(Lane {
            name: set.name.clone(),
            priority: set.priority,
            size,
            age: set.age,
            evict: set.evict,
            compression: set.compression,
            link_compression: set.link_compression,
            linger: set.linger,
            fresh_first: set.fresh_first,
            rate: set.rate.map(Rate::bytes_per_second),
        });
    }
    Ok(lanes)
}

/// It becomes the name of a directory, of metrics, and of rows in the core.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > limits::MAX_LANE_NAME || !name.chars().all(allowed) {
        return Err(format!(
            "expected 1 to {} of a-z, 0-9, - and _",
            limits::MAX_LANE_NAME
        ));
    }
    if RESERVED.contains(&name) {
        return Err("this name is taken by a log of the edge's own".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;
    use settings::Flags;

    use super::*;
    use crate::config::EdgeSettings;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        flags: Flags<EdgeSettings>,
    }

    fn read(text: &str) -> Result<Vec<Lane>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(format!("data-dir = '/x'\noutbox-size = '1GiB'\n{text}").as_bytes())
            .unwrap();
        let args = ["x".as_ref(), "--config".as_ref(), file.path().as_os_str()];
        let loaded = Args::parse_from(args).flags.load_with(|_| None);
        let settings = loaded.map_err(|error| error.to_string())?.settings;
        lanes(&settings.lane, settings.outbox_size).map_err(|error| error.to_string())
    }

    #[test]
    fn without_any_there_is_one() {
        let lanes = read("").unwrap();
        assert_eq!(lanes, [Lane::default_of(Size(1 << 30))]);
        assert_eq!(
            (lanes[0].name.as_str(), lanes[0].evict),
            ("data", Evict::Reject)
        );
    }

    #[test]
    fn every_key_arrives() {
        let lanes = read(
            "[[lane]]\nname = 'alarms'\npriority = 9\n[[lane]]\nname = 'bulk'\npriority = 1\nsize = '64MiB'\nage = '7d'\n\
             evict = 'oldest'\ncompression = 'zstd'\nlinger = '50ms'\nfresh-first = true\nrate = '1Mbit/s'\n",
        );
        let lanes = lanes.unwrap();
        let alarms = Lane {
            name: "alarms".into(),
            priority: 9,
            ..Lane::default_of(Size(1 << 30))
        };
        let bulk = Lane {
            name: "bulk".into(),
            priority: 1,
            size: 64 << 20,
            age: Some(Duration::from_secs(7 * 86_400)),
            evict: Evict::Oldest,
            compression: Compression::Zstd,
            link_compression: false,
            linger: Duration::from_millis(50),
            fresh_first: true,
            rate: Some(125_000),
        };
        assert_eq!(lanes, [alarms, bulk]);
    }

    #[test]
    fn mistakes_are_told() {
        let many = |n: usize| {
            (0..n)
                .map(|n| format!("[[lane]]\nname = 'l{n}'\nfresh-first = {}\n", n == 0))
                .collect::<String>()
        };
        assert_eq!(read(&many(14)).unwrap().len(), 14);
        for (text, expected) in [
            (
                "[[lane]]\nname = 'a'\n[[lane]]\nname = 'a'",
                "line 6: another lane has this name",
            ),
            (
                "[[lane]]\nname = 'Bulk data'",
                "expected 1 to 32 of a-z, 0-9, - and _",
            ),
            (
                "[[lane]]\nname = 'local'",
                "taken by a log of the edge's own",
            ),
            (
                "[[lane]]\nname = 'a'\npriority = 10",
                "expected 0 to 9; the highest goes first",
            ),
            (
                "[[lane]]\nname = 'a'\nsize = '1MiB'",
                "a lane needs 16MiB at least",
            ),
            ("[[lane]]\nname = 'a'\nage = '10ms'", "expected 1s at least"),
            (
                "[[lane]]\nname = 'a'\ncompression = 'lz4'\nlink-compression = true",
                "set one of the two",
            ),
            (&many(15), "one lane too many: there can be 15 logs"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
