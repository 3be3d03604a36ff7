//! What the core knows about its edges: stored in a kernel table, with the live connections beside it.

use std::collections::BTreeMap;

use bytes::Bytes;
use frontend::Context;
use kernel::{Command, CursorName, CursorPosition, Entry, Kernel, WriteError};
use parking_lot::Mutex;
use record::{Namespace, StreamAddress, StreamName};
use serde::{Deserialize, Serialize};
use sync_quic::{
    CloseCode, EdgeConnection, EnrolGrant, EnrolRefusal, EnrolRequest, Hello, HelloRefusal,
    fingerprint,
};

use crate::authority::{Authority, hex};
use crate::limits;
use crate::time::now_ms;
use crate::tokens::{self, NewToken, StoredToken, TokenOptions};

/// The kernel table. Key: edge name. Value: JSON of [`StoredEdge`].
const TABLE: &str = "sync.edges";

/// What is kept about an edge.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredEdge {
    /// SHA-256 of the certificate that it has to show, hexadecimal.
    fingerprint: String,
    serial: String,
    certificate_expires_ms: i64,
    enrolled_ms: i64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    producer_id: Option<i64>,
    #[serde(default)]
    epoch: Option<i16>,
    #[serde(default)]
    software: Option<String>,
    #[serde(default)]
    first_seen_ms: Option<i64>,
    #[serde(default)]
    last_seen_ms: Option<i64>,
    #[serde(default)]
    last_frame: Option<u64>,
}

/// An edge as administrators see it. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub struct EdgeStatus {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub certificate_serial: String,
    pub certificate_expires_ms: i64,
    pub enrolled_ms: i64,
    pub producer_id: Option<i64>,
    pub epoch: Option<i16>,
    pub software: Option<String>,
    pub first_seen_ms: Option<i64>,
    pub last_seen_ms: Option<i64>,
    /// Highest frame of the edge's outbox that is committed here.
    pub last_frame: Option<u64>,
    /// Start of the present connection; none: not connected.
    pub connected_since_ms: Option<i64>,
    pub remote: Option<std::net::SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the entry of {what} in table {table} cannot be read: {error}")]
    Damaged {
        table: &'static str,
        what: String,
        error: serde_json::Error,
    },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("a token may live at most {} days", limits::MAX_TOKEN_TTL.as_secs() / 86_400)]
    Ttl,
    #[error(
        "at most {} labels of at most {} bytes each",
        limits::MAX_LABELS,
        limits::MAX_LABEL
    )]
    Labels,
    #[error("cannot encode: {0}")]
    Encode(serde_json::Error),
}

struct Live {
    generation: u64,
    connection: EdgeConnection,
    since_ms: i64,
}

struct Entered {
    stored: StoredEdge,
    live: Option<Live>,
}

#[derive(Default)]
struct Edges {
    by_name: BTreeMap<String, Entered>,
    generation: u64,
}

pub(crate) struct Registry {
    kernel: Kernel,
    namespace: Namespace,
    authority: Authority,
    edges: Mutex<Edges>,
    /// Held over each read, change and write of what is stored, so that two never overwrite each other.
    changing: tokio::sync::Mutex<()>,
}

fn encode(value: &impl Serialize) -> Result<Bytes, RegistryError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(RegistryError::Encode)
}

/// How many edges are enrolled: decides whether a missing authority may be made.
pub(crate) fn enrolled(kernel: &Kernel) -> usize {
    kernel.table_scan(TABLE, b"").len()
}

impl Registry {
    pub(crate) fn load(ctx: &Context, authority: Authority) -> Result<Registry, RegistryError> {
        let mut edges = Edges::default();
        for (key, value) in ctx.kernel.table_scan(TABLE, b"") {
            let name = String::from_utf8_lossy(&key).into_owned();
            let stored =
                serde_json::from_slice(&value).map_err(|error| RegistryError::Damaged {
                    table: TABLE,
                    what: name.clone(),
                    error,
                })?;
            edges.by_name.insert(name, Entered { stored, live: None });
        }
        Ok(Registry {
            kernel: ctx.kernel.clone(),
            namespace: Namespace::default(),
            authority,
            edges: Mutex::new(edges),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    pub(crate) async fn create_token(
        &self,
        options: TokenOptions,
    ) -> Result<NewToken, RegistryError> {
        if options.ttl > limits::MAX_TOKEN_TTL {
            return Err(RegistryError::Ttl);
        }
        let long = |text: &String| text.len() > limits::MAX_LABEL;
        if options.labels.len() > limits::MAX_LABELS
            || options.labels.iter().any(|(k, v)| long(k) || long(v))
        {
            return Err(RegistryError::Labels);
        }
        let (token, stored) = StoredToken::create(options, self.authority.certificate(), now_ms());
        let entry = Entry::new().put(
            tokens::TABLE,
            Bytes::from(token.token.id.clone()),
            encode(&stored)?,
        );
        self.kernel.write(entry).await?;
        Ok(token)
    }

    /// Trades a token for a certificate. A name that exists gets a new certificate, and the old one is worth nothing from then on,
    /// also where it is connected: who holds a valid token may replace a board.
    pub(crate) async fn enrol(
        &self,
        request: &EnrolRequest,
    ) -> Result<EnrolGrant, (EnrolRefusal, String)> {
        let unavailable = |error: String| (EnrolRefusal::Unavailable, error);
        if request.version != sync::VERSION {
            return Err((
                EnrolRefusal::InvalidRequest,
                format!("this core speaks version {}", sync::VERSION),
            ));
        }
        let _changing = self.changing.lock().await;
        let stored = self
            .kernel
            .table_get(tokens::TABLE, request.token_id.as_bytes());
        let Some(mut token) =
            stored.and_then(|value| serde_json::from_slice::<StoredToken>(&value).ok())
        else {
            return Err((
                EnrolRefusal::InvalidToken,
                "make a new one with `towline token create`".to_owned(),
            ));
        };
        let now = now_ms();
        token.check(&request.secret, now).map_err(|code| {
            (
                code,
                "make a new one with `towline token create`".to_owned(),
            )
        })?;
        if !is_edge_name(&request.name) {
            return Err((
                EnrolRefusal::InvalidName,
                "1 to 64 of letters, digits, `.`, `_` and `-`".to_owned(),
            ));
        }
        let certificate = self
            .authority
            .sign_edge(&request.request, &request.name)
            .map_err(|error| (EnrolRefusal::InvalidRequest, error.to_string()))?;
        token.uses += 1;

        let before = self
            .edges
            .lock()
            .by_name
            .get(&request.name)
            .map(|entered| entered.stored.clone());
        let edge = StoredEdge {
            fingerprint: hex(&fingerprint(&certificate.der)),
            serial: certificate.serial,
            certificate_expires_ms: certificate.expires_ms,
            enrolled_ms: now,
            labels: token.labels.clone(),
            producer_id: before.as_ref().and_then(|edge| edge.producer_id),
            epoch: before.as_ref().and_then(|edge| edge.epoch),
            software: before.as_ref().and_then(|edge| edge.software.clone()),
            first_seen_ms: before.as_ref().and_then(|edge| edge.first_seen_ms),
            last_seen_ms: before.as_ref().and_then(|edge| edge.last_seen_ms),
            last_frame: None,
        };
        let mut entry = Entry::new()
            .put(
                TABLE,
                Bytes::from(request.name.clone()),
                encode(&edge).map_err(|error| unavailable(error.to_string()))?,
            )
            .put(
                tokens::TABLE,
                Bytes::from(request.token_id.clone()),
                encode(&token).map_err(|error| unavailable(error.to_string()))?,
            );
        if before.is_none()
            && let Some(start) = self.downlink_start(&request.name, now)
        {
            entry.push(start);
        }
        self.kernel
            .write(entry)
            .await
            .map_err(|error| unavailable(error.to_string()))?;

        let replaced = {
            let mut edges = self.edges.lock();
            let old = edges.by_name.insert(
                request.name.clone(),
                Entered {
                    stored: edge,
                    live: None,
                },
            );
            old.and_then(|entered| entered.live)
        };
        if let Some(live) = replaced {
            live.connection
                .close(CloseCode::Revoked, "this edge was enrolled again");
        }
        if before.is_some() {
            tracing::warn!(edge = %request.name, token = %request.token_id, "edge enrolled again: its former certificate is void");
        } else {
            tracing::info!(edge = %request.name, token = %request.token_id, "edge enrolled");
        }
        Ok(EnrolGrant {
            name: request.name.clone(),
            certificate: certificate.der.into(),
            ca: self.authority.certificate().to_vec().into(),
        })
    }

    /// A new edge gets the commands that come after its enrolment, not those of an edge of that name before.
    fn downlink_start(&self, name: &str, now_ms: i64) -> Option<Command> {
        let stream = self.kernel.stream(&self.command_stream()?)?;
        let positions = stream
            .partition_ids()
            .filter_map(|partition| {
                let end = self.kernel.watermarks(partition)?.end;
                Some(CursorPosition {
                    partition,
                    offset: end,
                    metadata: Bytes::new(),
                    committed_at: now_ms,
                })
            })
            .collect();
        Some(Command::CursorCommit {
            group: cursor_name(name),
            positions,
        })
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn command_stream(&self) -> Option<StreamAddress> {
        Some(StreamAddress::new(
            self.namespace.clone(),
            StreamName::new("cmd").ok()?,
        ))
    }

    /// Whether the bearer of `certificate` may connect with this hello. What is new in the hello is durable when this returns; a
    /// reconnect says nothing new and writes nothing, so that a whole fleet can come back at once.
    pub(crate) async fn admit(
        &self,
        hello: &Hello,
        certificate: &[u8],
    ) -> Result<(), (HelloRefusal, String)> {
        if hello.version != sync::VERSION {
            return Err((
                HelloRefusal::UnsupportedVersion,
                format!("this core speaks version {}", sync::VERSION),
            ));
        }
        if hello.producer_id < 0 || hello.incarnation < 0 {
            return Err((
                HelloRefusal::UnsupportedVersion,
                "producer id and epoch must not be negative".to_owned(),
            ));
        }
        let certificate = hex(&fingerprint(certificate));
        if is_known(&self.check(hello, &certificate)?, hello) {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        // Again, since it may have changed while this waited.
        let stored = self.check(hello, &certificate)?;
        let same_producer = stored.producer_id == Some(hello.producer_id);
        if !same_producer && let Some(before) = stored.producer_id {
            tracing::warn!(edge = %hello.edge, before, now = hello.producer_id, "edge has a new producer id: its outbox was lost or emptied");
        }
        let now = now_ms();
        let changed = StoredEdge {
            producer_id: Some(hello.producer_id),
            epoch: Some(hello.incarnation),
            software: Some(hello.software.clone()),
            first_seen_ms: stored.first_seen_ms.or(Some(now)),
            last_seen_ms: Some(now),
            last_frame: if same_producer {
                stored.last_frame
            } else {
                None
            },
            ..stored
        };
        self.store(&hello.edge, changed)
            .await
            .map_err(|error| (HelloRefusal::Unavailable, error.to_string()))
    }

    fn check(
        &self,
        hello: &Hello,
        certificate: &str,
    ) -> Result<StoredEdge, (HelloRefusal, String)> {
        let edges = self.edges.lock();
        let Some(entered) = edges.by_name.get(&hello.edge) else {
            return Err((
                HelloRefusal::UnknownEdge,
                "enrol it with a new token".to_owned(),
            ));
        };
        let stored = &entered.stored;
        if stored.fingerprint != certificate {
            return Err((
                HelloRefusal::CertificateReplaced,
                "enrol it with a new token".to_owned(),
            ));
        }
        // Two edges under one producer id would take each other's batches for duplicates.
        let taken = edges.by_name.iter().find(|(name, other)| {
            **name != hello.edge && other.stored.producer_id == Some(hello.producer_id)
        });
        if let Some((other, _)) = taken {
            let reason = format!(
                "it is edge {other}'s: a data directory was copied; empty this edge's and enrol again"
            );
            return Err((HelloRefusal::ProducerTaken, reason));
        }
        let same_producer = stored.producer_id == Some(hello.producer_id);
        if let Some(epoch) = stored
            .epoch
            .filter(|epoch| same_producer && hello.incarnation < *epoch)
        {
            return Err((
                HelloRefusal::Fenced,
                format!("epoch {epoch} has connected before"),
            ));
        }
        Ok(stored.clone())
    }

    /// Needs `changing`.
    async fn store(&self, name: &str, edge: StoredEdge) -> Result<(), RegistryError> {
        let entry = Entry::new().put(
            TABLE,
            Bytes::copy_from_slice(name.as_bytes()),
            encode(&edge)?,
        );
        self.kernel.write(entry).await?;
        if let Some(entered) = self.edges.lock().by_name.get_mut(name) {
            entered.stored = edge;
        }
        Ok(())
    }

    /// The connection is the edge's only one from now on; one before it is closed. Returns the number that [`Registry::gone`]
    /// wants, or `None` when the edge was enrolled again since its hello.
    pub(crate) fn connected(
        &self,
        name: &str,
        certificate: &[u8],
        connection: &EdgeConnection,
    ) -> Option<u64> {
        let mut edges = self.edges.lock();
        edges.generation += 1;
        let generation = edges.generation;
        let entered = edges.by_name.get_mut(name)?;
        if entered.stored.fingerprint != hex(&fingerprint(certificate)) {
            return None;
        }
        let since_ms = now_ms();
        entered.stored.last_seen_ms = Some(since_ms);
        let before = entered.live.replace(Live {
            generation,
            connection: connection.clone(),
            since_ms,
        });
        drop(edges);
        if let Some(before) = before {
            tracing::info!(edge = name, "a newer connection takes over");
            before
                .connection
                .close(CloseCode::TakenOver, "a newer connection of this edge");
        }
        Some(generation)
    }

    /// A frame of the edge is committed.
    pub(crate) fn committed(&self, name: &str, frame: u64) {
        if let Some(entered) = self.edges.lock().by_name.get_mut(name) {
            // A connection that was taken over may report its last ones late.
            entered.stored.last_frame = entered.stored.last_frame.max(Some(frame));
            entered.stored.last_seen_ms = Some(now_ms());
        }
    }

    /// The connection is over; says so only if no newer one has taken over.
    pub(crate) async fn gone(&self, name: &str, generation: u64) {
        let _changing = self.changing.lock().await;
        let stored = {
            let mut edges = self.edges.lock();
            let Some(entered) = edges.by_name.get_mut(name) else {
                return;
            };
            if entered
                .live
                .as_ref()
                .is_none_or(|live| live.generation != generation)
            {
                return;
            }
            entered.live = None;
            StoredEdge {
                last_seen_ms: Some(now_ms()),
                ..entered.stored.clone()
            }
        };
        // Only for people: the next connection writes it again.
        if let Err(error) = self.store(name, stored).await {
            tracing::debug!(edge = name, %error, "last seen was not stored");
        }
    }

    pub(crate) fn edges(&self) -> Vec<EdgeStatus> {
        self.edges
            .lock()
            .by_name
            .iter()
            .map(|(name, entered)| status(name, entered))
            .collect()
    }

    pub(crate) fn edge(&self, name: &str) -> Option<EdgeStatus> {
        self.edges
            .lock()
            .by_name
            .get(name)
            .map(|entered| status(name, entered))
    }
}

fn status(name: &str, Entered { stored, live }: &Entered) -> EdgeStatus {
    EdgeStatus {
        name: name.to_owned(),
        labels: stored.labels.clone(),
        certificate_serial: stored.serial.clone(),
        certificate_expires_ms: stored.certificate_expires_ms,
        enrolled_ms: stored.enrolled_ms,
        producer_id: stored.producer_id,
        epoch: stored.epoch,
        software: stored.software.clone(),
        first_seen_ms: stored.first_seen_ms,
        last_seen_ms: stored.last_seen_ms,
        last_frame: stored.last_frame,
        connected_since_ms: live.as_ref().map(|live| live.since_ms),
        remote: live.as_ref().map(|live| live.connection.remote()),
    }
}

/// Whether the hello says nothing that is not stored.
fn is_known(stored: &StoredEdge, hello: &Hello) -> bool {
    stored.producer_id == Some(hello.producer_id)
        && stored.epoch == Some(hello.incarnation)
        && stored.software.as_deref() == Some(&hello.software)
}

/// The name becomes a topic level, a certificate's common name and a cursor's name.
fn is_edge_name(name: &str) -> bool {
    (1..=sync::limits::MAX_EDGE_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && name != "."
        && name != ".."
}

/// The cursor over the command stream of one edge.
pub(crate) fn cursor_name(edge: &str) -> CursorName {
    CursorName::from(format!("edge/{edge}").as_str())
}
