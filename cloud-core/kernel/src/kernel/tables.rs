//! Reading the tables.

use std::ops::Bound;

use bytes::Bytes;

use super::Kernel;
use crate::state::Shared;

/// Rows that are looked up together: to find where they go on takes about as long as to read a few.
const TOGETHER: usize = 128;

/// Rows of a table as they were when it was made, by key. It has no lock, and may be kept while others write.
#[derive(Debug)]
pub struct TableRows {
    rows: Shared<Bytes, Bytes>,
    prefix: Bytes,
    /// Where those after `found` begin; `None`: there are no more.
    from: Option<Bound<Bytes>>,
    found: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl Iterator for TableRows {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        if let Some(row) = self.found.next() {
            return Some(row);
        }
        let from = (self.from.take()?, Bound::Unbounded);
        let rows = self.rows.range(from);
        let found: Vec<(Bytes, Bytes)> = rows
            .take_while(|(key, _)| key.starts_with(&self.prefix))
            .take(TOGETHER)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if let Some((last, _)) = found.get(TOGETHER - 1) {
            self.from = Some(Bound::Excluded(last.clone()));
        }
        self.found = found.into_iter();
        self.found.next()
    }
}

impl Kernel {
    /// A table as it is now. A pointer is copied and no row: the writer, and with it all who write anything, waits while a table is locked.
    fn table(&self, table: &str) -> Shared<Bytes, Bytes> {
        let tables = self.core.state.tables.read();
        let rows = tables.get(table).map(|table| table.rows().clone());
        rows.unwrap_or_else(Shared::new_sync)
    }

    /// A value of a table.
    pub fn table_get(&self, table: &str, key: &[u8]) -> Option<Bytes> {
        let tables = self.core.state.tables.read();
        tables.get(table)?.rows().get(key).cloned()
    }

    /// Keys that begin with `prefix`, with their values, by key, one after the other: for tables of any length.
    pub fn table_rows(&self, table: &str, prefix: impl Into<Bytes>) -> TableRows {
        let prefix = prefix.into();
        TableRows {
            rows: self.table(table),
            from: Some(Bound::Included(prefix.clone())),
            prefix,
            found: Vec::new().into_iter(),
        }
    }

    /// Keys that begin with `prefix`, with their values, by key.
    pub fn table_scan(&self, table: &str, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let prefix = Bytes::copy_from_slice(prefix);
        self.table_rows(table, prefix).collect()
    }

    /// The first of the keys that begin with `prefix`, with their values, by key; at most `most`.
    pub fn table_first(&self, table: &str, prefix: &[u8], most: usize) -> Vec<(Bytes, Bytes)> {
        let prefix = Bytes::copy_from_slice(prefix);
        self.table_rows(table, prefix).take(most).collect()
    }

    /// Number of keys in a table.
    pub fn table_len(&self, table: &str) -> usize {
        let tables = self.core.state.tables.read();
        tables.get(table).map_or(0, |table| table.rows().size())
    }

    /// Bytes of the keys and values of a table: at least so much memory.
    pub fn table_bytes(&self, table: &str) -> u64 {
        let tables = self.core.state.tables.read();
        tables.get(table).map_or(0, |table| table.bytes())
    }
}
