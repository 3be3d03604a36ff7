//! The newest offset of each key in a piece of a log, in bounded memory: keys are known by 128 bits of their SHA-256. A hash that
//! nobody can aim at matters here, since two keys that were taken for one would lose a record.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// Memory of one key, in bytes: hash and offset, at the table's load in the middle between two growths.
const BYTES_PER_KEY: usize = 40;

type KeyHash = [u8; 16];

/// Newest offsets by key.
pub(crate) struct NewestOffsets {
    by_key: HashMap<KeyHash, i64>,
    most: usize,
    stretched: bool,
}

impl NewestOffsets {
    /// Takes about this much memory, at most.
    pub fn bounded(bytes: usize) -> NewestOffsets {
        NewestOffsets {
            by_key: HashMap::new(),
            most: (bytes / BYTES_PER_KEY).max(1),
            stretched: false,
        }
    }

    /// Whether it takes more than it has room for.
    pub fn stretch(&mut self, stretched: bool) {
        self.stretched = stretched;
    }

    /// Notes a record; false when it has no room for one more key (the record was not noted).
    pub fn note(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = hash(key);
        if !self.stretched && self.by_key.len() >= self.most && !self.by_key.contains_key(&hash) {
            return false;
        }
        let newest = self.by_key.entry(hash).or_insert(offset);
        *newest = offset.max(*newest);
        true
    }

    /// Whether a newer record of that key was noted.
    pub fn has_newer(&self, key: &[u8], offset: i64) -> bool {
        self.by_key
            .get(&hash(key))
            .is_some_and(|newest| *newest > offset)
    }
}

fn hash(key: &[u8]) -> KeyHash {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let mut hash = KeyHash::default();
    hash.copy_from_slice(&digest[..16]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_of_a_key_counts() {
        let mut newest = NewestOffsets::bounded(1 << 20);
        for (key, offset) in [("a", 1), ("b", 2), ("a", 7), ("a", 5)] {
            assert!(newest.note(key.as_bytes(), offset));
        }
        assert!(newest.has_newer(b"a", 5));
        assert!(!newest.has_newer(b"a", 7));
        assert!(!newest.has_newer(b"b", 2));
        assert!(!newest.has_newer(b"c", 0));
    }

    #[test]
    fn a_full_table_takes_known_keys_only() {
        let mut newest = NewestOffsets::bounded(2 * BYTES_PER_KEY);
        assert!(newest.note(b"a", 1) && newest.note(b"b", 2));
        assert!(!newest.note(b"c", 3));
        assert!(newest.note(b"a", 4));
        assert!(newest.has_newer(b"a", 1) && !newest.has_newer(b"c", 0));
    }
}
