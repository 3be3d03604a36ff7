//! Every limit that the front ends share, with its default.

use std::time::Duration;

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
