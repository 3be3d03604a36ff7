//! `$exclusive/{filter}`: one session may subscribe to a filter in this way, any other is refused with 0x97. The session keeps
//! it while it lives, connected or not.

use crate::backend::ClientId;
use mqtt_codec::TopicFilter;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The filter behind `$exclusive/`; `Some(None)`: there is none that is valid.
pub fn exclusive(filter: &TopicFilter) -> Option<Option<TopicFilter>> {
    let inner = filter.as_str().strip_prefix("$exclusive/")?;
    let inner = TopicFilter::new(inner).ok();
    Some(inner.filter(|inner| !inner.as_str().starts_with('$')))
}

#[derive(Debug, Default)]
pub(crate) struct Exclusives(Mutex<HashMap<TopicFilter, ClientId>>);

impl Exclusives {
    /// `false`: another session has it.
    pub fn take(&self, filter: &TopicFilter, client: &ClientId) -> bool {
        match self.0.lock().entry(filter.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(client.clone());
                true
            }
            Entry::Occupied(entry) => entry.get() == client,
        }
    }

    pub fn release(&self, filter: &TopicFilter, client: &ClientId) {
        let mut all = self.0.lock();
        if all.get(filter) == Some(client) {
            all.remove(filter);
        }
    }
}
