//! Objects of a cold store in memory, by hand.

use std::pin::pin;

use bytes::Bytes;
use kernel::ports::{ColdStore, MemoryColdStore};
use sim::stepped::poll;

/// Names that contain this, in their order.
pub fn names(cold: &MemoryColdStore, part: &str) -> Vec<String> {
    let objects = poll(pin!(cold.list(""))).unwrap().unwrap();
    let names = objects.into_iter().map(|object| object.key);
    let mut names: Vec<String> = names.filter(|name| name.contains(part)).collect();
    names.sort_unstable();
    names
}

pub fn get(cold: &MemoryColdStore, name: &str) -> Bytes {
    let size = poll(pin!(cold.size(name))).unwrap().unwrap();
    poll(pin!(cold.get(name, 0..size))).unwrap().unwrap()
}

/// Deletes it, and returns what it was.
pub fn take(cold: &MemoryColdStore, name: &str) -> Bytes {
    let bytes = get(cold, name);
    poll(pin!(cold.delete(name))).unwrap().unwrap();
    bytes
}

pub fn put(cold: &MemoryColdStore, name: &str, bytes: Bytes) {
    poll(pin!(cold.create(name, bytes))).unwrap().unwrap();
}

/// Another store with the same objects.
pub fn copy(cold: &MemoryColdStore) -> MemoryColdStore {
    let other = MemoryColdStore::default();
    for name in names(cold, "") {
        put(&other, &name, get(cold, &name));
    }
    other
}
