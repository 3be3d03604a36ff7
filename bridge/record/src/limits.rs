//! Every limit of this crate, in bytes unless the name says otherwise.

/// The longest uncompressed record section of one batch, and so the most memory that decompressing one batch takes.
pub const MAX_DECOMPRESSED: usize = 64 * 1024 * 1024;

/// The longest batch, header included. An incompressible record section at its limit still fits.
pub const MAX_BATCH_LEN: usize = MAX_DECOMPRESSED + crate::HEADER_LEN;

/// The most headers one record may carry. Kafka has no limit of its own; each costs memory when the record is read.
pub const MAX_HEADERS_PER_RECORD: usize = 4096;

/// Base-2 logarithm of the largest zstd window accepted. 27 (128 MiB) is what level 22, the highest that Kafka clients
/// can choose, announces; the memory is only touched as far as data is written into it.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// The longest stream name: Kafka's limit for topic names.
pub const MAX_STREAM_NAME: usize = 249;

/// The longest namespace name: AMQP's limit for a vhost (short string).
pub const MAX_NAMESPACE: usize = 255;

/// The longest MQTT topic (MQTT 5, 1.5.4: the length of a UTF-8 string is two bytes).
pub const MAX_TOPIC: usize = 65_535;
