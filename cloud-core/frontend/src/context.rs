//! What a front end is started with.

use std::path::Path;
use std::sync::Arc;

use kernel::ports::{Clock, SystemClock};
use kernel::{CreateStreamError, Kernel, Stream};
use prometheus::Registry;
use quota::Quotas;
use record::StreamAddress;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::identity::{Jwt, UnreadableError};
use crate::{Access, Advertise, Anonymous, Identity, Limits, ListenerMetrics};

/// Everything a front end needs from the process around it. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub kernel: Kernel,
    pub limits: Arc<Limits>,
    /// Where a front end registers its metrics (names start with `towline_`).
    pub registry: Registry,
    /// Counters of the accept loop; a front end that accepts by itself (sync) counts here too.
    pub metrics: ListenerMetrics,
    /// Cancelled when the process is asked to stop.
    pub shutdown: CancellationToken,
    pub advertise: Arc<Advertise>,
    pub streams: StreamDefaults,
    /// Made at the first start of a data directory, the same ever after. Kafka's cluster id.
    pub cluster_id: Arc<str>,
    /// New at each start of the process: what was leased or connected under another one is gone.
    pub start_id: Uuid,
    /// The clock that record timestamps are taken from.
    pub clock: Arc<dyn Clock>,
    /// Who clients are.
    pub identity: Identity,
    /// What they may do.
    pub access: Access,
    /// How much of it.
    pub quotas: Arc<Quotas>,
    /// The data directory, for what is not the kernel's: keys and certificates.
    pub data_dir: Arc<Path>,
}

/// How streams come into being that nobody created by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamDefaults {
    /// Whether writing to (or, in Kafka, asking for) an unknown stream creates it.
    pub auto_create: bool,
    /// Partitions of a stream where the creator names no number.
    pub partitions: u32,
}

impl Default for StreamDefaults {
    fn default() -> StreamDefaults {
        StreamDefaults {
            auto_create: true,
            partitions: 1,
        }
    }
}

/// Why there is no stream to write to.
#[derive(Debug, thiserror::Error)]
pub enum StreamForWriteError {
    #[error(
        "stream {0} does not exist and auto_create is off: create it with `towline stream create {0}`"
    )]
    Unknown(record::StreamName),
    #[error(transparent)]
    Create(#[from] CreateStreamError),
}

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("a metric could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Unreadable(#[from] UnreadableError),
}

impl Context {
    /// A context with defaults: a registry of its own, no advertised addresses, streams created on demand. The server
    /// fills in the rest; a front end's tests use it as it is.
    pub fn new(kernel: Kernel, data_dir: &Path) -> Result<Context, ContextError> {
        Context::with(kernel, data_dir, Anonymous::default(), None)
    }

    /// The same, where it is said who may come without a user, and what tokens are taken.
    pub fn with(
        kernel: Kernel,
        data_dir: &Path,
        anonymous: Anonymous,
        jwt: Option<Arc<Jwt>>,
    ) -> Result<Context, ContextError> {
        let secret = credentials::scram_secret(data_dir);
        let identity = Identity::open(kernel.clone(), anonymous, jwt, secret)?;
        let access = Access::open(kernel.clone(), identity.clone())?;
        let registry = Registry::new();
        let metrics = ListenerMetrics::register(&registry)?;
        Ok(Context {
            kernel,
            limits: Arc::new(Limits::default()),
            registry,
            metrics,
            shutdown: CancellationToken::new(),
            advertise: Arc::new(Advertise::default()),
            streams: StreamDefaults::default(),
            cluster_id: Uuid::new_v4().simple().to_string().into(),
            start_id: Uuid::new_v4(),
            clock: Arc::new(SystemClock::default()),
            identity,
            access,
            quotas: Arc::default(),
            data_dir: data_dir.into(),
        })
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The stream a client writes to: the existing one, or a new one where [`StreamDefaults::auto_create`] allows it.
    pub async fn stream_for_write(
        &self,
        address: &StreamAddress,
    ) -> Result<Arc<Stream>, StreamForWriteError> {
        if let Some(stream) = self.kernel.stream(address) {
            return Ok(stream);
        }
        if !self.streams.auto_create {
            return Err(StreamForWriteError::Unknown(address.name.clone()));
        }
        Ok(self.kernel.ensure_stream(address).await?)
    }
}
