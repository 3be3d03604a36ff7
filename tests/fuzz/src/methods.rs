//! AMQP: frames, methods, content headers, and the tables inside them.

use amqp::fuzzing;
use bytes::Bytes;

/// The bytes of a connection, after its protocol header.
pub fn amqp_stream(data: &[u8]) {
    assert!(fuzzing::stream(data) <= data.len() / 8);
}

/// A property block or a field table, as they stand in frames and in stored records.
pub fn amqp_values(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    crate::stands_still(fuzzing::table, bytes.clone());
    crate::stands_still(fuzzing::properties, bytes);
}
