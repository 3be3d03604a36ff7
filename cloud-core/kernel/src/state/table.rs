//! One table, and how many bytes it has: it is in memory, and whoever fills it for others has to know when to stop.

use bytes::Bytes;

use super::Shared;

#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    rows: Shared<Bytes, Bytes>,
    /// Of keys and values.
    bytes: u64,
}

fn row_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

impl Table {
    pub fn rows(&self) -> &Shared<Bytes, Bytes> {
        &self.rows
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn insert(&mut self, key: Bytes, value: Bytes) {
        self.bytes += row_bytes(&key, &value);
        if let Some(before) = self.rows.get(&key) {
            self.bytes -= row_bytes(&key, before);
        }
        self.rows.insert_mut(key, value);
    }

    /// Returns whether it was there.
    pub fn remove(&mut self, key: &Bytes) -> bool {
        let Some(before) = self.rows.get(key) else {
            return false;
        };
        self.bytes -= row_bytes(key, before);
        self.rows.remove_mut(key)
    }
}
