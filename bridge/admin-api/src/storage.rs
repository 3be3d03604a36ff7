use serde::{Deserialize, Serialize};

/// Reply to `GET /v1/storage`: where the bytes are, and what waits to go where. Counters start at 0 with the process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    pub tail: TailStorage,
    pub wal: WalStorage,
    pub sealing: SealingStorage,
    pub cold: ColdStorage,
    pub cache: CacheStorage,
    pub checkpoints: CheckpointStorage,
    /// Bytes of batches appended.
    pub appended_bytes: u64,
    /// Bytes written for them: write-ahead log, segments (sealed, and rewritten by compaction and copy-forward) and checkpoints.
    pub written_bytes: u64,
    /// `written_bytes` / `appended_bytes`; none before the first append.
    pub write_amplification: Option<f64>,
    /// The verification that runs, or the last one since the start.
    pub verification: Option<Verification>,
}

/// Recent batches in memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TailStorage {
    pub bytes: u64,
    pub limit_bytes: u64,
    /// Batches read from memory, and from elsewhere.
    pub hits: u64,
    pub misses: u64,
}

/// The write-ahead log: everything that is not sealed yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WalStorage {
    /// On disk.
    pub bytes: u64,
    /// The most it may take.
    pub limit_bytes: u64,
    pub files: u64,
    pub written_bytes: u64,
    pub syncs: u64,
    /// Wait to be written.
    pub queued_entries: u64,
    pub queued_bytes: u64,
    /// For how long the disk has not answered the write or sync that it has now; 0 when it has none.
    pub device_silent_ms: u64,
    /// From when on writes are refused for that.
    pub device_silent_limit_ms: u64,
    /// There is no room: writes are held back, or refused, until something is sealed or deleted.
    pub held_back: bool,
    /// Why no write is accepted any more, if so.
    pub failed: Option<String>,
}

/// The way from the write-ahead log to the cold store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SealingStorage {
    /// Bytes of batches that are in no segment yet: what is lost with the disk when the cold store is elsewhere.
    pub unsealed_bytes: u64,
    /// Age of the oldest of them; 0 without any.
    pub unsealed_age_ms: u64,
    /// Sealing is due at so many bytes, or at that age.
    pub due_bytes: u64,
    pub due_age_ms: u64,
    /// Bytes of segments written.
    pub written_bytes: u64,
    /// Bytes of batches in the segment that is due; 0 while none is. They are not in the cold store before the last of them is there.
    pub upload_lag_bytes: u64,
    /// Bytes of that segment that have been sent, its header included.
    pub upload_sent_bytes: u64,
    /// How long ago its first attempt began; 0 while none is due.
    pub upload_lag_ms: u64,
    /// Attempts that failed; each is made again.
    pub failures: u64,
    /// Why the newest one failed; none after one that did not.
    pub last_error: Option<String>,
}

/// The cold store: sealed segments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColdStorage {
    /// Where it is; no secrets are in it.
    pub location: String,
    /// Name of this log in it; none until something was sealed for the first time.
    pub log: Option<String>,
    /// Newest epoch that this data directory took.
    pub epoch: u32,
    /// Another core took the store over with a copy of this data directory: this one does not write to it any more.
    pub fenced: bool,
    pub segments: u64,
    pub bytes: u64,
    /// Bytes of batches in them that can still be read.
    pub live_bytes: u64,
    /// Bytes of segments that compaction and copy-forward wrote.
    pub rewritten_bytes: u64,
}

/// What is kept here of segments that were read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStorage {
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    /// On disk, for remote stores only.
    pub disk_bytes: u64,
    pub disk_limit_bytes: u64,
    /// Chunks found in memory, on disk, on their way already, and nowhere.
    pub memory_hits: u64,
    pub disk_hits: u64,
    pub joined: u64,
    pub misses: u64,
    /// Requests to the cold store, and bytes that it gave.
    pub requests: u64,
    pub read_bytes: u64,
    /// Chunks whose checksum was wrong at the first attempt.
    pub damaged: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointStorage {
    /// Written since the start.
    pub written: u64,
    pub written_bytes: u64,
}

/// Body of `POST /v1/storage/verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartVerification {
    /// Most bytes to read in a second; none: the core's default.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
}

/// Reply to `GET` and `POST /v1/storage/verify`: a verification of everything that is stored, and what it has found so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    pub state: VerificationState,
    pub started_ms: i64,
    #[serde(default)]
    pub ended_ms: Option<i64>,
    /// What there is to read; it may shrink while it runs, when retention removes some.
    pub total_bytes: u64,
    pub done_bytes: u64,
    /// What it is at.
    #[serde(default)]
    pub now: String,
    /// In the order found; at most 1000.
    #[serde(default)]
    pub damage: Vec<Damage>,
    /// Damaged places found, those included that are not listed.
    pub damaged: u64,
    /// Why it failed, if so.
    #[serde(default)]
    pub error: Option<String>,
}

impl Verification {
    /// One that has just begun, at milliseconds since the epoch.
    pub fn begun(started_ms: i64) -> Verification {
        Verification {
            state: VerificationState::Running,
            started_ms,
            ended_ms: None,
            total_bytes: 0,
            done_bytes: 0,
            now: String::new(),
            damage: Vec::new(),
            damaged: 0,
            error: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationState {
    Running,
    /// Everything was looked at.
    Done,
    Cancelled,
    Failed,
}

/// A damaged place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// A file in the data directory, or an object of the cold store.
    pub place: String,
    /// Position in it, and bytes from there on; none: the whole.
    #[serde(default)]
    pub at: Option<u64>,
    #[serde(default)]
    pub bytes: Option<u64>,
    pub reason: String,
    /// Which records it holds that can not be read; empty: none that anybody could still ask for.
    #[serde(default)]
    pub records: Vec<DamagedRecords>,
}

/// Offsets of a partition, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedRecords {
    pub namespace: String,
    pub stream: String,
    pub partition: u32,
    pub first_offset: i64,
    pub last_offset: i64,
}

/// Reply to `POST /v1/storage/seal`, when everything that was there before it is sealed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// Bytes of segments written since the request came.
    pub written_bytes: u64,
    /// What is in the write-ahead log alone now: written meanwhile.
    pub unsealed_bytes: u64,
}
