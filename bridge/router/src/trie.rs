//! The patterns with wildcards, by level. Nodes are shared between snapshots; a change copies those on its path.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use crate::pattern::Level;
use crate::targets::Targets;

pub(crate) struct Node<T> {
    /// `None` instead of an empty map: most nodes are leaves.
    text: Option<Children<T>>,
    one: Option<Arc<Node<T>>>,
    many: Option<Arc<Node<T>>>,
    targets: Targets<T>,
}

type Children<T> = HashTrieMapSync<Arc<str>, Arc<Node<T>>>;

impl<T: Clone + Eq + Hash> Clone for Node<T> {
    fn clone(&self) -> Self {
        Node {
            text: self.text.clone(),
            one: self.one.clone(),
            many: self.many.clone(),
            targets: self.targets.clone(),
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node {
            text: None,
            one: None,
            many: None,
            targets: Targets::None,
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

impl<T: Clone + Eq + Hash> Node<T> {
    pub fn insert(&mut self, levels: &[Level<'_>], target: T) -> bool {
        let Some((first, rest)) = levels.split_first() else {
            return self.targets.insert(target);
        };
        let child = match first {
            Level::Text(text) => {
                let nodes = self.text.get_or_insert_default();
                if let Some(child) = nodes.get_mut(*text) {
                    return Arc::make_mut(child).insert(rest, target);
                }
                let mut child = Node::default();
                let new = child.insert(rest, target);
                nodes.insert_mut((*text).into(), Arc::new(child));
                return new;
            }
            Level::One => self.one.get_or_insert_default(),
            Level::Many => self.many.get_or_insert_default(),
        };
        Arc::make_mut(child).insert(rest, target)
    }

    pub fn remove(&mut self, levels: &[Level<'_>], target: &T) -> bool {
        let Some((first, rest)) = levels.split_first() else {
            return self.targets.remove(target);
        };
        match first {
            Level::Text(text) => {
                let Some(nodes) = &mut self.text else {
                    return false;
                };
                let Some(child) = nodes.get_mut(*text) else {
                    return false;
                };
                let child = Arc::make_mut(child);
                let removed = child.remove(rest, target);
                if child.is_empty() {
                    nodes.remove_mut(*text);
                    if nodes.is_empty() {
                        self.text = None;
                    }
                }
                removed
            }
            Level::One => remove_below(&mut self.one, rest, target),
            Level::Many => remove_below(&mut self.many, rest, target),
        }
    }

    fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.text.is_none() && self.one.is_none() && self.many.is_none()
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
                node.targets.collect(found);
                continue;
            };
            let one = node.one.as_deref().filter(|_| !hidden);
            let child = node.text.as_ref().and_then(|nodes| nodes.get(*text));
            let child = child.map(|child| &**child);
            open.extend(one.into_iter().chain(child).map(|node| Step {
                node,
                at: at + 1,
                hidden: false,
                after_many,
            }));
        }
    }

    fn is_leaf(&self) -> bool {
        self.text.is_none() && self.one.is_none() && self.many.is_none()
    }
}

fn remove_below<T: Clone + Eq + Hash>(
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
