//! The MQTT listeners: they take connections, as many as are allowed together, and wait for them at the end.

use std::net::SocketAddr;
use std::sync::Arc;

use mqtt_broker::{Broker, Peer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Accepted, Failed, Layers, Stream};

use crate::backend::EdgeBackend;
use crate::limits;

/// What the listeners share.
#[derive(Clone)]
pub struct Devices {
    broker: Arc<Broker<EdgeBackend>>,
    max_connections: usize,
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Devices {
    pub fn new(
        broker: Arc<Broker<EdgeBackend>>,
        max_connections: usize,
        shutdown: CancellationToken,
    ) -> Devices {
        let room = Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS));
        Devices {
            broker,
            max_connections,
            room: Arc::new(room),
            shutdown,
        }
    }

    /// Serves until the shutdown, then until all connections have ended or their time is over.
    pub async fn serve(self, listener: TcpListener, layers: Layers) {
        let layers = Arc::new(layers);
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection can not be accepted");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = self.room.clone().try_acquire_owned() else {
                let max_connections = self.max_connections;
                tracing::warn!(%address, max_connections, "too many connections: this one is closed");
                continue;
            };
            if let Err(error) = transport::prepare(&stream) {
                tracing::debug!(%address, %error, "a socket does not take all that is set of it");
            }
            let (broker, layers) = (self.broker.clone(), layers.clone());
            let shutdown = self.shutdown.clone();
            connections.spawn(async move {
                if let Some((stream, peer)) = pass(&layers, stream, address, &shutdown).await {
                    broker.serve_peer(stream, peer).await;
                }
                drop(permit);
            });
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(limits::SHUTDOWN, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "connections did not end in time"
            );
        }
    }
}

/// Through TLS and WebSocket, where the listener has them. `None`: it did not come through, or the edge stops.
async fn pass(
    layers: &Layers,
    stream: TcpStream,
    address: SocketAddr,
    shutdown: &CancellationToken,
) -> Option<(Stream, Peer)> {
    if layers.is_plain() {
        return Some((Stream::Tcp(stream), Peer::at(address)));
    }
    // In a box of its own, so that a plain connection does not carry room for a handshake.
    let accepting = Box::pin(layers.accept(stream, address, address, limits::HANDSHAKE));
    match shutdown.run_until_cancelled(accepting).await? {
        Ok(Accepted { stream, peer, .. }) => Some((stream, peer)),
        Err(Failed { peer, error }) if error.is_departure() => {
            tracing::debug!(address = %peer, %error, "a client left before its connection was made");
            None
        }
        Err(Failed { peer, error }) => {
            tracing::info!(address = %peer, %error, "a connection could not be made");
            None
        }
    }
}
