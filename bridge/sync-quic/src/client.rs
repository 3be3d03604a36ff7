//! The edge's side.

use sync::{
    BatchFrame, CloseCode, DownFrame, DownPosition, EnrolRefusal, Hello, HelloRefusal, Refused,
    Welcome, Window,
};

use crate::{Identity, IdentityError, Timing, Token};

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
    #[error("the core refused this edge: {code}: {reason}")]
    Refused { code: HelloRefusal, reason: String },
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
    /// The connection is over; the last event. Batches without an `Ack` have to be sent again over the next one.
    Closed(Lost),
}

/// Trades a token for an identity. Takes at most `timing.handshake`.
///
/// `core` is `HOST:PORT`. The private key is made here and never leaves. A name that is enrolled already is taken over: the
/// certificate that it had before is no longer accepted.
pub async fn enrol(
    core: &str,
    token: &Token,
    name: &str,
    timing: Timing,
) -> Result<Identity, EnrolError> {
    let _ = (core, token, name, timing);
    todo!("lands with the next commit")
}

/// Connects, shows the certificate, says hello and waits for the welcome. Takes at most `timing.handshake`.
///
/// `hello.version` and `hello.edge` have to be [`sync::VERSION`] and `identity.edge`.
/// The two halves may be used from different tasks; acknowledgements are read and the window is freed in the background, even
/// when nobody asks for events.
pub async fn connect(
    core: &str,
    identity: &Identity,
    hello: Hello,
    window: Window,
    timing: Timing,
) -> Result<(Connection, Events), ConnectError> {
    let _ = (core, identity, hello, window, timing);
    todo!("lands with the next commit")
}

/// The sending half. Cheap to clone; the connection closes when all clones and the events are dropped.
#[derive(Clone)]
pub struct Connection {}

impl Connection {
    /// What the core said to the hello: its clock, its limits.
    pub fn welcome(&self) -> &Welcome {
        todo!("lands with the next commit")
    }

    /// Sends one batch on its lane's QUIC stream. Waits while the window is full or the link is slow: this is the backpressure.
    /// Returns when the bytes are handed to QUIC, which is not an acknowledgement. Calls for one lane must come one after the other.
    ///
    /// Not cancel-safe: dropping the future may leave half a frame on the lane; only do it when the connection is given up.
    pub async fn send_batch(&self, frame: BatchFrame) -> Result<(), SendError> {
        let _ = frame;
        todo!("lands with the next commit")
    }

    /// Waits until a batch of `len` bytes fits in the window, or the connection is over. Cancel-safe: for a `select!` before `send_batch`.
    pub async fn ready(&self, len: usize) -> Result<(), Lost> {
        let _ = len;
        todo!("lands with the next commit")
    }

    /// Tells the core that everything up to and with `position` in its partition is stored durably here.
    pub async fn send_down_ack(&self, position: DownPosition) -> Result<(), Lost> {
        let _ = position;
        todo!("lands with the next commit")
    }

    /// Closes at once. What is not acknowledged has to be sent again over the next connection.
    pub fn close(&self) {
        todo!("lands with the next commit")
    }
}

/// The receiving half.
pub struct Events {}

impl Events {
    /// The next event; after [`Event::Closed`] it is that one for ever. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        todo!("lands with the next commit")
    }
}
