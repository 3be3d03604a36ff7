//! What every front end shares: the [`Context`] it is started with, the accept loop ([`serve`]), who a client is
//! ([`Identity`], [`Principal`]) and what it may do ([`Access`]), limits, and the layout of retained messages.
//!
//! A front end is one crate with `pub fn start(ctx: Context, listeners: impl Into<Listeners>) -> JoinHandle<()>`. The handle ends
//! when [`Context::shutdown`] was cancelled and the front end's connections have drained. Front ends never import each
//! other; what two of them must agree on stands here (the kernel knows no protocol).

pub mod access;
pub mod advertise;
pub mod bind;
mod changes;
pub mod connection;
pub mod context;
pub mod figures;
pub mod identity;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod principal;
pub mod quic;
pub mod quotas;
pub mod retained;
pub mod serve;

pub use access::{Access, Asker};
pub use advertise::Advertise;
pub use bind::bind_tcp;
pub use connection::{Connection, Counted};
pub use context::{Context, StreamDefaults, StreamForWriteError};
pub use identity::{Anonymous, Identity, LoginError, ScramLogin};
pub use limits::Limits;
pub use listener::{Listener, Listeners};
pub use metrics::ListenerMetrics;
pub use principal::Principal;
pub use quic::QuicListener;
pub use serve::serve;
pub use transport::{Certificate, Peer};
