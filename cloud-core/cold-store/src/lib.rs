//! Where sealed segments go: a local directory, S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, or memory.
//!
//! [`open`] takes one URL and gives the kernel's port [`ColdStore`]. This is the only crate that names `object_store`. What it adds to it:
//! a directory whose objects are durable when they are said to be ([`directory`](self)), uploads whose parts and end can be repeated,
//! creations whose lost answer is found out, one bounded way to retry, and errors that say which store, what went wrong and what to do.
//!
//! Credentials come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`), never from the URL, and are in no message.

#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod check;
mod directory;
mod directory_upload;
mod error;
pub mod limits;
mod place;
mod remote;
mod remote_open;
mod remote_upload;
mod retry;

use std::path::Path;
use std::sync::Arc;

use kernel::ports::ColdStore;

pub use check::{Checked, check};
pub use error::OpenError;
pub use place::Place;
pub use retry::Patience;

/// What [`ColdStore::location`] says of a store in memory.
pub const MEMORY: &str = "memory:";

/// Opens a directory, which is made if it is missing.
pub fn open_directory(path: &Path) -> Result<Arc<dyn ColdStore>, OpenError> {
    let store = directory::DirectoryStore::open(path.to_owned())?;
    Ok(Arc::new(store))
}

/// Opens the store that a URL names. Touches no network: whether it answers is seen by [`check`].
pub fn open(url: &str, patience: Patience) -> Result<Arc<dyn ColdStore>, OpenError> {
    match Place::parse(url)? {
        Place::Directory(path) => open_directory(&path),
        place => remote_open::open(place, patience),
    }
}
