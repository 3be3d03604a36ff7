//! The accept loops.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};
use transport::{Accepted, Failed, Layers, Peer, Stream};

use crate::metrics::ProtocolMetrics;
use crate::{Connection, Context, Counted, Listener, Listeners, quic};

/// Accepts connections until [`Context::shutdown`] is cancelled and runs `handle` for each in a task of its own: a panic
/// or a slow client concerns nobody else. TLS and the like are done in that task too. Returns when all connections have ended, or were
/// cut after [`crate::Limits::drain`].
///
/// `protocol` is the label in metrics and logs: `mqtt`, `kafka`, `amqp`.
pub async fn serve<F, Fut>(
    ctx: Context,
    protocol: &'static str,
    listeners: impl Into<Listeners>,
    handle: F,
) where
    F: Fn(Connection) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Listeners { tcp, quic } = listeners.into();
    let service = Arc::new(Service {
        metrics: ctx.metrics.protocol(protocol),
        ctx,
        protocol,
        ids: AtomicU64::new(0),
        handle,
    });
    let mut loops = JoinSet::new();
    for listener in tcp {
        loops.spawn(accept_tcp(service.clone(), listener));
    }
    for listener in quic {
        loops.spawn(quic::accept(service.clone(), listener));
    }
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            error!(protocol, %error, "a listener ended by a bug in this program");
        }
    }
}

/// What the listeners of one front end share.
pub(crate) struct Service<F> {
    pub(crate) ctx: Context,
    pub(crate) protocol: &'static str,
    pub(crate) metrics: ProtocolMetrics,
    ids: AtomicU64,
    handle: F,
}

impl<F, Fut> Service<F>
where
    F: Fn(Connection) -> Fut,
    Fut: Future<Output = ()>,
{
    /// Serves one connection to its end.
    pub(crate) fn serve(&self, accepted: Accepted) -> Fut {
        let Accepted {
            stream,
            peer,
            local,
        } = accepted;
        let (received, sent) = (self.metrics.received.clone(), self.metrics.sent.clone());
        (self.handle)(Connection {
            stream: Counted::new(stream, received, sent),
            peer,
            local,
            id: self.ids.fetch_add(1, Ordering::Relaxed) + 1,
            shutdown: self.ctx.shutdown.child_token(),
        })
    }
}

impl<F> Service<F> {
    /// A place for one more connection of a listener; `None`: it has as many as it may.
    pub(crate) fn admit(&self, slots: &Arc<Semaphore>, from: SocketAddr) -> Option<Open> {
        self.metrics.accepted.inc();
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            self.metrics.refused.inc();
            warn!(protocol = self.protocol, peer = %from, limit = self.ctx.limits.connections_per_listener,
                "connection refused: the listener has as many as it may; raise max-connections or close some");
            return None;
        };
        Some(Open::new(self.metrics.clone(), slot))
    }

    pub(crate) fn handshake_failed(&self, Failed { peer, error }: &Failed) {
        let (protocol, layer) = (self.protocol, error.layer());
        if error.is_departure() {
            debug!(protocol, %peer, %error, "a client left before its connection was made");
            return;
        }
        self.metrics.handshake_failed(layer);
        info!(protocol, %peer, %error, "a connection could not be made");
    }

    pub(crate) fn reap(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            self.metrics.panics.inc();
            error!(protocol = self.protocol, %error, "a connection was ended by a bug in this program; the others go on. Please report it");
        }
    }

    /// Waits for `connections` at shutdown, for as long as they may take.
    pub(crate) async fn drain(&self, mut connections: JoinSet<()>) {
        let drained = tokio::time::timeout(self.ctx.limits.drain, async {
            while let Some(ended) = connections.join_next().await {
                self.reap(ended);
            }
        });
        if drained.await.is_err() {
            warn!(
                protocol = self.protocol,
                connections = connections.len(),
                "connections did not end in time at shutdown: cut"
            );
            connections.shutdown().await;
        }
    }
}

async fn accept_tcp<F, Fut>(service: Arc<Service<F>>, listener: Listener)
where
    F: Fn(Connection) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Listener { tcp, layers } = listener;
    let (ctx, protocol) = (&service.ctx, service.protocol);
    let slots = Arc::new(Semaphore::new(ctx.limits.connections_per_listener));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = ctx.shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => service.reap(ended),
            accepted = tcp.accept() => match accepted {
                Ok((stream, from)) => {
                    let Some(open) = service.admit(&slots, from) else { continue };
                    match prepare(&stream) {
                        Ok(local) => {
                            let (service, layers) = (service.clone(), layers.clone());
                            connections.spawn(async move {
                                let _open = open;
                                if let Some(accepted) = pass(&service, &layers, stream, from, local).await {
                                    service.serve(accepted).await;
                                }
                            });
                        }
                        Err(error) => debug!(protocol, peer = %from, %error, "connection gone before it was served"),
                    }
                }
                Err(error) if is_of_one_connection(&error) => debug!(protocol, %error, "a client left while being accepted"),
                Err(error) => {
                    error!(protocol, %error, "cannot accept connections; trying again (out of file descriptors? raise `ulimit -n`)");
                    // Not a delivery path: without a pause this would spin until a descriptor is free.
                    tokio::time::sleep(ctx.limits.accept_backoff).await;
                }
            },
        }
    }
    drop(tcp);
    service.drain(connections).await;
}

/// Through the layers of the listener; `None`: it did not come through, or the process stops.
async fn pass<F>(
    service: &Service<F>,
    layers: &Layers,
    stream: TcpStream,
    from: SocketAddr,
    local: SocketAddr,
) -> Option<Accepted> {
    if layers.is_plain() {
        return Some(Accepted {
            stream: Stream::Tcp(stream),
            peer: Peer::at(from),
            local,
        });
    }
    // In a box of its own, so that a plain connection does not carry room for a handshake.
    let accepting = Box::pin(layers.accept(stream, from, local, service.ctx.limits.handshake));
    match service.ctx.shutdown.run_until_cancelled(accepting).await? {
        Ok(accepted) => Some(accepted),
        Err(failed) => {
            service.handshake_failed(&failed);
            None
        }
    }
}

/// The address it came to.
fn prepare(stream: &TcpStream) -> io::Result<SocketAddr> {
    if let Err(error) = transport::prepare(stream) {
        tracing::debug!(%error, "a socket does not take all that is set of it");
    }
    stream.local_addr()
}

/// Errors of accept(2) that concern the one connection that was about to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Counts a connection as open for as long as its task lives, however that ends.
pub(crate) struct Open {
    metrics: ProtocolMetrics,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: ProtocolMetrics, slot: OwnedSemaphorePermit) -> Open {
        metrics.open.inc();
        Open {
            metrics,
            _slot: slot,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}
