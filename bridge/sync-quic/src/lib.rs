//! The sync protocol over QUIC: the only crate that knows quinn and the certificates.
//!
//! An edge calls [`enrol`] once and [`connect`] ever after. The core binds a [`Listener`].
//!
//! The core is never identified by the host that it is reached at: its certificate carries the fixed name [`CORE_NAME`] and is
//! signed by the core's own authority, so any `HOST:PORT` works. All certificates are valid from 1970 on, because boards boot there.
#![allow(clippy::todo)]

mod client;
mod identity;
mod token;

pub use client::{
    ConnectError, Connection, EnrolError, Event, Events, Lost, SendError, connect, enrol,
};
pub use identity::{Identity, IdentityError};
pub use token::{Token, TokenError};

pub use sync::{
    BatchFlags, BatchFrame, CloseCode, DownFrame, DownPosition, EnrolRefusal, Hello, HelloRefusal,
    RefuseCode, Refused, Welcome, Window,
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
