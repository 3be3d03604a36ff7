//! A start on a file system that is full to the last block waits for room: what is stored stays, and nobody has to come and start the edge again.

use std::path::PathBuf;

use anyhow::Result;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::limits;

/// Calls `open`, which blocks on the disk, until it does not fail for want of room in `dir`.
pub async fn open_with_room<T: Send + 'static>(
    dir: PathBuf,
    open: impl Fn() -> Result<T> + Clone + Send + 'static,
) -> Result<T> {
    let mut said = false;
    loop {
        match spawn_blocking(open.clone()).await? {
            Err(error) if store::lacks_room(&dir) => {
                if !said {
                    let error = format!("{error:#}");
                    tracing::error!(dir = %dir.display(), error, "there is no room on the file system: the edge starts when there is");
                    said = true;
                }
                sleep(limits::ROOM_PAUSE).await;
            }
            result => return result,
        }
    }
}
