//! Every limit of the protocol. Both ends check them before anything is allocated.

/// Largest body of a frame on a control stream (hello, welcome, acknowledgements, refusals), in bytes.
pub const MAX_CONTROL_FRAME: usize = 16 * 1024;
/// Largest body of a frame on an enrolment stream, in bytes: a certificate request in, a chain out.
pub const MAX_ENROL_FRAME: usize = 32 * 1024;
/// Largest record batch in a frame, in bytes.
pub const MAX_BATCH: usize = 16 * 1024 * 1024;
/// Largest body of a frame on a lane or on the downlink: a batch, and room for what stands before it.
pub const MAX_BATCH_FRAME: usize = MAX_BATCH + 1024;
/// Longest stream name, in bytes (Kafka's rule for topics).
pub const MAX_STREAM_NAME: usize = 249;
/// Longest edge name, in bytes. It becomes one level of a topic and a certificate's common name (at most 64 there).
pub const MAX_EDGE_NAME: usize = 64;
/// Longest reason in a refusal, in bytes; longer ones are cut.
pub const MAX_REASON: usize = 1024;
/// Longest token id and secret, in bytes.
pub const MAX_TOKEN_PART: usize = 64;
/// Longest certificate, request or chain in an enrolment, in bytes.
pub const MAX_CERTIFICATE: usize = 12 * 1024;
/// Lanes of one connection: each is a QUIC stream of its own.
pub const MAX_LANES: usize = 16;
/// Frames that an edge may have in flight, whatever their size, so that bookkeeping stays bounded at both ends.
pub const MAX_IN_FLIGHT_FRAMES: usize = 4096;
/// Bytes of batches that an edge keeps in flight when nothing else is asked for.
pub const DEFAULT_WINDOW: usize = 8 * 1024 * 1024;
