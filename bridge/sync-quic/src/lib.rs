//! The sync protocol over QUIC: the only crate that knows quinn and the certificates.
//!
//! An edge calls [`enrol`] once and [`connect`] ever after. The core binds a [`Listener`].
//!
//! The core is never identified by the host that it is reached at: its certificate carries the fixed name [`CORE_NAME`] and is
//! signed by the core's own authority, so any `HOST:PORT` works. All certificates are valid from 1970 on, because boards boot there.

mod client;
mod dial;
mod edge;
mod enrol;
mod identity;
mod listener;
mod outcome;
mod tls;
mod token;
mod wire;

pub use client::{Connection, Events, connect};
pub use edge::{Answers, DownAcks, EdgeConnection, Lanes, Received, WelcomeEdge};
pub use enrol::enrol;
pub use identity::{Identity, IdentityError};
pub use listener::{
    AcceptError, Accepted, BindError, CoreIdentity, EdgeHandshake, EnrolHandshake, Listener,
    Pending,
};
pub use outcome::{ConnectError, EnrolError, Event, Lost, SendError};
pub use token::{Token, TokenError, fingerprint};

pub use sync::{
    AnswerFrame, AnswerStatus, BatchFlags, BatchFrame, CloseCode, DictionaryFrame, DownFrame,
    DownPosition, EnrolGrant, EnrolRefusal, EnrolRequest, GapFrame, Hello, HelloRefusal,
    HelloRefused, LaneFrame, LaneInfo, LinkCompression, Pace, QueryFrame, RefuseCode, Refused,
    Retry, TimeQuality, Welcome, Window,
};

use std::time::Duration;

/// The DNS name in every core's certificate.
pub const CORE_NAME: &str = "towline-core";

/// Times that decide how soon a cut link is noticed.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Something is sent at least this often.
    pub keep_alive: Duration,
    /// Nothing heard for this long means that the link is cut. Must be several times `keep_alive`.
    pub idle_timeout: Duration,
    /// Limit on everything up to the welcome (or the certificate, for an enrolment).
    pub handshake: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            keep_alive: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(8),
            handshake: Duration::from_secs(10),
        }
    }
}
