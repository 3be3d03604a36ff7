//! The patterns with wildcards, by level. Nodes are shared between snapshots; a change copies those on its path.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Level;

#[derive(Clone)]
pub(super) struct Node<T> {
    text: Arc<HashMap<Arc<str>, Arc<Node<T>>>>,
    one: Option<Arc<Node<T>>>,
    many: Option<Arc<Node<T>>>,
    targets: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node {
            text: Arc::default(),
            one: None,
            many: None,
            targets: Vec::new(),
        }
    }
}

/// A node, and how much of the name has been matched on the way to it.
struct Step<'a, T> {
    node: &'a Node<T>,
    at: usize,
    /// Wildcards here do not see this name.
    hidden: bool,
    after_many: bool,
}

impl<T: Clone + PartialEq> Node<T> {
    pub fn insert(&mut self, levels: &[Level<'_>], target: T) -> bool {
        let Some((first, rest)) = levels.split_first() else {
            let new = !self.targets.contains(&target);
            if new {
                self.targets.push(target);
            }
            return new;
        };
        let child = match first {
            Level::Text(text) => Arc::make_mut(&mut self.text)
                .entry((*text).into())
                .or_default(),
            Level::One => self.one.get_or_insert_default(),
            Level::Many => self.many.get_or_insert_default(),
        };
        Arc::make_mut(child).insert(rest, target)
    }

    pub fn remove(&mut self, levels: &[Level<'_>], target: &T) -> bool {
        let Some((first, rest)) = levels.split_first() else {
            let before = self.targets.len();
            self.targets.retain(|t| t != target);
            return self.targets.len() < before;
        };
        match first {
            Level::Text(text) => {
                let nodes = Arc::make_mut(&mut self.text);
                let Some(child) = nodes.get_mut(*text) else {
                    return false;
                };
                let child = Arc::make_mut(child);
                let removed = child.remove(rest, target);
                if child.is_empty() {
                    nodes.remove(*text);
                }
                removed
            }
            Level::One => remove_below(&mut self.one, rest, target),
            Level::Many => remove_below(&mut self.many, rest, target),
        }
    }

    fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.text.is_empty() && self.one.is_none() && self.many.is_none()
    }

    /// Adds the targets of all patterns below this node that match the levels. `hidden`: these are the first levels of a name that leading
    /// wildcards do not see.
    pub fn collect(&self, levels: &[&str], hidden: bool, found: &mut Vec<T>) {
        // A node has one path from the root, so only past a `many` can the same node be reached with the same rest of the name twice. There each
        // (node, rest) is looked at once: a pattern that fits in several ways is one match, and the work is bounded by nodes times levels.
        let mut seen = HashSet::new();
        let mut open = vec![Step {
            node: self,
            at: 0,
            hidden,
            after_many: false,
        }];
        while let Some(Step {
            node,
            at,
            hidden,
            after_many,
        }) = open.pop()
        {
            if after_many && !seen.insert((std::ptr::from_ref(node), at)) {
                continue;
            }
            if let Some(many) = node.many.as_deref().filter(|_| !hidden) {
                // None, one, two, ... all levels; where nothing follows only all of them can match.
                let ends = if many.is_leaf() {
                    levels.len()..=levels.len()
                } else {
                    at..=levels.len()
                };
                open.extend(ends.map(|at| Step {
                    node: many,
                    at,
                    hidden: false,
                    after_many: true,
                }));
            }
            let Some(text) = levels.get(at) else {
                found.extend(node.targets.iter().cloned());
                continue;
            };
            let one = node.one.as_deref().filter(|_| !hidden);
            let child = node.text.get(*text).map(|child| &**child);
            open.extend(one.into_iter().chain(child).map(|node| Step {
                node,
                at: at + 1,
                hidden: false,
                after_many,
            }));
        }
    }

    fn is_leaf(&self) -> bool {
        self.text.is_empty() && self.one.is_none() && self.many.is_none()
    }
}

fn remove_below<T: Clone + PartialEq>(
    child: &mut Option<Arc<Node<T>>>,
    rest: &[Level<'_>],
    target: &T,
) -> bool {
    let Some(node) = child else { return false };
    let node = Arc::make_mut(node);
    let removed = node.remove(rest, target);
    if node.is_empty() {
        *child = None;
    }
    removed
}
