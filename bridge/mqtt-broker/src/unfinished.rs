//! Room for large packets of which a part has come: all connections together have so much and no more. Who has got it has it for the whole packet,
//! and nobody waits for it: a packet that was begun can come to its end.

use crate::connection::End;
use crate::limits;
use mqtt_codec::{Decoder, ReasonCode};
use mqtt_session::Close;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that are left.
#[derive(Debug)]
pub(crate) struct Room(AtomicUsize);

/// There is none for one more packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl From<NoRoom> for End {
    fn from(_: NoRoom) -> End {
        let text = "there is no room for so large a packet while others are under way";
        Close::new(ReasonCode::QUOTA_EXCEEDED, text).into()
    }
}

#[derive(Debug)]
struct Part {
    room: Arc<Room>,
    bytes: usize,
    by: Instant,
}

/// What a connection has of it. A pointer: most never have any.
#[derive(Debug, Default)]
pub(crate) struct Unfinished(Option<Box<Part>>);

impl Room {
    /// One packet that is allowed always fits.
    pub fn new(bytes: usize, largest: usize) -> Arc<Room> {
        Arc::new(Room(AtomicUsize::new(bytes.max(largest))))
    }

    fn take(self: &Arc<Room>, bytes: usize) -> Option<Box<Part>> {
        let take = |left: usize| left.checked_sub(bytes);
        let (taken, given) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(taken, given, take).ok()?;
        // Otherwise a few that send a byte now and then would have all of it for ever.
        let seconds = (bytes / limits::SLOWEST_PACKET) as u64;
        let by = Instant::now() + limits::READ_STALL + Duration::from_secs(seconds);
        let room = self.clone();
        Some(Box::new(Part { room, bytes, by }))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

impl Unfinished {
    /// When all of the packet has to be there.
    pub fn by(&self) -> Option<Instant> {
        self.0.as_ref().map(|part| part.by)
    }

    /// After each read: for what begins in `input`, and no more for what was taken out of it.
    pub fn note(
        &mut self,
        room: &Arc<Room>,
        decoder: &Decoder,
        input: &[u8],
    ) -> Result<(), NoRoom> {
        let is_large = |size: &usize| *size > limits::UNFINISHED_FREE;
        let size = Some(input).filter(|input| is_large(&input.len()));
        let size = size.and_then(|input| decoder.next_size(input));
        let size = size.filter(is_large);
        // One that is whole by now and waits for its turn keeps what it has.
        if size == self.0.as_ref().map(|part| part.bytes) {
            return Ok(());
        }
        self.0 = None;
        if let Some(size) = size.filter(|size| *size > input.len()) {
            self.0 = Some(room.take(size).ok_or(NoRoom)?);
        }
        Ok(())
    }
}
