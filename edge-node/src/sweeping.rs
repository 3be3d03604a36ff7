//! Retained messages that have expired leave the ledger. That is no message to anybody: the core has its own, with the same time, and deletes it itself.

use mqtt_broker::backend::{Message, StorageError};
use mqtt_broker::sweeping::{self, Sweep, Sweeper};
use store::Now;
use tokio_util::sync::CancellationToken;

use crate::backend::{EdgeBackend, failed};

impl EdgeBackend {
    /// Deletes retained messages that have expired, until `stop`.
    pub async fn sweep_retained(&self, stop: CancellationToken) {
        stop.run_until_cancelled(sweeping::run(self)).await;
    }
}

impl Sweep for EdgeBackend {
    fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }

    async fn delete_expired(&self) -> Result<usize, StorageError> {
        let store = self.store.clone();
        let stamp = self.outbox.clock.stamp();
        let now = Now {
            ms: stamp.ms,
            blind: stamp.blind,
        };
        // It is not waited for any more: who needed room has waited long enough, or the edge stops.
        let waited_for = CancellationToken::new();
        let gone = waited_for.clone();
        let _waits = waited_for.drop_guard();
        let deleting = move || store.delete_expired(now, &|| !gone.is_cancelled());
        let deleted = tokio::task::spawn_blocking(deleting).await;
        deleted.map_err(failed)?.map_err(failed)
    }

    fn lacks_room(&self, message: &Message) -> bool {
        self.retained_room.lacks(message, self)
    }
}
