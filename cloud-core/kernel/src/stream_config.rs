//! The settings of a stream that the kernel enforces: one table, which front ends show and check by. Names are those that Kafka's
//! users know, where there are such.

use crate::stream::Stream;

/// What a setting may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingValues {
    /// A whole number, at least this.
    Number(i64),
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct StreamSetting {
    /// Its key in [`Stream::config`].
    pub name: &'static str,
    /// What holds when it is not set.
    pub default: &'static str,
    /// What it may be.
    pub values: SettingValues,
    /// What it does, with units.
    pub about: &'static str,
}

/// Age in milliseconds past which batches are deleted; -1 = never.
pub const RETENTION_MS: &str = "retention.ms";
/// Bytes kept in each partition; -1 = no bound.
pub const RETENTION_BYTES: &str = "retention.bytes";

/// When a record counts as written.
pub const DURABILITY: &str = "durability";

/// When a record counts as written; the later, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// At once: it is in memory only, with the newest records of all streams, and the oldest go first when there is no room for all.
    Memory,
    /// When the system has it, on all replicas that count: it survives the end of the process, not of the machine. What is not on the disk
    /// yet gets there within about a second.
    Quorum,
    /// When it is on the disk of all replicas that count.
    #[default]
    QuorumFsync,
}

impl Durability {
    const NAMES: [(&'static str, Durability); 3] = [
        ("quorum+fsync", Durability::QuorumFsync),
        ("quorum", Durability::Quorum),
        ("memory", Durability::Memory),
    ];

    /// As it is written in a stream's configuration.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, class)| *class == self);
        found.map_or("", |(name, _)| name)
    }
}

/// Whether records go that every queue which reads them has settled.
pub const RETENTION_SETTLED: &str = "retention.settled";

/// All settings that the kernel enforces.
pub const STREAM_SETTINGS: &[StreamSetting] = &[
    StreamSetting {
        name: RETENTION_MS,
        default: "-1",
        values: SettingValues::Number(-1),
        about: "Age in milliseconds after which records are deleted; -1: never.",
    },
    StreamSetting {
        name: RETENTION_BYTES,
        default: "-1",
        values: SettingValues::Number(-1),
        about: "Bytes kept of each partition; -1: no bound.",
    },
    StreamSetting {
        name: DURABILITY,
        default: "quorum+fsync",
        values: SettingValues::OneOf(&["quorum+fsync", "quorum", "memory"]),
        about: "When a record is acknowledged. quorum+fsync: when it is on the disk; quorum: when the system has it, so that a power cut may \
                take the last second; memory: at once, records are never on the disk, a restart takes them all, and the oldest go first when \
                the memory for recent records is full.",
    },
    StreamSetting {
        name: RETENTION_SETTLED,
        default: "false",
        values: SettingValues::OneOf(&["false", "true"]),
        about: "true: records are deleted once all queues that read them have settled them and all groups with a position are past them.",
    },
];

impl StreamSetting {
    /// The setting of that name, if the kernel enforces it.
    pub fn find(name: &str) -> Option<&'static StreamSetting> {
        STREAM_SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Whether it can be set to this; else what it may be.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self.values {
            SettingValues::Number(least) if value.parse::<i64>().is_ok_and(|v| v >= least) => {
                Ok(())
            }
            SettingValues::Number(least) => Err(format!("a whole number, at least {least}")),
            SettingValues::OneOf(allowed) if allowed.contains(&value) => Ok(()),
            SettingValues::OneOf(allowed) => Err(format!("one of {}", allowed.join(" "))),
        }
    }
}

impl Stream {
    fn number(&self, name: &str) -> Option<i64> {
        self.config.get(name).and_then(|value| value.parse().ok())
    }

    /// `durability`.
    pub fn durability(&self) -> Durability {
        let set = self.config.get(DURABILITY);
        let found = set.and_then(|set| Durability::NAMES.iter().find(|(name, _)| name == set));
        found.map_or(Durability::default(), |(_, class)| *class)
    }

    /// `retention.ms`: age in milliseconds past which batches go; `None` = never.
    pub fn retention_ms(&self) -> Option<i64> {
        self.number(RETENTION_MS).filter(|age| *age >= 0)
    }

    /// `retention.settled`: records go that every queue which reads them has settled.
    pub fn trims_settled(&self) -> bool {
        self.config
            .get(RETENTION_SETTLED)
            .is_some_and(|v| v == "true")
    }

    /// `retention.bytes`: bytes kept in each partition; `None` = no bound.
    pub fn retention_bytes(&self) -> Option<u64> {
        self.number(RETENTION_BYTES)
            .and_then(|bytes| u64::try_from(bytes).ok())
    }
}
