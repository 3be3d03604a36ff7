//! The targets of one pattern: mostly one, sometimes tens of thousands.

use std::hash::Hash;

use rpds::HashTrieMapSync;

pub(crate) enum Targets<T> {
    None,
    One(T),
    /// At least two; one more copies a path, not the others.
    Many(HashTrieMapSync<T, ()>),
}

// Not derived: the map in it can be copied only with these bounds.
impl<T: Clone + Eq + Hash> Clone for Targets<T> {
    fn clone(&self) -> Self {
        match self {
            Targets::None => Targets::None,
            Targets::One(one) => Targets::One(one.clone()),
            Targets::Many(many) => Targets::Many(many.clone()),
        }
    }
}

impl<T: Clone + Eq + Hash> Targets<T> {
    /// False when it was there.
    pub fn insert(&mut self, target: T) -> bool {
        match self {
            Targets::None => *self = Targets::One(target),
            Targets::One(one) if *one == target => return false,
            Targets::One(one) => {
                let both = [one.clone(), target].into_iter().map(|t| (t, ()));
                *self = Targets::Many(both.collect());
            }
            Targets::Many(many) if many.contains_key(&target) => return false,
            Targets::Many(many) => many.insert_mut(target, ()),
        }
        true
    }

    /// False when it was not there.
    pub fn remove(&mut self, target: &T) -> bool {
        match self {
            Targets::One(one) if one == target => *self = Targets::None,
            Targets::None | Targets::One(_) => return false,
            Targets::Many(many) => {
                if !many.remove_mut(target) {
                    return false;
                }
                if many.size() == 1 {
                    let last = many.keys().next().cloned();
                    *self = last.map_or(Targets::None, Targets::One);
                }
            }
        }
        true
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Targets::None)
    }

    pub fn collect(&self, found: &mut Vec<T>) {
        match self {
            Targets::None => {}
            Targets::One(one) => found.push(one.clone()),
            Targets::Many(many) => found.extend(many.keys().cloned()),
        }
    }
}
