//! Every limit that the front ends share, with its default.

use std::time::Duration;

/// QUIC: a connection in which nothing is heard for so long is over. The client's own limit counts where it is shorter.
pub const QUIC_IDLE: Duration = Duration::from_secs(300);
/// How often a connection is kept alive from here, so that a client that says nothing stays and one that is gone does not. Half of what clients
/// usually take for the end (30 s: quiche, MsQuic, Go): one such packet may be lost.
pub const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Streams that a client may open: one is served, the others are reset.
pub const QUIC_STREAMS: u32 = 8;
/// Bytes that a connection may hold unread here, and unsent; the first before anybody knows who it is.
pub const QUIC_WINDOW: u32 = 256 * 1024;
/// Handshakes at once; above it new ones are refused. From the second on a client must prove its address first.
pub const QUIC_HANDSHAKES: usize = 1024;
pub const QUIC_UNVALIDATED: usize = 64;
/// Bytes of datagrams held for connections that are not accepted yet.
pub const QUIC_INCOMING_BYTES: u64 = 8 * 1024 * 1024;
/// How long a connection whose protocol is over waits for the client to have read its end.
pub const QUIC_LAST_WORDS: Duration = Duration::from_secs(1);
/// Passwords that are checked at a time: each takes 9 MiB and a core for tens of milliseconds, which others want too.
pub const PASSWORDS_AT_ONCE: usize = 2;
/// Connections whose password is being checked or waits for it; one more is told to come later.
pub const PASSWORDS_WAITING: usize = 512;
/// Longest name of a user or a group, in bytes.
pub const MAX_USER_NAME: usize = 128;
/// Groups of one user.
pub const MAX_GROUPS: usize = 64;
/// Users; all of them are in memory.
pub const MAX_USERS: usize = 100_000;
/// Keys of a set that are used.
pub const MAX_JWT_KEYS: usize = 64;
/// Groups that a token may name. One with more is refused: a rule that denies could be about one that is left out.
pub const MAX_JWT_GROUPS: usize = 1024;
/// How much earlier than it says a token is taken: clocks differ.
pub const JWT_LEEWAY_MS: i64 = 60_000;
/// A connection is not kept longer than this by one token, whatever the token says.
pub const LONGEST_TOKEN: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Access rules; each question looks at them in order.
pub const MAX_RULES: usize = 10_000;

/// Limits of listeners and connections. Limits of one protocol stand in that front end's own `limits.rs`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections a listener; one more is accepted and closed at once, so that the client learns it now.
    pub connections_per_listener: usize,
    /// Pending connections in the system's queue of a listener.
    pub backlog: i32,
    /// How long a client may take from TCP accept to a complete protocol handshake (MQTT CONNECT, AMQP Connection.Open).
    /// An unauthenticated connection costs memory; this bounds for how long.
    pub handshake: Duration,
    /// Largest body of one message or record batch that a client may send, in bytes. A larger one is refused with the
    /// protocol's own error.
    pub message_bytes: usize,
    /// How long connections may take to end by themselves at shutdown; what is left then is cut.
    pub drain: Duration,
    /// Wait after the system refused an accept for want of file descriptors or memory.
    pub accept_backoff: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_per_listener: 10_000,
            backlog: 1024,
            handshake: Duration::from_secs(10),
            message_bytes: 8 * 1024 * 1024,
            drain: Duration::from_secs(5),
            accept_backoff: Duration::from_millis(50),
        }
    }
}
