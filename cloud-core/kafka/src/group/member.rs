//! A member of a group, and what it came with.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::state::{Joined, Synced};

/// What a client says when it joins.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// Empty for a newcomer.
    pub member_id: String,
    /// Of a static member (KIP-345).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocol_type: String,
    /// Assignors the member knows, by preference, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a newcomer must come again with the id it is given (KIP-394), so that a lost answer leaves no ghost.
    pub id_required: bool,
}

/// A member.
#[derive(Debug)]
pub struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocols: Vec<(String, Bytes)>,
    /// What the leader gave it.
    pub assignment: Bytes,
    /// When it counts as dead unless it is heard of, or waits for us.
    pub expires: Instant,
    /// Order of arrival; the first leads.
    pub arrival: u64,
    /// Its JoinGroup, waiting for the others.
    pub joining: Option<oneshot::Sender<Joined>>,
    /// Its SyncGroup, waiting for the leader.
    pub syncing: Option<oneshot::Sender<Synced>>,
}

impl Member {
    pub fn new(request: &JoinRequest, arrival: u64, now: Instant) -> Member {
        Member {
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            expires: now + request.session_timeout,
            arrival,
            joining: None,
            syncing: None,
        }
    }

    pub fn heard(&mut self, now: Instant) {
        self.expires = now + self.session_timeout;
    }

    /// Whether its client waits for an answer of ours: then it is alive, however long we take.
    pub fn waits(&self) -> bool {
        self.joins()
            || self
                .syncing
                .as_ref()
                .is_some_and(|sender| !sender.is_closed())
    }

    /// Whether its JoinGroup waits, and somebody still waits for the answer.
    pub fn joins(&self) -> bool {
        self.joining
            .as_ref()
            .is_some_and(|sender| !sender.is_closed())
    }

    /// The metadata it gave for an assignor.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }
}
