//! For tests: what amq-protocol, which lapin writes and reads with, makes of a value.

use amq_protocol::frame::{SerializeFn, WriteContext};

pub fn written(write: impl SerializeFn<Vec<u8>>) -> bytes::Bytes {
    let context = write(WriteContext::from(Vec::new())).unwrap();
    context.into_inner().0.into()
}
