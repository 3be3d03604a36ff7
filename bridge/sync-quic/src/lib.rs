//! The sync protocol on the wire: over QUIC, and over TLS on TCP where no UDP gets through. The only crate that knows quinn and the
//! certificates.
//!
//! An edge calls [`enrol`] once and [`Dialer::connect`] ever after. The core binds a [`Listener`]. Both see the same whatever
//! carries the frames: that is settled in `carrier`.
//!
//! The core is never identified by the host that it is reached at: its certificate carries the fixed name [`CORE_NAME`] and is
//! signed by the core's own authority, so any `HOST:PORT` works. All certificates are valid from 1970 on, because boards boot there.

mod address;
mod away;
mod carrier;
mod client;
mod congestion;
mod dial;
mod dialer;
mod door;
mod edge;
mod enrol;
mod identity;
mod knock;
mod listener;
mod mux;
mod mux_io;
mod outcome;
mod pauses;
mod quic;
mod signs;
mod silence;
mod tls;
mod token;
mod wire;

pub use address::{CoreAddress, CoreAddressError};
pub use carrier::Transport;
pub use client::{Connection, Events, Pacer};
pub use dialer::Dialer;
pub use door::{AtTheDoor, Handshakes};
pub use edge::{Answers, DownAcks, EdgeConnection, Lanes, Received, WelcomeEdge};
pub use enrol::enrol;
pub use identity::{Identity, IdentityError};
pub use listener::{
    AcceptError, Accepted, BindError, CoreIdentity, EdgeHandshake, EnrolHandshake, Listener,
    Pending, TlsListen,
};
pub use outcome::{ConnectError, EnrolError, Event, Lost, SendError};
pub use pauses::{After, Pauses};
pub use tls::{Now, system_now};
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
    /// The edge says something at least this often.
    pub keep_alive: Duration,
    /// Nothing heard for this long means that the link is cut. Must be several times `keep_alive`. The shorter one of edge and core counts.
    pub idle_timeout: Duration,
    /// Limit on everything up to the welcome (or the certificate, for an enrolment).
    pub handshake: Duration,
}

/// The limit where nothing else is said.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Timing {
    /// An edge's: three signs of life in a row may be lost.
    pub fn edge(keep_alive: Duration) -> Timing {
        Timing {
            keep_alive,
            idle_timeout: keep_alive * 3 + Duration::from_secs(5),
            handshake: HANDSHAKE,
        }
    }

    /// A core's: it leaves keeping alive to the edges, and waits as long as the most patient of them.
    pub fn core() -> Timing {
        Timing {
            keep_alive: Duration::from_secs(25),
            idle_timeout: Duration::from_secs(3600),
            handshake: HANDSHAKE,
        }
    }
}
