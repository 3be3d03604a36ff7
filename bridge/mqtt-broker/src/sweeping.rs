//! Retained messages that have expired are deleted: nobody is given them any more, and they would take the room of others for ever. A host that stores
//! retained messages goes through them now and then, and when one more finds no room.

use crate::backend::{Backend, Message, StorageError};
use crate::limits;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// A host that stores retained messages.
pub trait Sweep: Backend {
    fn sweeper(&self) -> &Sweeper;

    /// Deletes those that have expired, some at a time, so that nobody waits for all of them; one that takes the place of another meanwhile stays. Gives
    /// how many went. Dropped before its end it has deleted some.
    fn delete_expired(&self) -> impl Future<Output = Result<usize, StorageError>> + Send;

    /// Would this one be refused because of those that are there?
    fn lacks_room(&self, message: &Message) -> bool;
}

/// Whose turn it is to go through them, and how the last time was.
#[derive(Debug, Default)]
pub struct Sweeper(Mutex<Option<Swept>>);

#[derive(Clone, Copy, Debug)]
struct Swept {
    ended: Instant,
    took: Duration,
}

impl Swept {
    fn until_now(began: Instant) -> Swept {
        let ended = Instant::now();
        Swept {
            ended,
            took: ended - began,
        }
    }

    /// Where there are many of them, and no room for more, it would be done all the time.
    fn is_too_recent(&self) -> bool {
        self.ended.elapsed() < self.took * limits::SWEEP_REST
    }
}

/// Sweeps until it is dropped.
pub async fn run<B: Sweep>(backend: &B) {
    let mut pause = limits::SWEEP_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let mut last = backend.sweeper().0.lock().await;
        let swept = sweep(backend).await;
        *last = Some(swept);
        pause = limits::SWEEP_EVERY.max(swept.took * limits::SWEEP_SHARE);
    }
}

/// For [`Backend::make_retained_room`]. Who publishes does nothing else meanwhile, so it takes no longer than [`limits::SWEEP_WAIT`]: what was deleted
/// by then has made room, and [`run`] deletes the rest.
pub async fn make_room<B: Sweep>(backend: &B, message: &Message) {
    if !backend.lacks_room(message) {
        return;
    }
    let began = Instant::now();
    let until = began + limits::SWEEP_WAIT;
    // Of who has the turn for longer it is not waited for.
    let Ok(mut last) = timeout_at(until, backend.sweeper().0.lock()).await else {
        return;
    };
    // Who had the turn before may have made room.
    if last.is_none_or(|last| !last.is_too_recent()) && backend.lacks_room(message) {
        let swept = timeout_at(until, sweep(backend)).await;
        *last = Some(swept.unwrap_or_else(|_| Swept::until_now(began)));
    }
}

async fn sweep<B: Sweep>(backend: &B) -> Swept {
    let began = Instant::now();
    match backend.delete_expired().await {
        Ok(0) => {}
        Ok(deleted) => tracing::debug!(deleted, "retained messages have expired"),
        Err(error) => {
            tracing::warn!(%error, "retained messages that have expired could not be deleted; trying again");
        }
    }
    Swept::until_now(began)
}
