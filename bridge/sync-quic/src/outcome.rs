//! How things end and what is heard: the errors and events of the edge's side.

use sync::{
    CloseCode, DictionaryFrame, DownFrame, EnrolRefusal, HelloRefused, Pace, QueryFrame, Refused,
};

use crate::IdentityError;

/// Why an enrolment failed. Only `Unreachable` and `Refused` with a retryable code are worth trying again unchanged.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("cannot resolve {core}: {reason}")]
    Resolve { core: String, reason: String },
    #[error("no core answers at {core}: {reason}")]
    Unreachable { core: String, reason: String },
    /// Whoever answered is not the core that made the token. The secret was not sent.
    #[error("{core} is not the core that made this token: {reason}")]
    WrongCore { core: String, reason: String },
    #[error("the core refused the enrolment: {code}: {reason}")]
    Refused { code: EnrolRefusal, reason: String },
    #[error("the core's answer makes no sense: {0}")]
    Protocol(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot resolve {core}: {reason}")]
    Resolve { core: String, reason: String },
    /// Nobody answers (in time), or the link broke before the welcome: try again later.
    #[error("no core answers at {core}: {reason}")]
    Unreachable { core: String, reason: String },
    /// The TLS handshake failed: another core, or this edge's certificate is not accepted.
    #[error("{core} and this edge do not trust each other: {reason}")]
    Untrusted { core: String, reason: String },
    /// The core has too many at its door: try again later, and later still where that happens again.
    #[error("{core} has no time for this edge now: {reason}")]
    Busy { core: String, reason: String },
    #[error("the core refused this edge: {}: {}", .0.code, .0.reason)]
    Refused(HelloRefused),
    #[error("the core's answer makes no sense: {0}")]
    Protocol(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why an established connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nothing was heard for the idle timeout, or the network said no.
    #[error("link lost: {0}")]
    Link(String),
    /// The core closed. After [`CloseCode::TakenOver`] wait long before connecting again: a copy of this edge is running.
    #[error("closed by the core: {code}: {reason}")]
    ByCore { code: CloseCode, reason: String },
    /// [`Connection::close`] was called.
    #[error("closed by this edge")]
    ByEdge,
    /// The core broke the protocol.
    #[error("protocol violation: {0}")]
    Protocol(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Larger than the core takes ([`Welcome::max_batch`]), or than a frame may be; nothing was sent and the connection goes on.
    #[error("batch of {size} bytes where the core takes at most {limit}")]
    TooLarge { size: usize, limit: usize },
    /// The caller broke the rules of the lanes (frame numbers of a lane must increase, at most 16 lanes); nothing was sent.
    #[error("{0}")]
    Lanes(String),
}

/// What the core says over an established connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Everything of the lane up to and with `frame` is committed in the core, apart from frames named by a `Refused` before
    /// this. May be deleted.
    Ack { lane: u8, frame: u64 },
    /// The core did not take this one frame. If `code.is_retryable()` the core closes after it and the frame is to be sent
    /// again; otherwise it will never be taken: set it aside and go on (the `Ack` that covers it follows).
    Refused(Refused),
    /// Commands or configuration. Store durably, then [`Connection::send_down_ack`]. The same position may come again after a
    /// reconnect: see [`DownPosition`].
    Down(DownFrame),
    /// A dictionary for the batches of a stream from now on; the one before it may be forgotten.
    Dictionary(DictionaryFrame),
    /// A question of the core, to be answered with [`Connection::answer`].
    Query(QueryFrame),
    /// How fast to send, and when to come back after this connection.
    Pace(Pace),
    /// The connection is over; the last event. Batches without an `Ack` have to be sent again over the next one.
    Closed(Lost),
}
