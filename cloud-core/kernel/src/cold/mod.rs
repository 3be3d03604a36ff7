//! The kernel's side of the cold store: who owns it ([`claim`]), how records get there ([`seal`]), how they are read from there
//! ([`read`], [`chunks`], by way of [`cache`]), what is deleted ([`tend`]), and how a data directory is made from it ([`restore`]).

mod cache;
#[cfg(test)]
mod cache_tests;
mod chunks;
mod claim;
mod disk_tier;
mod memory_tier;
mod read;
mod readers;
mod restore;
mod seal;
mod streams;
mod tend;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::config::KernelConfig;
use crate::error::ColdTierError;
use crate::ports::Ports;
use crate::segment::SegmentId;
use crate::wal::writer::Written;

pub use cache::ColdCacheStats;
pub(crate) use chunks::{ChunkError, Chunks, Located};
pub(crate) use claim::{Claim, Owner};
pub(crate) use read::ColdReadError;
use readers::Readers;
pub use restore::{RestoreError, Restored, restore};
pub(crate) use seal::Sealing;
pub(crate) use tend::Tending;

/// What an open kernel knows of the cold store besides the state.
pub(crate) struct ColdTier {
    pub chunks: Arc<Chunks>,
    pub readers: Readers,
    pub claim: tokio::sync::Mutex<Claim>,
    /// Another data directory owns the store: this one never writes to it again.
    pub fenced: AtomicBool,
    /// A segment whose upload was interrupted by an error and goes on at the next call.
    pub sealing: tokio::sync::Mutex<Option<Sealing>>,
    pub tending: tokio::sync::Mutex<Tending>,
    /// Generation of the streams of which the list is in the store.
    pub streams_kept: tokio::sync::Mutex<Option<u64>>,
    in_flight: Arc<Mutex<BTreeSet<SegmentId>>>,
    pub sealed_bytes: AtomicU64,
    /// Bytes of segments that compaction and copy-forward wrote.
    pub rewritten_bytes: AtomicU64,
    /// What sealing is bringing to the store, or tries to.
    pub uploading: Mutex<Option<Uploading>>,
    pub failures: AtomicU64,
    pub last_error: Mutex<Option<String>>,
}

impl ColdTier {
    pub fn new(ports: &Ports, config: &KernelConfig, log: &Arc<Written>) -> ColdTier {
        ColdTier {
            chunks: Arc::new(Chunks::new(ports, config, log)),
            readers: Readers::default(),
            claim: tokio::sync::Mutex::new(Claim::Open),
            fenced: AtomicBool::new(false),
            sealing: tokio::sync::Mutex::new(None),
            tending: tokio::sync::Mutex::default(),
            streams_kept: tokio::sync::Mutex::default(),
            in_flight: Arc::default(),
            sealed_bytes: AtomicU64::new(0),
            rewritten_bytes: AtomicU64::new(0),
            uploading: Mutex::new(None),
            failures: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// Keeps for people what went wrong.
    pub fn failed(&self, error: &ColdTierError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(error.to_string());
    }

    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Segments that are being written, and that nobody may take for orphans.
    pub fn is_in_flight(&self, id: SegmentId) -> bool {
        self.in_flight.lock().contains(&id)
    }

    /// Marks a segment as being written, until the value is dropped.
    pub fn take_off(&self, log: Uuid, id: SegmentId) -> InFlight {
        self.in_flight.lock().insert(id);
        InFlight {
            log,
            id,
            all: self.in_flight.clone(),
        }
    }
}

/// A segment that is due, and how far its upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uploading {
    /// Bytes of its batches.
    pub bytes: u64,
    /// Bytes of the segment that the store has taken.
    pub sent: u64,
    /// When the first attempt began, by [`crate::ports::Clock::monotonic_us`].
    pub since_us: u64,
}

/// A segment that is being written: until the state names it nobody may delete it.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub log: Uuid,
    pub id: SegmentId,
    all: Arc<Mutex<BTreeSet<SegmentId>>>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}
