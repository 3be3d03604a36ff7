//! All groups, and the timer of each.

use std::collections::HashMap;
use std::sync::Arc;

use kernel::{CursorName, Kernel};
use parking_lot::Mutex;
use record::Namespace;
use tokio::sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::Instant;

use super::cursor::{cursor_name, group_of};
use super::state::GroupState;
use crate::error_code;
use crate::limits;

/// Why there is no such group to speak to; an error code of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("error {0}")]
pub struct GroupRefused(pub i16);

/// A group in memory.
struct Group {
    timed: Mutex<Timed>,
    commits: RwLock<()>,
    changed: Notify,
}

struct Timed {
    state: GroupState,
    /// Whether a task waits for the state's next deadline.
    timer: bool,
}

/// Groups by id.
pub struct Coordinator {
    kernel: Kernel,
    namespace: Namespace,
    groups: Arc<Mutex<HashMap<String, Arc<Group>>>>,
}

/// A group in use. When the last use of an idle one ends, it leaves the memory.
#[derive(Clone)]
pub struct InUse {
    id: String,
    group: Arc<Group>,
    groups: Arc<Mutex<HashMap<String, Arc<Group>>>>,
}

impl Coordinator {
    pub fn new(kernel: Kernel, namespace: Namespace) -> Coordinator {
        Coordinator {
            kernel,
            namespace,
            groups: Arc::default(),
        }
    }

    /// The cursor that holds a group's positions.
    pub fn cursor(&self, group_id: &str) -> CursorName {
        cursor_name(&self.namespace, group_id)
    }

    /// Groups that have positions.
    pub fn with_positions(&self) -> Vec<String> {
        self.kernel
            .cursors()
            .iter()
            .filter_map(|cursor| group_of(&self.namespace, cursor))
            .map(str::to_owned)
            .collect()
    }

    /// The group, made if it is new.
    pub fn open(&self, group_id: &str) -> Result<InUse, GroupRefused> {
        if group_id.is_empty() || group_id.len() > limits::MAX_GROUP_ID {
            return Err(GroupRefused(error_code::INVALID_GROUP_ID));
        }
        let mut groups = self.groups.lock();
        let group = match groups.get(group_id) {
            Some(group) => group.clone(),
            None if groups.len() >= limits::MAX_GROUPS => {
                return Err(GroupRefused(error_code::COORDINATOR_NOT_AVAILABLE));
            }
            None => {
                let timed = Mutex::new(Timed {
                    state: GroupState::new(),
                    timer: false,
                });
                let group = Arc::new(Group {
                    timed,
                    commits: RwLock::new(()),
                    changed: Notify::new(),
                });
                groups.insert(group_id.to_owned(), group.clone());
                group
            }
        };
        Ok(self.in_use(group_id, group))
    }

    /// The group, if it is in memory.
    pub fn get(&self, group_id: &str) -> Option<InUse> {
        let group = self.groups.lock().get(group_id).cloned()?;
        Some(self.in_use(group_id, group))
    }

    /// All groups in memory, with their ids.
    pub fn all(&self) -> Vec<(String, InUse)> {
        let groups = self.groups.lock();
        groups
            .iter()
            .map(|(id, group)| (id.clone(), self.in_use(id, group.clone())))
            .collect()
    }

    fn in_use(&self, group_id: &str, group: Arc<Group>) -> InUse {
        InUse {
            id: group_id.to_owned(),
            group,
            groups: self.groups.clone(),
        }
    }
}

impl InUse {
    /// Looks at the group.
    pub fn look<T>(&self, look: impl FnOnce(&GroupState) -> T) -> T {
        look(&self.group.timed.lock().state)
    }

    /// Changes the group, and sees to its next deadline.
    pub fn change<T>(&self, change: impl FnOnce(&mut GroupState, Instant) -> T) -> T {
        let mut timed = self.group.timed.lock();
        let result = change(&mut timed.state, Instant::now());
        if timed.timer {
            self.group.changed.notify_one();
        } else if timed.state.poll_timeout().is_some() {
            timed.timer = true;
            tokio::spawn(keep_time(self.clone()));
        }
        result
    }

    /// Held while a commit is checked and on its way to the disk. Whoever must not overlook one waits in
    /// [`InUse::after_commits`]: so the new owner of a partition reads a position that has in it every commit that was,
    /// or still is to be, acknowledged to the old one.
    pub async fn committing(&self) -> RwLockReadGuard<'_, ()> {
        self.group.commits.read().await
    }

    /// Waits for the commits on their way, and keeps others back while it is held.
    pub async fn after_commits(&self) -> RwLockWriteGuard<'_, ()> {
        self.group.commits.write().await
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut groups = self.groups.lock();
        // A use begins under this lock or from another use: two owners left are the map and this.
        if Arc::strong_count(&self.group) == 2 && self.group.timed.lock().state.is_idle() {
            groups.remove(&self.id);
        }
    }
}

/// Wakes the group at its deadlines, until it has none.
async fn keep_time(group: InUse) {
    loop {
        let deadline = {
            let mut timed = group.group.timed.lock();
            let deadline = timed.state.poll_timeout();
            timed.timer = deadline.is_some();
            deadline
        };
        let Some(deadline) = deadline else { return };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => group.group.timed.lock().state.handle_timeout(Instant::now()),
            () = group.group.changed.notified() => {}
        }
    }
}
