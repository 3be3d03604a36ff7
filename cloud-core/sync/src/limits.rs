//! Every limit of the crate.

use std::time::Duration;

/// Frames of one lane of an edge between arrival and commit.
pub const MAX_LANE_FRAMES_IN_FLIGHT: usize = 256;
/// Producer ids that an edge has left, kept to recognise copies of its data directory; the oldest is forgotten first.
pub const MAX_RETIRED_IDS: usize = 64;
/// Copies that were not let in, kept with an edge for people; the oldest is forgotten first.
pub const MAX_FENCING_EVENTS: usize = 16;
/// Gaps kept with an edge in table `sync.gaps`; the oldest is forgotten first. Stream `_gaps` has all of them.
pub const MAX_GAPS_KEPT: usize = 256;
/// Bytes of stream `_gaps` looked through for one page of an edge's gaps, over all partitions.
pub const GAPS_READ_BYTES: usize = 1024 * 1024;
/// The same of each partition, at least.
pub const GAPS_READ_OF_EACH: usize = 16 * 1024;
/// Hellos between arrival and answer; more are asked to come back later.
pub const MAX_HELLOS_WAITING: usize = 512;
/// Edges connected at once; more are asked to come back later.
pub const MAX_CONNECTIONS: usize = 65_536;
/// How many edges a second may come back after the core was away: what the retry times are made from.
pub const RECONNECTS_PER_SECOND: u64 = 250;
/// Before an edge comes back, at least, in milliseconds.
pub const RETRY_FLOOR_MS: u32 = 250;
/// The shortest time over which reconnects are spread, in milliseconds.
pub const RETRY_SPREAD_MS: u32 = 750;
/// The longest time over which reconnects are spread, in milliseconds.
pub const MAX_RETRY_SPREAD_MS: u32 = 10 * 60 * 1000;
/// The shortest time over which those are spread who were not let in, in milliseconds.
pub const REFUSED_SPREAD_MS: u32 = 10_000;
/// Locks over what is stored of the edges; an edge's is chosen by its name.
pub const EDGE_LOCKS: usize = 64;
/// Downlink batches of one edge that it has not confirmed yet.
pub const MAX_DOWN_UNCONFIRMED: usize = 32;
/// Bytes of the command stream looked through at a time, for one edge.
pub const DOWN_READ_BYTES: usize = 256 * 1024;
/// Bytes of bodies of what is retained for an edge, sent to it after its enrolment.
pub const DOWN_RETAINED_BYTES: usize = 4 * 1024 * 1024;
/// Longest life of a token.
pub const MAX_TOKEN_TTL: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Labels of a token, and so of an edge.
pub const MAX_LABELS: usize = 32;
/// Longest label name or value, in bytes.
pub const MAX_LABEL: usize = 128;
/// Years that an edge's certificate is valid.
pub const EDGE_CERTIFICATE_YEARS: i32 = 10;
/// How long an edge may take to answer a question.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams for which a dictionary is trained at once; more are not compressed with one.
pub const MAX_TRAINED_STREAMS: usize = 1024;
/// Largest batch that is a sample: larger ones hold enough of their own to compress well, in bytes.
pub const MAX_SAMPLE: usize = 8 * 1024;
/// Bytes of samples kept for a stream; the oldest goes first.
pub const SAMPLE_BYTES: usize = 256 * 1024;
/// Samples and bytes of them from which a dictionary is trained.
pub const LEAST_SAMPLES: usize = 128;
pub const LEAST_SAMPLE_BYTES: usize = 32 * 1024;
/// Size of a dictionary, in bytes: small readings need no more, and it crosses a metered link once.
pub const DICTIONARY_BYTES: usize = 16 * 1024;
/// Batches after which the ratio of a dictionary is known.
pub const RATIO_BATCHES: u32 = 64;
/// A dictionary is trained anew when its batches get this many times larger than they were at first.
pub const RETRAIN_AT: f64 = 1.5;
/// Dictionaries kept of a stream: edges may still use the older ones.
pub const DICTIONARIES_KEPT: usize = 4;
/// Disks that an edge had before whose counts are remembered: they may come again.
pub const SET_ASIDE_DISKS: usize = 4;
/// Bytes of the name of what an edge counts with what it has set aside.
pub const MAX_SET_ASIDE_ID: usize = 64;
