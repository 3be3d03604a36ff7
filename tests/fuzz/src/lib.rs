//! Every decoder of bytes from outside, as one function each that takes any bytes and must neither panic, hang nor take much memory.
//! Where something is read, it must survive being written and read again. `tests/mutations.rs` calls them in every `cargo test`;
//! `fuzz/` is what `tests/fuzz/run` runs (README.md).

mod batches;
mod connections;
mod disk;
mod frames;
mod methods;
mod packets;
mod requests;
mod session;

pub use batches::{record_batch, record_names};
pub use connections::{proxy_header, websocket_frames};
pub use disk::{checkpoint, segment, wal_entry, wal_frame};
pub use frames::{sync_frames, sync_token};
pub use methods::{amqp_stream, amqp_values};
pub use packets::{mqtt_packets, mqtt_stored};
pub use requests::{kafka_bodies, kafka_stream};
pub use session::mqtt_session;

use bytes::Bytes;

/// What is written again must be read again, and then be written as the same bytes: `read` gives what it read as bytes.
#[track_caller]
fn stands_still(read: impl Fn(Bytes) -> Option<Bytes>, bytes: Bytes) {
    let Some(first) = read(bytes) else { return };
    let second = read(first.clone());
    assert_eq!(
        second.as_ref(),
        Some(&first),
        "what was written is read as something else"
    );
}
