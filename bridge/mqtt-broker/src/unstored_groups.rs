//! Shared subscriptions to topics that are never stored: each message goes to one member that is connected, in turn; to who waits for its
//! client only when all do.

use crate::backend::SharedMessage;
use crate::mailbox::Mailbox;
use mqtt_codec::TopicFilter;
use parking_lot::Mutex;
use router::{Dialect, PatternError, Router};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Group {
    pub share: TopicFilter,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    all: Vec<Arc<Mailbox>>,
    next: usize,
}

impl PartialEq for Group {
    fn eq(&self, other: &Group) -> bool {
        self.share == other.share
    }
}

impl Eq for Group {}

impl Hash for Group {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.share.hash(state);
    }
}

impl Group {
    /// Who gets which of these.
    pub fn deal(
        &self,
        messages: &[Arc<SharedMessage>],
    ) -> Vec<(Arc<Mailbox>, Vec<Arc<SharedMessage>>)> {
        let mut members = self.members.lock();
        let free = members.all.iter().filter(|one| !one.is_blocked());
        let mut chosen: Vec<_> = free.map(|one| (one.clone(), Vec::new())).collect();
        if chosen.is_empty() {
            let all = members.all.iter();
            chosen = all.map(|one| (one.clone(), Vec::new())).collect();
        }
        let count = chosen.len();
        for message in messages {
            members.next = members.next.wrapping_add(1);
            if let Some((_, own)) = members
                .next
                .checked_rem(count)
                .and_then(|at| chosen.get_mut(at))
            {
                own.push(message.clone());
            }
        }
        chosen.retain(|(_, own)| !own.is_empty());
        chosen
    }
}

pub(crate) struct Groups {
    /// By the filter behind the group's name.
    router: Router<Arc<Group>>,
    /// By the whole filter, `$share/...`. Joining and leaving go one after the other.
    all: Mutex<HashMap<TopicFilter, Arc<Group>>>,
}

impl Default for Groups {
    fn default() -> Groups {
        Groups {
            router: Router::new(Dialect::SLASHED),
            all: Mutex::default(),
        }
    }
}

impl Groups {
    pub fn router(&self) -> &Router<Arc<Group>> {
        &self.router
    }

    pub fn join(&self, share: &TopicFilter, mailbox: &Arc<Mailbox>) -> Result<(), PatternError> {
        let Some((_, filter)) = share.share() else {
            return Ok(()); // SUBSCRIBE refuses it
        };
        let mut all = self.all.lock();
        if let Some(group) = all.get(share) {
            group.members.lock().all.push(mailbox.clone());
            return Ok(());
        }
        let members = Members {
            all: vec![mailbox.clone()],
            next: 0,
        };
        let group = Arc::new(Group {
            share: share.clone(),
            members: Mutex::new(members),
        });
        self.router.insert(filter.as_str(), group.clone())?;
        all.insert(share.clone(), group);
        Ok(())
    }

    pub fn get(&self, share: &TopicFilter) -> Option<Arc<Group>> {
        self.all.lock().get(share).cloned()
    }

    pub fn leave(&self, share: &TopicFilter, mailbox: &Arc<Mailbox>) {
        let mut all = self.all.lock();
        let Some(group) = all.get(share).cloned() else {
            return;
        };
        let mut members = group.members.lock();
        members.all.retain(|one| one.id() != mailbox.id());
        if members.all.is_empty() {
            all.remove(share);
            if let Some((_, filter)) = share.share() {
                self.router.remove(filter.as_str(), &group);
            }
        }
    }
}
