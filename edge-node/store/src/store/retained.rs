//! Retained messages: what there is, and what goes because its time has passed.

use record::Envelope;

use super::Store;
use crate::apply::{Retained, decode_retained};
use crate::ledger::{Change, Ledger, LedgerError, RowSum, Table};
use crate::limits;

/// What time it is, for what expires.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub ms: i64,
    /// The start by whose clock that is, while the time is not known. What another clock has stamped is not judged by it.
    pub blind: Option<u64>,
}

impl Now {
    fn is_after(&self, retained: &Retained) -> bool {
        let expires_at = Envelope::from_record(&retained.record).expires_at;
        retained.blind == self.blind && expires_at.is_some_and(|at| at <= self.ms)
    }
}

impl Store {
    /// Retained messages whose key begins with `prefix`, in the order of keys, until `visit` returns false.
    pub fn retained(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(Retained) -> bool,
    ) -> Result<(), LedgerError> {
        let ledger = &self.inner.ledger;
        ledger.scan(Table::Retained, prefix.as_bytes(), &mut |key, value| {
            match decode_retained(key, value, |boot| self.inner.boots.of(boot)) {
                Some(retained) => visit(retained),
                None => {
                    tracing::warn!(key = %String::from_utf8_lossy(key), "a retained message can not be read");
                    true
                }
            }
        })
    }

    /// How many there are, and their bytes.
    pub fn retained_sum(&self) -> RowSum {
        self.inner.retained.get()
    }

    /// Bytes of the one under this key, if there is one.
    pub fn retained_bytes(&self, key: &str) -> Result<Option<u64>, LedgerError> {
        let ledger = &self.inner.ledger;
        let value = ledger.value_len(Table::Retained, key.as_bytes())?;
        Ok(value.map(|value| (key.len() + value) as u64))
    }

    /// Deletes the retained messages that have expired, as long as `goes_on` says so, and gives how many. What replaces one meanwhile stays. Of the logs
    /// nothing goes: whoever has the message from there lets it expire by himself. Blocks on the disk; survives a power cut after the next checkpoint,
    /// and what is there again then has expired.
    pub fn delete_expired(
        &self,
        now: Now,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<usize, LedgerError> {
        let mut deleted = 0;
        loop {
            let (keys, is_all) = self.expired(now, goes_on)?;
            for some in keys.chunks(limits::EXPIRED_AT_ONCE) {
                if !goes_on() {
                    return Ok(deleted);
                }
                deleted += self.delete_if_expired(some, now)?;
            }
            if is_all {
                return Ok(deleted);
            }
        }
    }

    /// The keys of the first ones, and whether that are all.
    fn expired(
        &self,
        now: Now,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(Vec<Vec<u8>>, bool), LedgerError> {
        let (mut keys, mut bytes, mut is_all) = (Vec::new(), 0, true);
        let inner = &self.inner;
        inner.ledger.scan(Table::Retained, b"", &mut |key, value| {
            let retained = decode_retained(key, value, |boot| inner.boots.of(boot));
            if retained.is_some_and(|retained| now.is_after(&retained)) {
                bytes += key.len();
                keys.push(key.to_vec());
            }
            is_all = bytes < limits::EXPIRED_KEYS;
            is_all && goes_on()
        })?;
        Ok((keys, is_all))
    }

    /// Whoever applies what is in the logs waits meanwhile: what is found expired here is deleted as it was found.
    fn delete_if_expired(&self, keys: &[Vec<u8>], now: Now) -> Result<usize, LedgerError> {
        let inner = &self.inner;
        let applied = inner.applied.lock();
        if applied.failed {
            return Err(LedgerError("it did not take a change".into()));
        }
        let mut changes = Vec::new();
        for key in keys {
            let value = inner.ledger.get(Table::Retained, key)?;
            let retained =
                value.and_then(|value| decode_retained(key, value, |boot| inner.boots.of(boot)));
            if retained.is_some_and(|retained| now.is_after(&retained)) {
                let (table, key) = (Table::Retained, key.clone());
                changes.push(Change::Delete { table, key });
            }
        }
        let deleted = changes.len();
        if deleted > 0 {
            inner.retained.apply(&*inner.ledger, changes)?;
        }
        Ok(deleted)
    }
}
