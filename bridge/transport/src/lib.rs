//! From an accepted socket to a byte stream and what is known of the other end: the PROXY protocol, TLS, WebSocket. Knows no
//! protocol above them.
//!
//! A listener has [`Layers`]; [`Layers::accept`] goes through them for one connection and gives a [`Stream`], its [`Peer`] and the
//! address it came to. Nothing of it is done by the loop that accepts: a slow client holds up nobody.

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod accepted;
mod layers;
pub mod limits;
pub mod open_files;
mod peer;
pub mod proxy;
mod stream;
pub mod tls;
pub mod websocket;

pub use accepted::prepare;
pub use layers::{Accepted, Failed, HandshakeError, Layers};
pub use peer::{Certificate, Peer, source};
pub use stream::{Duplex, ReadHalf, Stream, WriteHalf};
pub use tls::{Clients, NamedCertificate, Tls, TlsError, TlsFiles};
pub use websocket::{Offer, WebSocket};
