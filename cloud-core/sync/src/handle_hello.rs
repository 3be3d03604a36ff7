//! `Hello`: lets an edge in, and serves it until its connection is over.

use std::sync::Arc;

use sync_quic::{CloseCode, EdgeHandshake, HelloRefused, Retry, Welcome, WelcomeEdge};

use crate::downlink::Stopped;
use crate::frontend::Sync;
use crate::time::now_ms;
use crate::{downlink, handle_batch};

pub(crate) async fn handle(sync: &Arc<Sync>, handshake: EdgeHandshake) {
    let (hello, remote) = (handshake.hello.clone(), handshake.remote);
    let certificate = handshake.certificate.clone();
    if let Err((code, reason)) = sync.registry.admit(&hello, &handshake.certificate).await {
        tracing::warn!(%remote, edge = %hello.edge, %code, reason, "edge refused");
        let refused = HelloRefused {
            code,
            retry: Retry::default(),
            reason,
        };
        return handshake.refuse(refused).await;
    }
    let welcome = Welcome {
        version: sync::VERSION,
        time_ms: now_ms(),
        max_batch: u32::try_from(kernel::limits::MAX_BATCH_BYTES.min(sync::limits::MAX_BATCH))
            .unwrap_or(u32::MAX),
        ..Welcome::default()
    };
    let WelcomeEdge {
        connection,
        lanes,
        down_acks,
        ..
    } = match handshake.welcome(welcome).await {
        Ok(parts) => parts,
        Err(error) => {
            return tracing::info!(edge = %hello.edge, %error, "edge went away before it was welcome");
        }
    };
    let Some(generation) = sync
        .registry
        .connected(&hello.edge, &certificate, &connection)
    else {
        return connection.close(CloseCode::Revoked, "this edge was enrolled again");
    };
    sync.metrics.connected.inc();
    tracing::info!(edge = %hello.edge, %remote, software = %hello.software, "edge connected");
    let reason = tokio::select! {
        // Ends by itself only when it has refused a batch for now; the connection closes once that is said.
        () = handle_batch::run(sync, &hello, &connection, lanes) => connection.closed().await,
        reason = connection.closed() => reason,
        stopped = downlink::run(sync, &hello, &connection, down_acks) => {
            let (code, reason) = match stopped {
                Stopped::Violation(reason) => (CloseCode::Protocol, reason),
                Stopped::Over(reason) => (CloseCode::ShuttingDown, reason),
            };
            connection.close(code, &reason);
            reason
        }
    };
    sync.metrics.connected.dec();
    tracing::info!(edge = %hello.edge, reason, "edge disconnected");
    sync.registry.gone(&hello.edge, generation).await;
}
