//! What a front end listens on.

use std::sync::Arc;

use tokio::net::TcpListener;
use transport::Layers;

use crate::QuicListener;

/// A bound TCP listener, and what its connections go through before their protocol begins.
pub struct Listener {
    pub tcp: TcpListener,
    pub layers: Arc<Layers>,
}

/// Everything one front end listens on. A bare [`TcpListener`] is one too.
#[derive(Default)]
pub struct Listeners {
    pub tcp: Vec<Listener>,
    pub quic: Vec<QuicListener>,
}

impl From<TcpListener> for Listeners {
    fn from(tcp: TcpListener) -> Listeners {
        Listeners {
            tcp: vec![Listener {
                tcp,
                layers: Arc::default(),
            }],
            quic: Vec::new(),
        }
    }
}
