//! The MQTT listeners: they take connections, as many as are allowed together, and wait for them at the end.

use std::sync::Arc;

use mqtt_broker::{Broker, Peer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::EdgeBackend;
use crate::limits;
use crate::tls::{self, Tls};

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
    pub async fn serve(self, listener: TcpListener, tls: Option<Arc<Tls>>) {
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
            // Small packets both ways: waiting to fill a segment only adds latency.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%address, %error, "no TCP_NODELAY");
            }
            let peer = Peer {
                address: Some(address),
                certificate_name: None,
            };
            let (broker, tls, shutdown) = (self.broker.clone(), tls.clone(), self.shutdown.clone());
            connections.spawn(async move {
                match tls {
                    None => broker.serve_peer(stream, peer).await,
                    Some(tls) => {
                        let shaken = shutdown.run_until_cancelled(handshake(stream, &tls));
                        if let Some(Some((stream, certificate_name))) = shaken.await {
                            let peer = Peer {
                                certificate_name,
                                ..peer
                            };
                            broker.serve_peer(stream, peer).await;
                        }
                    }
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

/// The connection, and the name in the client's certificate where one was asked for.
async fn handshake(
    stream: TcpStream,
    tls: &Tls,
) -> Option<(TlsStream<TcpStream>, Option<Arc<str>>)> {
    let accepting = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = match tokio::time::timeout(limits::TLS_HANDSHAKE, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%error, "a TLS handshake failed");
            return None;
        }
        Err(_) => return None,
    };
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let name = certificate.and_then(tls::common_name);
    Some((stream, name))
}
