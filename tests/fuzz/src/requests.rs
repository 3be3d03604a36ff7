//! Requests of the Kafka protocol.

use bytes::Bytes;
use kafka::fuzzing;

/// The bytes of a connection: frames, headers, bodies.
pub fn kafka_stream(data: &[u8]) {
    for frame in fuzzing::stream(data) {
        if let Some((key, version, body)) = fuzzing::request(frame) {
            crate::stands_still(|bytes| fuzzing::body(key, version, bytes), body);
        }
    }
}

/// The body of a request: the first two bytes say of which API and version. Reaches further than whole frames do.
pub fn kafka_bodies(data: &[u8]) {
    let Some((&[key, version], body)) = data.split_first_chunk() else {
        return;
    };
    let (key, version) = (i16::from(key), i16::from(version));
    let body = Bytes::copy_from_slice(body);
    let _ = fuzzing::subscription(&body);
    crate::stands_still(|bytes| fuzzing::body(key, version, bytes), body);
}
