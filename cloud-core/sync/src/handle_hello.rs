//! `Hello`: lets an edge in, and serves it until its connection is over.

use std::sync::Arc;

use sync_quic::{CloseCode, EdgeHandshake, HelloRefusal, HelloRefused, Pace, Welcome, WelcomeEdge};

use crate::dictionaries::Shipping;
use crate::downlink::Stopped;
use crate::frontend::Sync;
use crate::lane::{self, Served};
use crate::time::now_ms;
use crate::{downlink, queries, set_aside};

pub(crate) async fn handle(sync: &Arc<Sync>, handshake: EdgeHandshake) {
    let (hello, remote) = (handshake.hello.clone(), handshake.remote);
    let certificate = handshake.certificate.clone();
    let busy = |what: &str| (HelloRefusal::Unavailable, what.to_owned());
    let admitted = async {
        // Both are held only as long as what they count: a stampede costs no more than the limits say.
        let _waiting = sync
            .pacing
            .hello()
            .ok_or_else(|| busy("too many edges at once"))?;
        let place = sync
            .pacing
            .connection()
            .ok_or_else(|| busy("this core has as many edges as it can serve"))?;
        let admitted = sync.registry.admit(&hello, &handshake.certificate, remote);
        admitted.await.map(|()| place)
    };
    let _place = match admitted.await {
        Ok(place) => place,
        Err((code, reason)) => {
            tracing::warn!(%remote, edge = %hello.edge, %code, reason, "edge refused");
            sync.metrics.hellos_refused.inc();
            let refused = HelloRefused {
                code,
                retry: sync.pacing.retry_refused(),
                reason,
            };
            return handshake.refuse(refused).await;
        }
    };
    let welcome = Welcome {
        version: sync::VERSION,
        time_ms: now_ms(),
        max_batch: u32::try_from(kernel::limits::MAX_BATCH_BYTES.min(sync::limits::MAX_BATCH))
            .unwrap_or(u32::MAX),
        retry: sync.pacing.retry(),
        cores: Vec::new(),
    };
    let WelcomeEdge {
        connection,
        lanes,
        down_acks,
        answers,
    } = match handshake.welcome(welcome).await {
        Ok(parts) => parts,
        Err(error) => {
            return tracing::info!(edge = %hello.edge, %error, "edge went away before it was welcome");
        }
    };
    let queries = Arc::new(queries::Queries::default());
    let generation = match sync
        .registry
        .connected(&hello, &certificate, &connection, &queries)
    {
        Ok(generation) => generation,
        Err(code) => return connection.close(code, "since its hello this edge is another one"),
    };
    if let Some(retry) = sync.pacing.news() {
        for connection in sync.registry.connections() {
            connection.pace(Pace {
                bytes_per_second: 0,
                retry,
            });
        }
    }
    sync.metrics.connected.inc();
    tracing::info!(edge = %hello.edge, %remote, incarnation = hello.incarnation, software = %hello.software, "edge connected");
    let (shipping, shipped) = Shipping::new(&hello);
    let served = Served {
        sync,
        hello: &hello,
        connection: &connection,
        shipping: &shipping,
    };
    let reason = tokio::select! {
        // Ends by itself only when it has refused a frame for now; the connection closes once that is said.
        () = lane::run(served, lanes) => connection.closed().await,
        reason = connection.closed() => reason,
        stopped = downlink::run(sync, &hello, &connection, down_acks) => {
            let (code, reason) = match stopped {
                Stopped::Violation(reason) => (CloseCode::Protocol, reason),
                Stopped::Over(reason) => (CloseCode::ShuttingDown, reason),
            };
            connection.close(code, &reason);
            reason
        }
        reason = shipped.run(&connection) => reason,
        reason = async {
            set_aside::ask(sync, &hello, &connection, &queries).await;
            std::future::pending().await
        } => reason,
        reason = queries.run(answers) => {
            connection.close(CloseCode::Protocol, &reason);
            reason
        }
    };
    sync.metrics.connected.dec();
    tracing::info!(edge = %hello.edge, reason, "edge disconnected");
    sync.registry.gone(&hello.edge, generation).await;
}
