//! Going through tables that have as many rows as there are clients or topics.

use bytes::Bytes;
use kernel::TableRows;

use crate::limits;

/// What `keep` makes of the rows. Others have their turns meanwhile: a long table takes much longer than a task may keep its thread.
pub async fn kept<K>(rows: TableRows, mut keep: impl FnMut((Bytes, Bytes)) -> Option<K>) -> Vec<K> {
    let mut kept = Vec::new();
    for (number, row) in (1usize..).zip(rows) {
        kept.extend(keep(row));
        if number.is_multiple_of(limits::ROWS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    kept
}
