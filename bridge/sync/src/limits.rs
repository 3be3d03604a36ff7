//! Every limit of the protocol. Both ends check them before anything is allocated.

use std::time::Duration;

/// Largest body of a frame on a control stream (hello, welcome, acknowledgements, refusals, queries), in bytes.
pub const MAX_CONTROL_FRAME: usize = 16 * 1024;
/// Largest body of a frame on an enrolment stream, in bytes: a certificate request in, a chain out.
pub const MAX_ENROL_FRAME: usize = 32 * 1024;
/// Largest record batch in a frame, in bytes.
pub const MAX_BATCH: usize = 16 * 1024 * 1024;
/// Largest body of a frame on a lane, on the downlink or of an answer: a batch, and room for what stands before it.
pub const MAX_LANE_FRAME: usize = MAX_BATCH + 1024;
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
/// Earlier starts in a hello.
pub const MAX_EARLIER: usize = 64;
/// Longest name of a lane, in bytes.
pub const MAX_LANE_NAME: usize = 64;
/// Addresses of the core in a welcome.
pub const MAX_CORES: usize = 16;
/// Longest address of a core, in bytes: a scheme, a DNS name (253) and a port.
pub const MAX_CORE_ADDRESS: usize = 270;
/// Longest report of a gap, in bytes of JSON.
pub const MAX_GAP_REPORT: usize = 4 * 1024;
/// Streams whose next sequence one gap may say.
pub const MAX_GAP_STREAMS: usize = 4096;
/// Largest zstd dictionary, in bytes (zstd's own default of 112 KiB for the trainer).
pub const MAX_DICTIONARY: usize = 112 * 1024;
/// Dictionaries that an edge keeps over all streams; the one used longest ago goes first.
pub const MAX_DICTIONARIES: usize = 32;
/// Longest name of a question to an edge, in bytes.
pub const MAX_QUERY_NAME: usize = 32;
/// Longest arguments of a question to an edge, in bytes of JSON.
pub const MAX_QUERY_ARGUMENTS: usize = 8 * 1024;
/// Largest answer of an edge, in bytes of JSON.
pub const MAX_ANSWER: usize = 256 * 1024;
/// Questions to one edge that are not answered yet; each answer is a stream of its own.
pub const MAX_QUERIES: usize = 4;
/// Frames that an edge may have in flight, whatever their size, so that bookkeeping stays bounded at both ends.
pub const MAX_IN_FLIGHT_FRAMES: usize = 4096;
/// Bytes of batches that an edge keeps in flight when nothing else is asked for.
pub const DEFAULT_WINDOW: usize = 8 * 1024 * 1024;
/// Bytes that a lane is granted at a time.
pub const QUANTUM: usize = 64 * 1024;
/// Where a rate is bounded, a lane waits until it may send so many bytes at once (or what is left): less is mostly headers.
pub const LEAST_PIECE: usize = 1200;
/// What was not used of a rate in this time may be used later; of a low rate two of [`LEAST_PIECE`] always.
pub const BURST: Duration = Duration::from_millis(100);
/// Counted for the core's commit, on top of the round trip, where the window is sized.
pub const COMMIT_TIME: Duration = Duration::from_millis(500);
/// The window of a lane on a link of which nothing is known, in bytes.
pub const LEAST_WINDOW: usize = 64 * 1024;
/// How far back the rate of a link is looked at, at least.
pub const RECENT: Duration = Duration::from_secs(5);
/// Of the bytes and frames in flight, what lanes of a lower rank leave to each higher one.
pub const RESERVED_BYTES: usize = 256 * 1024;
pub const RESERVED_FRAMES: usize = 64;
