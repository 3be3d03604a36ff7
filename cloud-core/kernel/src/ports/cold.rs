//! The cold store: objects that are written once and read in ranges. Local directories, S3 and the like are all the same to the kernel.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;

/// What a cold store answers with.
pub type ColdFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ColdError>> + Send + 'a>>;

/// Objects by key. Keys have `/` between their parts. An object never changes: it is there whole, or not at all.
///
/// Durability: an object survives a crash once [`ColdStore::create`] or [`Upload::finish`] has returned `Ok`. After an error it may be
/// there or not. A listing may lag behind creations, never behind what it listed before.
pub trait ColdStore: Send + Sync {
    /// Creates a small object; [`ColdError::Exists`] if there is one of that key, which is then unchanged.
    fn create(&self, key: &str, bytes: Bytes) -> ColdFuture<'_, ()>;
    /// Begins a large object. Nobody sees it before [`Upload::finish`].
    fn upload(&self, key: &str) -> ColdFuture<'_, Box<dyn Upload>>;
    /// Bytes of an object; a range past its end is an error. Where at most [`ALONE_BYTES`] are asked for, nothing is to be read ahead.
    fn get(&self, key: &str, range: Range<u64>) -> ColdFuture<'_, Bytes>;
    /// Size of an object in bytes.
    fn size(&self, key: &str) -> ColdFuture<'_, u64>;
    /// Objects whose key begins with `prefix` (which ends with `/`, or is empty: all objects), in any order.
    fn list(&self, prefix: &str) -> ColdFuture<'_, Vec<ColdObject>>;
    /// Deletes an object; one that is not there is no error.
    fn delete(&self, key: &str) -> ColdFuture<'_, ()>;
    /// Whether reads are cheap (a local directory, memory) so that nothing need be cached on the disk.
    fn is_local(&self) -> bool;
    /// Where it is, for people, without secrets.
    fn location(&self) -> String;
}

/// An object that is being written.
pub trait Upload: Send {
    /// Writes the next part: at least [`MIN_PART_BYTES`] unless it is the last. After an error the same part may be given again.
    fn part(&mut self, bytes: Vec<Bytes>) -> ColdFuture<'_, ()>;
    /// Makes the object durable and visible. May be called again after an error.
    fn finish(&mut self) -> ColdFuture<'_, ()>;
    /// Gives up, and frees what the store holds.
    fn abort(&mut self) -> ColdFuture<'_, ()>;
}

/// Most bytes of a request that is to keep its device for as short as can be: a sync of the log, on the same device, waits for it.
pub const ALONE_BYTES: u64 = 128 * 1024;

/// Smallest part of an upload that is not the last, in bytes (S3's limit).
pub const MIN_PART_BYTES: usize = 5 * 1024 * 1024;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdObject {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, by the store's clock, milliseconds since the epoch.
    pub written_at: i64,
}

/// Why the cold store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColdError {
    /// There is no object of that key.
    #[error("there is no object {0}")]
    NotFound(String),
    /// There is an object of that key.
    #[error("object {0} exists")]
    Exists(String),
    /// It may work later: network, timeout, throttling, no room.
    #[error("the cold store failed: {0}")]
    Unavailable(String),
    /// It will not work by itself: credentials, missing bucket, a bad range.
    #[error("the cold store refuses: {0}")]
    Refused(String),
}

/// Runs what nobody waits for.
pub trait Spawner: Send + Sync {
    /// Runs the task some time, beside others.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>);
}

impl fmt::Debug for dyn ColdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.location())
    }
}
