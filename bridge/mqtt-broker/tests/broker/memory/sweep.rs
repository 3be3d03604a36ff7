//! Deletes its retained messages that have expired.

use super::Memory;
use bytes::Bytes;
use mqtt_broker::backend::{Message, StorageError};
use mqtt_broker::convert;
use mqtt_broker::sweeping::{Sweep, Sweeper};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

impl Sweep for Memory {
    fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }

    async fn delete_expired(&self) -> Result<usize, StorageError> {
        let slow = self.sweep_slow.load(Ordering::Relaxed);
        sleep(Duration::from_millis(slow)).await; // a real one waits for the disk here
        let now_ms = mqtt_broker::Backend::now_ms(self);
        let mut state = self.state();
        let before = state.retained.len();
        let read = |bytes: &Bytes| convert::decode_retained(bytes.clone());
        let goes = |bytes: &Bytes| read(bytes).is_some_and(|one| one.is_expired(now_ms));
        state.retained.retain(|_, bytes| !goes(bytes));
        Ok(before - state.retained.len())
    }

    fn lacks_room(&self, message: &Message) -> bool {
        let retained = &self.state().retained;
        let (topic, most) = (message.topic.as_str(), &self.retained_most);
        let is_full = retained.len() >= most.load(Ordering::Relaxed) || topic == "no-retained";
        message.retain && is_full && !retained.contains_key(topic)
    }
}
