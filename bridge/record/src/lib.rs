//! The record format of Towline: the Kafka RecordBatch v2, the neutral [`Envelope`] that the protocols convert
//! from and to, and the addresses of streams.
//!
//! A batch is encoded once, by whoever accepts the records, and its bytes are stored, replicated and sent as they
//! are. Only two fields, which lie outside the checksum, are ever patched: base offset and leader epoch.
//!
//! This crate imports nothing else of Towline, knows no socket, no clock and no serialisation framework. Whatever it
//! reads may come from a hostile peer: every length is checked before it is used, and the limits are in [`limits`].

mod address;
mod batch;
mod builder;
mod compression;
mod control;
mod envelope;
mod error;
pub mod limits;
mod partitioner;
mod records;
mod reserved;
mod retain;
mod sequence;
mod varint;

pub use address::{
    AddressError, Namespace, StreamAddress, StreamName, stream_for_topic, topic_for_record,
};
pub use batch::{Batch, HEADER_LEN, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, TimestampType};
pub use builder::BatchBuilder;
pub use compression::Compression;
pub use control::ControlRecord;
pub use envelope::{Envelope, Native, Protocol, expire_after_timestamp};
pub use error::{BatchError, BuildError};
pub use partitioner::{murmur2, partition_for_key, to_positive};
pub use records::{Header, NewRecord, Record, Records};
pub use reserved::{RESERVED_PREFIX, is_reserved, strip_reserved};
pub use retain::Retained;
pub use sequence::{next_sequence, sequence_after};
