//! Parts in memory, least recently used gone first.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::cache::PartKey;

/// A bounded number of bytes.
pub(crate) struct MemoryTier {
    limit: usize,
    bytes: usize,
    parts: HashMap<PartKey, (u64, Bytes)>,
    /// By the time of the last use.
    order: BTreeMap<u64, PartKey>,
    uses: u64,
}

impl MemoryTier {
    pub fn new(limit: usize) -> MemoryTier {
        MemoryTier {
            limit,
            bytes: 0,
            parts: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn contains(&self, key: &PartKey) -> bool {
        self.parts.contains_key(key)
    }

    pub fn get(&mut self, key: &PartKey) -> Option<Bytes> {
        let (used, bytes) = self.parts.get_mut(key)?;
        let order = self.order.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.order.extend(order.map(|key| (self.uses, key)));
        Some(bytes.clone())
    }

    /// What is larger than the whole is not kept.
    pub fn insert(&mut self, key: PartKey, bytes: Bytes) {
        if bytes.len() > self.limit || self.contains(&key) {
            return;
        }
        while self.bytes + bytes.len() > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some((_, gone)) = self.parts.remove(&oldest) {
                self.bytes -= gone.len();
            }
        }
        self.uses += 1;
        self.bytes += bytes.len();
        self.order.insert(self.uses, key.clone());
        self.parts.insert(key, (self.uses, bytes));
    }
}
