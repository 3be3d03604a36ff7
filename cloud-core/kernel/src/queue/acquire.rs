//! Handing records out.

use std::sync::atomic::Ordering;

use record::Record;

use super::leases::Inner;
use super::{Acquired, HolderId, Queue};

/// Records on their way to a holder. Whoever drops it before its end, because nobody waits for them any more, puts them back.
struct Acquisition<'a> {
    queue: &'a Queue,
    holder: HolderId,
    /// Among those of its holder; see [`Inner::acquiring`].
    number: u64,
    taken: Vec<Acquired>,
}

impl Acquisition<'_> {
    /// What was taken; nothing if the holder was released meanwhile, and with it all of this.
    fn finish(mut self) -> Vec<Acquired> {
        let taken = std::mem::take(&mut self.taken);
        let now = self.queue.stop_watch_ms();
        let mut inner = self.queue.inner.lock();
        if inner.end_acquisition(self.holder, self.number) {
            inner.hand_out(taken.iter().map(|taken| taken.id), now);
            taken
        } else {
            Vec::new()
        }
    }
}

impl Drop for Acquisition<'_> {
    fn drop(&mut self) {
        let mut inner = self.queue.inner.lock();
        inner.end_acquisition(self.holder, self.number);
        let taken = self.taken.iter();
        let released = taken.filter(|taken| inner.take_back(taken.id)).count();
        drop(inner);
        if released > 0 {
            self.queue.changed.notify_waiters();
        }
    }
}

impl Queue {
    /// Takes up to `max_records` records, of `max_bytes` in keys, values and headers together (at least one), for `holder`,
    /// in commit order over all sources. Empty when nothing is ready.
    ///
    /// Looks first through what was committed before the call, so that a record whose write has been acknowledged is seen.
    ///
    /// It counts as the holder's from the call on: if [`Queue::release_holder`] comes before its answer, the answer is empty, and nothing of it
    /// stays with the holder, nor counts as delivered. So it is if the future is dropped before its end: what was taken is put back, without an answer to settle it by.
    pub fn acquire(
        &self,
        holder: HolderId,
        max_records: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Vec<Acquired>> + Send + '_ {
        let acquisition = Acquisition {
            queue: self,
            holder,
            number: self.inner.lock().begin_acquisition(holder),
            taken: Vec::new(),
        };
        self.take_for(acquisition, max_records, max_bytes)
    }

    async fn take_for(
        &self,
        mut acquisition: Acquisition<'_>,
        max_records: usize,
        max_bytes: usize,
    ) -> Vec<Acquired> {
        self.tend().await;
        let mut heads = self.gate.lock().await;
        self.kernel.begin_deliveries().await;
        let mut bytes = 0;
        while acquisition.taken.len() < max_records && !self.is_deleted() {
            let Some(id) = self.next_ready(&mut heads).await else {
                break;
            };
            let Ok((record, stream)) = self.record(id).await else {
                continue;
            };
            bytes += size(&record);
            if bytes > max_bytes && !acquisition.taken.is_empty() {
                break;
            }
            // Nobody would write down that it was handed out.
            if self.kernel.core.stopping.load(Ordering::Acquire) {
                break;
            }
            let taken = {
                let mut inner = self.inner.lock();
                if !inner.is_acquiring(acquisition.holder, acquisition.number) {
                    break;
                }
                inner.take(id, acquisition.holder)
            };
            let Some((count, uncertain)) = taken else {
                continue;
            };
            let redelivered = uncertain || count > 1;
            if redelivered {
                self.counts.redelivered.fetch_add(1, Ordering::Relaxed);
            }
            acquisition.taken.push(Acquired {
                id,
                record,
                stream,
                redelivered,
                delivery_count: count,
            });
        }
        acquisition.finish()
    }

    /// Puts back everything `holder` has, and everything that is on its way to it (see [`Queue::acquire`]); returns how many records. The
    /// number may be used again at once.
    pub fn release_holder(&self, holder: HolderId) -> usize {
        let released = self.inner.lock().release_holder(holder);
        if released > 0 {
            self.changed.notify_waiters();
        }
        released
    }
}

impl Inner {
    /// A holder asks for records; returns the number by which it is known that they are still wanted.
    fn begin_acquisition(&mut self, holder: HolderId) -> u64 {
        self.acquisitions += 1;
        let acquiring = self.acquiring.entry(holder).or_default();
        acquiring.push(self.acquisitions);
        self.acquisitions
    }

    fn is_acquiring(&self, holder: HolderId, number: u64) -> bool {
        let acquiring = self.acquiring.get(&holder);
        acquiring.is_some_and(|numbers| numbers.contains(&number))
    }

    /// False if the holder was released meanwhile.
    fn end_acquisition(&mut self, holder: HolderId, number: u64) -> bool {
        let Some(numbers) = self.acquiring.get_mut(&holder) else {
            return false;
        };
        let before = numbers.len();
        numbers.retain(|other| *other != number);
        let ended = numbers.len() < before;
        if numbers.is_empty() {
            self.acquiring.remove(&holder);
        }
        ended
    }
}

/// Bytes of a record as far as its owner put them there.
pub(super) fn size(record: &Record) -> usize {
    let headers = record
        .headers
        .iter()
        .map(|h| h.name.len() + h.value.as_ref().map_or(0, bytes::Bytes::len));
    record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len)
        + headers.sum::<usize>()
}
