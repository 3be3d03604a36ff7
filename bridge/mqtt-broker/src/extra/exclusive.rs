//! `$exclusive/{filter}`: one session may subscribe to a filter in this way, any other is refused with 0x97. The session keeps
//! it while it lives, connected or not.

use crate::backend::ClientId;
use mqtt_codec::TopicFilter;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The filter behind `$exclusive/`; `Some(None)`: there is none that is valid, or a group wants it for itself.
pub fn exclusive(filter: &TopicFilter) -> Option<Option<TopicFilter>> {
    let text = filter.as_str();
    let of_group = filter.share();
    let inner = of_group.as_ref().map_or(text, |(_, inner)| inner.as_str());
    let rest = inner.strip_prefix("$exclusive")?;
    let inner = match rest.strip_prefix('/') {
        Some(inner) => TopicFilter::new(inner).ok(),
        None if rest.is_empty() => None,
        None => return None,
    };
    let sound = |inner: &TopicFilter| of_group.is_none() && !inner.as_str().starts_with('$');
    Some(inner.filter(sound))
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
