//! The MQTT listener: takes connections, as many as are allowed, and waits for them at the end.

use std::sync::Arc;

use mqtt_broker::Broker;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::EdgeBackend;
use crate::limits;

/// Serves until `shutdown`, then until all connections have ended or their time is over.
pub async fn serve(
    listener: TcpListener,
    broker: Arc<Broker<EdgeBackend>>,
    max_connections: usize,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection can not be accepted");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(%peer, max_connections, "too many connections: this one is closed");
            continue;
        };
        // Small packets both ways: waiting to fill a segment only adds latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        let broker = broker.clone();
        connections.spawn(async move {
            broker.serve(stream).await;
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
