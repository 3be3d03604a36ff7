//! Every limit of this crate.

/// The largest Remaining Length the format can say (MQTT 5 section 1.5.5).
pub const MAX_REMAINING_LENGTH: usize = 268_435_455;
/// Before the client is known, the largest packet that is buffered: a CONNECT with a will fits.
pub const MAX_CONNECT_SIZE: usize = 256 * 1024;
/// The largest packet a server takes unless it is configured otherwise.
pub const DEFAULT_MAX_PACKET_SIZE: usize = 16 * 1024 * 1024;
/// User properties in one packet: each costs two allocations, while on the wire it can cost five bytes.
pub const MAX_USER_PROPERTIES: usize = 1_024;
/// Topic filters in one SUBSCRIBE or UNSUBSCRIBE.
pub const MAX_FILTERS_PER_PACKET: usize = 4_096;
