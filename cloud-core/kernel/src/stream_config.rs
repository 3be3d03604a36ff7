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
    /// One or more of these, separated by commas.
    AnyOf(&'static [&'static str]),
    /// A number from 0 to 1.
    Ratio,
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

/// What happens to old records: `delete` (age and size), `compact` (only the newest record of each key stays), or both.
pub const CLEANUP_POLICY: &str = "cleanup.policy";
/// Milliseconds for which compaction keeps a deletion (a null value) after what it deleted is gone.
pub const DELETE_RETENTION_MS: &str = "delete.retention.ms";
/// Age in milliseconds before which compaction leaves records alone.
pub const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
/// Share of bytes that was never compacted from which on compaction is worth it.
pub const MIN_CLEANABLE_DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";

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
    StreamSetting {
        name: CLEANUP_POLICY,
        default: "delete",
        values: SettingValues::AnyOf(&["delete", "compact"]),
        about: "What happens to old records: delete (by age and size), compact (the newest record of each key stays), or both.",
    },
    StreamSetting {
        name: DELETE_RETENTION_MS,
        default: "86400000",
        values: SettingValues::Number(0),
        about: "Milliseconds for which compaction keeps a deletion (a null value).",
    },
    StreamSetting {
        name: MIN_COMPACTION_LAG_MS,
        default: "0",
        values: SettingValues::Number(0),
        about: "Age in milliseconds before which compaction leaves records alone.",
    },
    StreamSetting {
        name: MIN_CLEANABLE_DIRTY_RATIO,
        default: "0.5",
        values: SettingValues::Ratio,
        about: "Share of bytes that was never compacted from which on compaction is worth it.",
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
            SettingValues::AnyOf(allowed)
                if value.split(',').all(|one| allowed.contains(&one.trim())) =>
            {
                Ok(())
            }
            SettingValues::AnyOf(allowed) => Err(format!("some of {}", allowed.join(","))),
            SettingValues::Ratio
                if value.parse::<f64>().is_ok_and(|v| (0.0..=1.0).contains(&v)) =>
            {
                Ok(())
            }
            SettingValues::Ratio => Err("a number from 0 to 1".to_owned()),
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

    /// `retention.ms`: age in milliseconds past which batches go; `None` = never, or a policy without `delete`.
    pub fn retention_ms(&self) -> Option<i64> {
        self.number(RETENTION_MS)
            .filter(|age| *age >= 0 && self.has_policy("delete"))
    }

    /// `retention.settled`: records go that every queue which reads them has settled.
    pub fn trims_settled(&self) -> bool {
        self.config
            .get(RETENTION_SETTLED)
            .is_some_and(|v| v == "true")
    }

    /// `retention.bytes`: bytes kept in each partition; `None` = no bound, or a policy without `delete`.
    pub fn retention_bytes(&self) -> Option<u64> {
        self.number(RETENTION_BYTES)
            .filter(|_| self.has_policy("delete"))
            .and_then(|bytes| u64::try_from(bytes).ok())
    }

    fn has_policy(&self, policy: &str) -> bool {
        let set = self
            .config
            .get(CLEANUP_POLICY)
            .map_or("delete", String::as_str);
        set.split(',').any(|one| one.trim() == policy)
    }

    /// `cleanup.policy` names `compact`.
    pub fn is_compacted(&self) -> bool {
        self.has_policy("compact")
    }

    /// `cleanup.policy` names `delete`: records go by age, size and by wish.
    pub fn is_deleted_from(&self) -> bool {
        self.has_policy("delete")
    }

    /// `delete.retention.ms`.
    pub fn delete_retention_ms(&self) -> i64 {
        self.number(DELETE_RETENTION_MS).unwrap_or(86_400_000)
    }

    /// `min.compaction.lag.ms`.
    pub fn min_compaction_lag_ms(&self) -> i64 {
        self.number(MIN_COMPACTION_LAG_MS).unwrap_or(0)
    }

    /// `min.cleanable.dirty.ratio`.
    pub fn min_cleanable_dirty_ratio(&self) -> f64 {
        let set = self.config.get(MIN_CLEANABLE_DIRTY_RATIO);
        set.and_then(|ratio| ratio.parse().ok()).unwrap_or(0.5)
    }
}
