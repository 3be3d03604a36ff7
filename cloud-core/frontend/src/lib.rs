//! What every front end shares: the [`Context`] it is started with, the accept loop ([`serve_tcp`]), who a client is
//! ([`Principal`]), limits, and the layout of retained messages.
//!
//! A front end is one crate with `pub fn start(ctx: Context, listener: TcpListener) -> JoinHandle<()>`. The handle ends
//! when [`Context::shutdown`] was cancelled and the front end's connections have drained. Front ends never import each
//! other; what two of them must agree on stands here (the kernel knows no protocol).

pub mod advertise;
pub mod bind;
pub mod connection;
pub mod context;
pub mod figures;
pub mod limits;
pub mod metrics;
pub mod principal;
pub mod retained;
pub mod serve;

pub use advertise::Advertise;
pub use bind::bind_tcp;
pub use connection::{Connection, Counted};
pub use context::{Context, StreamDefaults, StreamForWriteError};
pub use limits::Limits;
pub use metrics::ListenerMetrics;
pub use principal::Principal;
pub use serve::serve_tcp;
