//! Places for those who wait, of which no source can have all.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

pub(crate) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One of them; free again when dropped.
pub(crate) struct Place<'a> {
    places: &'a Places,
    from: Option<IpAddr>,
}

impl Places {
    pub fn new(most: usize) -> Places {
        Places {
            most,
            taken: Mutex::default(),
        }
    }

    /// A source may have as many as are left: alone half of them, and whoever comes after it finds some. `None`: it has them.
    pub fn enter(&self, from: Option<IpAddr>) -> Option<Place<'_>> {
        let mut taken = self.taken.lock();
        let left = self.most.saturating_sub(taken.all);
        let own = from.and_then(|from| taken.of.get(&from).copied());
        if own.unwrap_or(0) >= left {
            return None;
        }
        taken.all += 1;
        if let Some(from) = from {
            *taken.of.entry(from).or_default() += 1;
        }
        Some(Place { places: self, from })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let Some(from) = self.from else { return };
        if let Some(own) = taken.of.get_mut(&from) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.of.remove(&from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_leaves_places_for_others() {
        let places = Places::new(8);
        let from = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let enter = |source: Option<IpAddr>| {
            let found: Vec<_> = std::iter::from_fn(|| places.enter(source)).collect();
            found
        };
        let first = enter(from(1));
        let second = enter(from(2));
        let third = enter(from(3));
        assert_eq!((first.len(), second.len(), third.len()), (4, 2, 1));
        // Of those whose source is not known it can not be said who has how many.
        let local = enter(None);
        assert_eq!(local.len(), 1);
        assert!(places.enter(from(4)).is_none());
        drop((first, second, third, local));
        let taken = places.taken.lock();
        assert!(taken.all == 0 && taken.of.is_empty());
    }
}
