//! The accept loop.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::metrics::ProtocolMetrics;
use crate::{Connection, Context, Counted};

/// Accepts connections until [`Context::shutdown`] is cancelled and runs `handle` for each in a task of its own: a panic
/// or a slow client concerns nobody else. Returns when all connections have ended, or were cut after
/// [`crate::Limits::drain`].
///
/// `protocol` is the label in metrics and logs: `mqtt`, `kafka`, `amqp`.
pub async fn serve_tcp<F, Fut>(
    ctx: Context,
    protocol: &'static str,
    listener: TcpListener,
    handle: F,
) where
    F: Fn(Connection) -> Fut + Send,
    Fut: Future<Output = ()> + Send + 'static,
{
    let metrics = ctx.metrics.protocol(protocol);
    let slots = Arc::new(Semaphore::new(ctx.limits.connections_per_listener));
    let mut connections = JoinSet::new();
    let mut id = 0;
    loop {
        tokio::select! {
            biased;
            () = ctx.shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => reap(ended, protocol, &metrics),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    metrics.accepted.inc();
                    let Ok(slot) = slots.clone().try_acquire_owned() else {
                        metrics.refused.inc();
                        warn!(protocol, %peer, limit = ctx.limits.connections_per_listener,
                            "connection refused: the listener has as many as it may; raise connections_per_listener or close some");
                        continue;
                    };
                    id += 1;
                    match prepare(&ctx, stream, peer, id, &metrics) {
                        Ok(connection) => {
                            let open = Open::new(metrics.clone(), slot);
                            let task = handle(connection);
                            connections.spawn(async move {
                                let _open = open;
                                task.await;
                            });
                        }
                        Err(error) => debug!(protocol, %peer, %error, "connection gone before it was served"),
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
    drop(listener);
    let drained = tokio::time::timeout(ctx.limits.drain, async {
        while let Some(ended) = connections.join_next().await {
            reap(ended, protocol, &metrics);
        }
    });
    if drained.await.is_err() {
        warn!(
            protocol,
            connections = connections.len(),
            "connections did not end in time at shutdown: cut"
        );
        connections.shutdown().await;
    }
}

fn prepare(
    ctx: &Context,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    id: u64,
    metrics: &ProtocolMetrics,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let stream = Counted::new(stream, metrics.received.clone(), metrics.sent.clone());
    Ok(Connection {
        stream,
        peer,
        local,
        id,
        shutdown: ctx.shutdown.child_token(),
    })
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

fn reap(
    ended: Result<(), tokio::task::JoinError>,
    protocol: &'static str,
    metrics: &ProtocolMetrics,
) {
    if let Err(error) = ended
        && error.is_panic()
    {
        metrics.panics.inc();
        error!(protocol, %error, "a connection was ended by a bug in this program; the others go on. Please report it");
    }
}

/// Counts a connection as open for as long as its task lives, however that ends.
struct Open {
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
