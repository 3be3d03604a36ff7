//! Starts the front end, and is what the server holds of it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use frontend::Context;
use sync_quic::{Accepted, BindError, Handshakes, Listener, Pending, Timing, TlsListen};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::authority::{Authority, AuthorityError};
use crate::dictionaries::Dictionaries;
use crate::gap_reports::{self, GapsError, GapsPage};
use crate::handle_gap::{self, Gap, GapTotals};
use crate::metrics::{self, Metrics};
use crate::pacing::Pacing;
use crate::queries::QueryError;
use crate::registry::{self, EdgeStatus, Registry, RegistryError};
use crate::set_aside::{self, SetAside};
use crate::tokens::{NewToken, TokenOptions};
use crate::{handle_enrol, handle_hello, limits};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("sync's metrics are registered already: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What the tasks of this front end share.
pub(crate) struct Sync {
    pub(crate) ctx: Context,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) pacing: Pacing,
    pub(crate) dictionaries: Dictionaries,
    pub(crate) asked: set_aside::Asked,
}

/// A handle for the server's admin endpoints. Cheap to clone.
#[derive(Clone)]
pub struct SyncFrontend {
    sync: Arc<Sync>,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
}

impl SyncFrontend {
    /// Where edges reach the core over TLS on TCP; `None` = that is off.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// The UDP address that edges reach, with the port that was given where 0 was asked.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// All enrolled edges, by name.
    pub fn edges(&self) -> Vec<EdgeStatus> {
        self.sync.registry.edges()
    }

    pub fn edge(&self, name: &str) -> Option<EdgeStatus> {
        self.sync.registry.edge(name)
    }

    /// Ranges of the edge's lanes that will never come, by lane and place; the newest of them where there are many.
    pub fn edge_gaps(&self, name: &str) -> Vec<Gap> {
        handle_gap::gaps(&self.sync.ctx, name)
    }

    /// Of all gaps that the edge ever reported.
    pub fn edge_gap_totals(&self, name: &str) -> GapTotals {
        handle_gap::totals(&self.sync.ctx, name)
    }

    /// What the edge could not read at its starts and has set aside; `None`: nothing ever was.
    pub fn edge_set_aside(&self, name: &str) -> Option<SetAside> {
        set_aside::of(&self.sync.ctx, name)
    }

    /// The next page of every gap that stream `_gaps` has of the edge. `after`: what the page before gave as its `next`.
    pub async fn edge_gaps_page(
        &self,
        name: &str,
        after: Option<&str>,
    ) -> Result<GapsPage, GapsError> {
        let namespace = self.sync.registry.namespace();
        gap_reports::page(&self.sync.ctx, namespace, name, after).await
    }

    /// Asks an edge for its `status`; the answer is kept as the last known one.
    pub async fn edge_status(&self, name: &str) -> Result<Bytes, QueryError> {
        let said = self.edge_query(name, "status", Bytes::new()).await?;
        self.sync.registry.said(name, said.clone());
        Ok(said)
    }

    /// What an edge said last to `status` since this core was started, and when: milliseconds since 1970.
    pub fn edge_last_status(&self, name: &str) -> Option<(i64, Bytes)> {
        self.sync.registry.last_said(name)
    }

    /// Asks an edge about itself, and waits for its answer: JSON. `what` and `arguments` are the edge's to understand.
    pub async fn edge_query(
        &self,
        name: &str,
        what: &str,
        arguments: Bytes,
    ) -> Result<Bytes, QueryError> {
        let (connection, queries) = self
            .sync
            .registry
            .asking(name)
            .ok_or(QueryError::NotConnected)?;
        queries
            .ask(&connection, what, arguments, limits::QUERY_TIMEOUT)
            .await
    }

    /// Makes an enrolment token; it is durable when this returns.
    pub async fn create_token(&self, options: TokenOptions) -> Result<NewToken, RegistryError> {
        self.sync.registry.create_token(options).await
    }
}

/// Binds and serves until `ctx.shutdown` is cancelled; the handle ends when all connections are closed. Call it inside a tokio
/// runtime. Blocks for a few file operations in the data directory.
pub fn start(
    ctx: Context,
    address: SocketAddr,
    tls: TlsListen,
    timing: Timing,
) -> Result<(SyncFrontend, JoinHandle<()>), StartError> {
    let authority = Authority::open(&ctx.data_dir, registry::enrolled(&ctx.kernel))?;
    let identity = authority.core_identity()?;
    let listener = Listener::bind(address, tls, identity, timing, Handshakes::default())?;
    let address = listener.local_addr().map_err(|error| BindError::Socket {
        protocol: "udp",
        address,
        error,
    })?;
    let tls_address = listener.tls_addr();
    let metrics = Metrics::register(&ctx.registry)?;
    metrics::register_door(&ctx.registry, listener.clone())?;
    let sync = Arc::new(Sync {
        registry: Registry::load(&ctx, authority)?,
        metrics,
        pacing: Pacing::default(),
        dictionaries: Dictionaries::load(ctx.kernel.clone()),
        asked: set_aside::Asked::default(),
        ctx,
    });
    let handle = tokio::spawn(serve(sync.clone(), listener));
    let front_end = SyncFrontend {
        sync,
        address,
        tls_address,
    };
    Ok((front_end, handle))
}

async fn serve(sync: Arc<Sync>, listener: Listener) {
    let counters = sync.ctx.metrics.protocol("sync");
    let tasks = TaskTracker::new();
    loop {
        let pending = tokio::select! {
            () = sync.ctx.shutdown.cancelled() => break,
            pending = listener.accept() => match pending {
                Some(pending) => pending,
                None => break,
            },
        };
        counters.accepted.inc();
        let (sync, open) = (sync.clone(), counters.open.clone());
        tasks.spawn(async move {
            open.inc();
            serve_one(&sync, pending).await;
            open.dec();
        });
    }
    tasks.close();
    // Closes every connection, which ends every task. One that does not end holds up nobody: what it would still say, nobody hears.
    listener.close().await;
    let limit = sync.ctx.limits.drain;
    if tokio::time::timeout(limit, tasks.wait()).await.is_err() {
        let left = tasks.len();
        tracing::warn!(
            left,
            "edges are still served {limit:?} after their connections were closed"
        );
    }
}

async fn serve_one(sync: &Arc<Sync>, pending: Pending) {
    match pending.establish().await {
        Ok(Accepted::Edge(handshake)) => handle_hello::handle(sync, handshake).await,
        Ok(Accepted::Enrol(handshake)) => handle_enrol::handle(sync, handshake).await,
        Err(error) => tracing::info!(%error, "a sync client was not let in"),
    }
}
