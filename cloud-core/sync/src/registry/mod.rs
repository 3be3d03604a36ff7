//! What the core knows about its edges: stored in a kernel table, with the live connections beside it.

mod enrolment;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use frontend::Context;
use kernel::{CursorName, Entry, Kernel, WriteError};
use parking_lot::Mutex;
use record::{Namespace, StreamAddress, StreamName};
use sync_quic::{CloseCode, EdgeConnection, Hello, HelloRefusal, fingerprint};

use crate::authority::{Authority, hex};
use crate::incarnation::{self, Verdict};
use crate::limits;
use crate::queries::Queries;
use crate::stored::{EdgeLane, FencingEvent, StoredEdge, TABLE, encode};
use crate::time::now_ms;

/// An edge as administrators see it. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub struct EdgeStatus {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub certificate_serial: String,
    pub certificate_expires_ms: i64,
    pub enrolled_ms: i64,
    pub producer_id: Option<i64>,
    /// Number of its newest start.
    pub incarnation: Option<i16>,
    pub lanes: Vec<EdgeLane>,
    /// Copies that were not let in, oldest first.
    pub fenced: Vec<FencingEvent>,
    pub time_known: bool,
    pub software: Option<String>,
    pub first_seen_ms: Option<i64>,
    pub last_seen_ms: Option<i64>,
    /// Start of the present connection; none: not connected.
    pub connected_since_ms: Option<i64>,
    pub remote: Option<SocketAddr>,
    pub came: Came,
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
    queries: Arc<Queries>,
    since_ms: i64,
}

struct Entered {
    stored: StoredEdge,
    live: Option<Live>,
    came: Came,
    /// What the edge said last of itself, and when: JSON.
    said: Option<(i64, Bytes)>,
}

impl Entered {
    fn new(stored: StoredEdge) -> Entered {
        Entered {
            stored,
            live: None,
            came: Came::default(),
            said: None,
        }
    }
}

/// What came from an edge since the core was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    pub records: u64,
    /// Of batches, as they are in the log.
    pub bytes: u64,
}

#[derive(Default)]
struct Edges {
    by_name: BTreeMap<String, Entered>,
    /// Whose a producer id is or was.
    owners: HashMap<i64, String>,
    generation: u64,
}

impl Edges {
    /// Notes the producer ids of an edge.
    fn own(&mut self, name: &str, edge: &StoredEdge) {
        for id in edge.newest.retired.iter().chain(&edge.newest.producer_id) {
            self.owners.entry(*id).or_insert_with(|| name.to_owned());
        }
    }
}

pub(crate) struct Registry {
    kernel: Kernel,
    namespace: Namespace,
    authority: Authority,
    edges: Mutex<Edges>,
    /// Held over each read, change and write of what is stored of an edge, so that two never overwrite each other; chosen by its name,
    /// so that a fleet that comes back together shares the syncs of the log.
    changing: [tokio::sync::Mutex<()>; limits::EDGE_LOCKS],
    /// The same for tokens.
    changing_tokens: tokio::sync::Mutex<()>,
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
            let stored: StoredEdge =
                serde_json::from_slice(&value).map_err(|error| RegistryError::Damaged {
                    table: TABLE,
                    what: name.clone(),
                    error,
                })?;
            edges.own(&name, &stored);
            edges.by_name.insert(name, Entered::new(stored));
        }
        Ok(Registry {
            kernel: ctx.kernel.clone(),
            namespace: Namespace::default(),
            authority,
            edges: Mutex::new(edges),
            changing: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            changing_tokens: tokio::sync::Mutex::new(()),
        })
    }

    /// Waits until nobody else changes what is stored of the edge.
    pub(crate) async fn changing(&self, name: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        self.changing[(hasher.finish() % limits::EDGE_LOCKS as u64) as usize]
            .lock()
            .await
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
        remote: SocketAddr,
    ) -> Result<(), (HelloRefusal, String)> {
        is_sound(hello)?;
        let certificate = hex(&fingerprint(certificate));
        let (stored, verdict) = self.check(hello, &certificate)?;
        if verdict == Verdict::Reconnect && stored.knows(hello) {
            return Ok(());
        }
        let _changing = self.changing(&hello.edge).await;
        // Again, since it may have changed while this waited.
        let (mut stored, verdict) = self.check(hello, &certificate)?;
        let now = now_ms();
        match verdict {
            Verdict::Reconnect => {}
            Verdict::Newer(newest) => {
                let before = stored.newest.producer_id;
                if let Some(before) = before.filter(|before| *before != hello.producer_id) {
                    tracing::warn!(edge = %hello.edge, before, now = hello.producer_id, "edge has a new producer id");
                    stored.lanes.clear();
                }
                stored.newest = newest;
            }
            Verdict::Fenced(reason) => {
                self.fence(hello, remote, stored, reason.clone()).await;
                return Err((
                    HelloRefusal::Fenced,
                    format!(
                        "{reason}; if this is the one that is to go on, enrol it again with a new token"
                    ),
                ));
            }
        }
        stored.hear(hello);
        stored.first_seen_ms = stored.first_seen_ms.or(Some(now));
        stored.last_seen_ms = Some(now);
        stored.remote = Some(remote);
        self.store(&hello.edge, stored)
            .await
            .map_err(|error| (HelloRefusal::Unavailable, error.to_string()))
    }

    /// Keeps for people that a copy was not let in. Needs `changing`.
    async fn fence(
        &self,
        hello: &Hello,
        remote: SocketAddr,
        mut stored: StoredEdge,
        reason: String,
    ) {
        let now = now_ms();
        let other = self.edge(&hello.edge).and_then(|edge| edge.remote);
        let is_new = stored.fence(FencingEvent {
            first_ms: now,
            last_ms: now,
            times: 1,
            remote,
            other: other.or(stored.remote),
            producer_id: hello.producer_id,
            incarnation: hello.incarnation,
            reason,
        });
        if is_new {
            if let Err(error) = self.store(&hello.edge, stored).await {
                tracing::warn!(edge = %hello.edge, %error, "a report of a copy was not stored");
            }
        } else if let Some(entered) = self.edges.lock().by_name.get_mut(&hello.edge) {
            entered.stored.fenced = stored.fenced;
        }
    }

    fn check(
        &self,
        hello: &Hello,
        certificate: &str,
    ) -> Result<(StoredEdge, Verdict), (HelloRefusal, String)> {
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
        let ids = [Some(hello.producer_id), hello.previous_producer_id];
        // Two edges under one producer id would take each other's batches for duplicates.
        let taken = ids.iter().flatten().find_map(|id| {
            let owner = edges.owners.get(id)?;
            (*owner != hello.edge).then_some(owner)
        });
        if let Some(other) = taken {
            let reason = format!(
                "it is edge {other}'s: a data directory was copied; empty this edge's and enrol again"
            );
            return Err((HelloRefusal::ProducerTaken, reason));
        }
        Ok((stored.clone(), incarnation::judge(&stored.newest, hello)))
    }

    /// Whether the start of the edge that said `hello` is still the newest: only then what it sends can be taken for known.
    pub(crate) fn is_newest(&self, hello: &Hello) -> bool {
        let edges = self.edges.lock();
        edges
            .by_name
            .get(&hello.edge)
            .is_some_and(|entered| is_newest(&entered.stored, hello))
    }

    /// Needs `changing`.
    async fn store(&self, name: &str, edge: StoredEdge) -> Result<(), RegistryError> {
        let entry = Entry::new().put(
            TABLE,
            Bytes::copy_from_slice(name.as_bytes()),
            encode(&edge)?,
        );
        self.kernel.write(entry).await?;
        let mut edges = self.edges.lock();
        edges.own(name, &edge);
        if let Some(entered) = edges.by_name.get_mut(name) {
            // What was committed meanwhile is not older than what was read before the write.
            let before = std::mem::replace(&mut entered.stored, edge);
            if before.newest.producer_id == entered.stored.newest.producer_id {
                for lane in before.lanes {
                    if let Some(frame) = lane.last_frame {
                        entered.stored.committed(lane.number, frame);
                    }
                }
            }
        }
        Ok(())
    }

    /// The connection is the edge's only one from now on; one before it is closed. Returns the number that [`Registry::gone`]
    /// wants, or why it may not stay: since its hello it was enrolled again, or a newer start was let in.
    pub(crate) fn connected(
        &self,
        hello: &Hello,
        certificate: &[u8],
        connection: &EdgeConnection,
        queries: &Arc<Queries>,
    ) -> Result<u64, CloseCode> {
        let name = hello.edge.as_str();
        let mut edges = self.edges.lock();
        edges.generation += 1;
        let generation = edges.generation;
        let Some(entered) = edges.by_name.get_mut(name) else {
            return Err(CloseCode::Revoked);
        };
        if entered.stored.fingerprint != hex(&fingerprint(certificate)) {
            return Err(CloseCode::Revoked);
        }
        if !is_newest(&entered.stored, hello) {
            return Err(CloseCode::TakenOver);
        }
        let since_ms = now_ms();
        entered.stored.last_seen_ms = Some(since_ms);
        let before = entered.live.replace(Live {
            generation,
            connection: connection.clone(),
            queries: queries.clone(),
            since_ms,
        });
        drop(edges);
        if let Some(before) = before {
            tracing::info!(edge = name, "a newer connection takes over");
            before
                .connection
                .close(CloseCode::TakenOver, "a newer connection of this edge");
        }
        Ok(generation)
    }

    /// What asks an edge that is connected.
    pub(crate) fn asking(&self, name: &str) -> Option<(EdgeConnection, Arc<Queries>)> {
        let edges = self.edges.lock();
        let live = edges.by_name.get(name)?.live.as_ref()?;
        Some((live.connection.clone(), live.queries.clone()))
    }

    /// Notes what an edge says of itself.
    pub(crate) fn said(&self, name: &str, said: Bytes) {
        if let Some(entered) = self.edges.lock().by_name.get_mut(name) {
            entered.said = Some((now_ms(), said));
        }
    }

    /// What an edge said last of itself, and when.
    pub(crate) fn last_said(&self, name: &str) -> Option<(i64, Bytes)> {
        self.edges.lock().by_name.get(name)?.said.clone()
    }

    /// The connections of all edges that are connected.
    pub(crate) fn connections(&self) -> Vec<EdgeConnection> {
        let edges = self.edges.lock();
        let live = edges.by_name.values().filter_map(|edge| edge.live.as_ref());
        live.map(|live| live.connection.clone()).collect()
    }

    /// A frame of the edge is committed.
    pub(crate) fn committed(&self, name: &str, lane: u8, frame: u64, came: Came) {
        if let Some(entered) = self.edges.lock().by_name.get_mut(name) {
            entered.came.records += came.records;
            entered.came.bytes += came.bytes;
            entered.stored.committed(lane, frame);
            entered.stored.last_seen_ms = Some(now_ms());
        }
    }

    /// The connection is over; says so only if no newer one has taken over.
    pub(crate) async fn gone(&self, name: &str, generation: u64) {
        let _changing = self.changing(name).await;
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

fn status(name: &str, entered: &Entered) -> EdgeStatus {
    let Entered { stored, live, .. } = entered;
    EdgeStatus {
        came: entered.came,
        name: name.to_owned(),
        labels: stored.labels.clone(),
        certificate_serial: stored.serial.clone(),
        certificate_expires_ms: stored.certificate_expires_ms,
        enrolled_ms: stored.enrolled_ms,
        producer_id: stored.newest.producer_id,
        incarnation: stored.newest.incarnation,
        lanes: stored.lanes.clone(),
        fenced: stored.fenced.clone(),
        time_known: stored.time_known,
        software: stored.software.clone(),
        first_seen_ms: stored.first_seen_ms,
        last_seen_ms: stored.last_seen_ms,
        connected_since_ms: live.as_ref().map(|live| live.since_ms),
        remote: live.as_ref().map(|live| live.connection.remote()),
    }
}

fn is_newest(stored: &StoredEdge, hello: &Hello) -> bool {
    let newest = &stored.newest;
    (newest.producer_id, newest.incarnation, newest.nonce)
        == (
            Some(hello.producer_id),
            Some(hello.incarnation),
            Some(hello.nonce),
        )
}

/// What of a hello does not depend on who says it.
fn is_sound(hello: &Hello) -> Result<(), (HelloRefusal, String)> {
    if hello.version != sync::VERSION {
        return Err((
            HelloRefusal::UnsupportedVersion,
            format!("this core speaks version {}", sync::VERSION),
        ));
    }
    let invalid = |reason: &str| Err((HelloRefusal::Invalid, reason.to_owned()));
    let is_base = |id: i64| id >= 0 && id & 0xff == 0;
    if !is_base(hello.producer_id) || !hello.previous_producer_id.is_none_or(is_base) {
        return invalid("a producer id is not negative, and its low byte is 0: that is the lane");
    }
    if hello.previous_producer_id == Some(hello.producer_id) {
        return invalid("the previous producer id is the present one");
    }
    if hello.incarnation < 0 {
        return invalid("the incarnation is negative");
    }
    let mut numbers: Vec<u8> = hello.lanes.iter().map(|lane| lane.number).collect();
    numbers.sort_unstable();
    if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid("two lanes have one number");
    }
    Ok(())
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

/// Stands with a position of that cursor when the edge is to get first what is retained for it.
pub(crate) const RETAINED_FIRST: &[u8] = b"retained first";

/// The cursor over the command stream of one edge.
pub(crate) fn cursor_name(edge: &str) -> CursorName {
    CursorName::from(format!("edge/{edge}").as_str())
}
