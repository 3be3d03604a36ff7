//! Every limit of this crate.

use std::time::Duration;

/// How often the TLS files are looked at.
pub const TLS_LOOK: Duration = Duration::from_secs(30);
/// What follows the fixed part of a PROXY header: addresses and extensions, bytes. Balancers send some hundred.
pub const PROXY_HEADER: usize = 4096;
/// An HTTP request that is to become a WebSocket: bytes and headers.
pub const HTTP_HEAD: usize = 16 * 1024;
pub const HTTP_HEADERS: usize = 96;
/// Bytes of an HTTP request taken from the socket at a time.
pub const HTTP_READ: usize = 1024;
/// Payload of a WebSocket frame that is sent. One waits for the socket at a time.
pub const FRAME_OUT: usize = 64 * 1024;
/// What an idle WebSocket keeps of the buffer that such frames are made in, bytes.
pub const FRAME_KEPT: usize = 1024;
/// A TCP connection in which nothing was heard for so long is looked after by the system, so often and in such intervals, before it is taken for dead.
pub const TCP_SILENCE: Duration = Duration::from_secs(300);
pub const TCP_PROBE: Duration = Duration::from_secs(15);
pub const TCP_PROBES: u32 = 4;
