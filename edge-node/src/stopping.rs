//! An end of the process that comes also where the disk gives no answer any more: nothing waits for it for ever, neither systemd nor whoever is on site.

use std::sync::{Arc, Weak};
use std::thread;

use store::{Progress, Store};

use crate::limits;

/// From now on the process ends by itself, with a failure, when nothing of the store gets onto the disk for a while. A slow disk that gets on with it is
/// waited for. `store`: none while it is being opened.
///
/// On a thread of its own: those of the runtime may wait for the disk as well.
pub fn begin(store: Option<&Arc<Store>>) {
    let store = store.map(Arc::downgrade);
    let watched = thread::Builder::new()
        .name("stopping".into())
        .spawn(move || end(store.unwrap_or_default()));
    if let Err(error) = watched {
        tracing::warn!(%error, "the end is not watched: it may have to be waited for");
    }
}

fn end(store: Weak<Store>) {
    let look = || {
        store
            .upgrade()
            .map(|store| store.writers())
            .unwrap_or_default()
    };
    let mut before = look();
    loop {
        thread::sleep(limits::STOP);
        let now = look();
        if !has_moved(&before, &now) {
            break;
        }
        before = now;
    }
    let unwritten = store.upgrade().map(|store| store.unwritten());
    match unwritten {
        Some(unwritten) if unwritten.iter().any(|log| log.items > 0) => {
            for log in unwritten.iter().filter(|log| log.items > 0) {
                tracing::error!(
                    log = %log.log,
                    items = log.items,
                    bytes = log.bytes,
                    "the disk gives no answer: the edge ends, and this was not written (none of it was acknowledged)"
                );
            }
        }
        Some(_) => tracing::error!(
            "the edge ends without what else was to be done: nothing gets on. All that was taken is in the segments"
        ),
        None => tracing::error!(
            "the edge ends while its store is being opened or closed: the disk gives no answer"
        ),
    }
    std::process::exit(1);
}

fn has_moved(before: &[Progress], now: &[Progress]) -> bool {
    let mut both = before.iter().zip(now);
    both.any(|(before, now)| now.has_moved_since(before))
}
