// long: one state machine; its transitions are read together.
//! The machine of one group: Kafka's classic rebalance protocol. Time is an argument; answers that must wait are senders.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::member::{JoinRequest, Member};
use super::subscription;
use crate::error_code::*;
use crate::limits;

/// Where a group stands. The names are those that clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Empty,
    /// Members are called to join again, until all have or the deadline passes.
    PreparingRebalance {
        until: Instant,
        first: Option<Instant>,
    },
    /// All have joined; the leader has not handed out the assignment yet.
    CompletingRebalance {
        until: Instant,
    },
    Stable,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Empty => "Empty",
            Phase::PreparingRebalance { .. } => "PreparingRebalance",
            Phase::CompletingRebalance { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }
}

/// The answer to JoinGroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    pub error_code: i16,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub member_id: String,
    /// For the leader: id, instance id and metadata of all.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

impl Joined {
    fn failed(member_id: &str, error_code: i16) -> Joined {
        Joined {
            error_code,
            generation: -1,
            member_id: member_id.to_owned(),
            ..Joined::default()
        }
    }
}

/// The answer to SyncGroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    pub error_code: i16,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

impl Synced {
    fn failed(error_code: i16) -> Synced {
        Synced {
            error_code,
            ..Synced::default()
        }
    }
}

/// One group.
#[derive(Debug)]
pub struct GroupState {
    phase: Phase,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids given out to newcomers that have not come back with them yet, and until when they may.
    expected: HashMap<String, Instant>,
    arrivals: u64,
}

impl GroupState {
    pub fn new() -> GroupState {
        GroupState {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            expected: HashMap::new(),
            arrivals: 0,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn members(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter()
    }

    pub fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    pub fn protocol(&self) -> &str {
        self.protocol.as_deref().unwrap_or_default()
    }

    /// Nobody is in it or on the way.
    pub fn is_idle(&self) -> bool {
        self.members.is_empty() && self.expected.is_empty()
    }

    /// Whether a member has subscribed to `topic`; also when that cannot be known.
    pub fn subscribes(&self, topic: &str) -> bool {
        let metadata = self
            .members
            .values()
            .flat_map(|member| member.protocols.iter().map(|(_, metadata)| metadata));
        metadata
            .into_iter()
            .any(|metadata| match subscription::topics(metadata) {
                Some(topics) => topics.iter().any(|subscribed| subscribed == topic),
                None => true,
            })
    }

    /// JoinGroup. The answer comes through `reply`, at once or when the rebalance is done.
    pub fn handle_join(
        &mut self,
        now: Instant,
        request: JoinRequest,
        reply: oneshot::Sender<Joined>,
    ) {
        let (id, reply) = match self.admit(now, &request) {
            Ok(Admitted::Answer(joined)) => {
                let _ = reply.send(joined);
                return;
            }
            Ok(Admitted::Member(id)) => (id, reply),
            Err(error_code) => {
                let _ = reply.send(Joined::failed(&request.member_id, error_code));
                return;
            }
        };
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.heard(now);
        member.joining = Some(reply);
        match self.phase {
            Phase::PreparingRebalance {
                first: Some(first), ..
            } => {
                // More may follow: the wait begins anew, up to the time that the members allow for a rebalance.
                let until = (now + initial_delay()).min(first + self.rebalance_timeout());
                self.phase = Phase::PreparingRebalance {
                    until,
                    first: Some(first),
                };
            }
            Phase::PreparingRebalance { .. } => self.complete_join_if_all_are_here(now),
            _ => self.prepare_rebalance(now),
        }
    }

    /// Decides whether a join is a member that waits (its id), or is answered now.
    fn admit(&mut self, now: Instant, request: &JoinRequest) -> Result<Admitted, i16> {
        if request.protocol_type.is_empty() || !self.understands(request) {
            return Err(INCONSISTENT_GROUP_PROTOCOL);
        }
        if !request.member_id.is_empty() {
            return self.admit_known(now, request);
        }
        if let Some(instance) = &request.instance_id
            && let Some(old) = self.by_instance(instance)
        {
            return Ok(self.replace_static(now, &old, request));
        }
        if self.members.len() + self.expected.len() >= limits::MAX_GROUP_MEMBERS {
            return Err(GROUP_MAX_SIZE_REACHED);
        }
        let id = new_member_id(request);
        if request.id_required && request.instance_id.is_none() {
            self.expected
                .insert(id.clone(), now + request.session_timeout);
            return Ok(Admitted::Answer(Joined::failed(&id, MEMBER_ID_REQUIRED)));
        }
        self.add(now, &id, request);
        Ok(Admitted::Member(id))
    }

    fn admit_known(&mut self, now: Instant, request: &JoinRequest) -> Result<Admitted, i16> {
        let id = &request.member_id;
        if let Some(instance) = &request.instance_id {
            match self.by_instance(instance) {
                Some(current) if current == *id => {}
                Some(_) => return Err(FENCED_INSTANCE_ID),
                None => return Err(UNKNOWN_MEMBER_ID),
            }
        }
        if self.expected.remove(id).is_some() {
            self.add(now, id, request);
            return Ok(Admitted::Member(id.clone()));
        }
        let is_leader = self.leader.as_ref() == Some(id);
        let Some(member) = self.members.get_mut(id) else {
            return Err(UNKNOWN_MEMBER_ID);
        };
        let same = member.protocols == request.protocols;
        member.protocols.clone_from(&request.protocols);
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout;
        member.heard(now);
        // Its answer may have been lost: the same again. A leader that joins anew wants a new assignment.
        let answered = match self.phase {
            Phase::CompletingRebalance { .. } => same,
            Phase::Stable => same && !is_leader,
            Phase::Empty | Phase::PreparingRebalance { .. } => false,
        };
        Ok(if answered {
            Admitted::Answer(self.joined(id))
        } else {
            Admitted::Member(id.clone())
        })
    }

    /// A static member came back under a new id. When it is no leader and wants what it wanted, nobody else is disturbed.
    fn replace_static(&mut self, now: Instant, old: &str, request: &JoinRequest) -> Admitted {
        let id = new_member_id(request);
        let Some(mut member) = self.members.remove(old) else {
            return Admitted::Answer(Joined::failed("", UNKNOWN_MEMBER_ID));
        };
        if let Some(joining) = member.joining.take() {
            let _ = joining.send(Joined::failed(old, FENCED_INSTANCE_ID));
        }
        if let Some(syncing) = member.syncing.take() {
            let _ = syncing.send(Synced::failed(FENCED_INSTANCE_ID));
        }
        let was_leader = self.leader.as_deref() == Some(old);
        if was_leader {
            self.leader = Some(id.clone());
        }
        let quiet =
            self.phase == Phase::Stable && !was_leader && member.protocols == request.protocols;
        let assignment = member.assignment;
        let mut member = Member::new(request, member.arrival, now);
        member.assignment = assignment;
        self.members.insert(id.clone(), member);
        if quiet {
            Admitted::Answer(self.joined(&id))
        } else {
            Admitted::Member(id)
        }
    }

    /// SyncGroup. The answer comes through `reply`, at once or when the leader's has come.
    pub fn handle_sync(
        &mut self,
        now: Instant,
        caller: &Caller<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        reply: oneshot::Sender<Synced>,
    ) {
        let checked = self.check(caller).and_then(|()| {
            let same = |asked: Option<&str>, ours: &Option<String>| {
                asked.is_none() || asked == ours.as_deref()
            };
            let agreed = same(protocol.0, &self.protocol_type) && same(protocol.1, &self.protocol);
            if agreed {
                Ok(())
            } else {
                Err(INCONSISTENT_GROUP_PROTOCOL)
            }
        });
        let answer = match (checked, self.phase) {
            (Err(error_code), _) => Synced::failed(error_code),
            (Ok(()), Phase::Empty) => Synced::failed(UNKNOWN_MEMBER_ID),
            (Ok(()), Phase::PreparingRebalance { .. }) => Synced::failed(REBALANCE_IN_PROGRESS),
            (Ok(()), Phase::Stable) => {
                self.heard(now, caller.member_id);
                self.synced(caller.member_id)
            }
            (Ok(()), Phase::CompletingRebalance { .. }) => {
                self.heard(now, caller.member_id);
                if let Some(member) = self.members.get_mut(caller.member_id) {
                    member.syncing = Some(reply);
                }
                if self.leader.as_deref() == Some(caller.member_id) {
                    self.complete_sync(now, assignments);
                }
                return;
            }
        };
        let _ = reply.send(answer);
    }

    /// Heartbeat.
    pub fn handle_heartbeat(&mut self, now: Instant, caller: &Caller<'_>) -> i16 {
        if let Err(error_code) = self.check(caller) {
            return error_code;
        }
        self.heard(now, caller.member_id);
        match self.phase {
            Phase::Empty => UNKNOWN_MEMBER_ID,
            Phase::PreparingRebalance { .. } => REBALANCE_IN_PROGRESS,
            Phase::CompletingRebalance { .. } | Phase::Stable => NONE,
        }
    }

    /// LeaveGroup of one member, named by its id or, if static, by its instance id.
    pub fn handle_leave(
        &mut self,
        now: Instant,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> i16 {
        let id = match instance_id.map(|instance| self.by_instance(instance)) {
            Some(None) => return UNKNOWN_MEMBER_ID,
            Some(Some(current)) if member_id.is_empty() || current == member_id => current,
            Some(Some(_)) => return FENCED_INSTANCE_ID,
            None => member_id.to_owned(),
        };
        if self.expected.remove(&id).is_some() {
            self.complete_join_if_all_are_here(now);
            return NONE;
        }
        if !self.members.contains_key(&id) {
            return UNKNOWN_MEMBER_ID;
        }
        self.remove(&id, UNKNOWN_MEMBER_ID);
        self.after_removal(now);
        NONE
    }

    /// Whether the caller may commit positions now. A commit of a member also says that it lives.
    pub fn handle_commit(&mut self, now: Instant, caller: &Caller<'_>) -> i16 {
        if caller.generation < 0 && caller.member_id.is_empty() && caller.instance_id.is_none() {
            // A consumer that assigns partitions to itself, or a tool that resets a group nobody is in.
            return if self.members.is_empty() {
                NONE
            } else {
                UNKNOWN_MEMBER_ID
            };
        }
        if let Err(error_code) = self.check(caller) {
            return error_code;
        }
        self.heard(now, caller.member_id);
        match self.phase {
            Phase::Stable | Phase::PreparingRebalance { .. } => NONE,
            Phase::CompletingRebalance { .. } => REBALANCE_IN_PROGRESS,
            Phase::Empty => UNKNOWN_MEMBER_ID,
        }
    }

    /// When [`GroupState::handle_timeout`] has something to do, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::PreparingRebalance { until, .. } | Phase::CompletingRebalance { until } => {
                Some(until)
            }
            Phase::Empty | Phase::Stable => None,
        };
        let silent = self
            .members
            .values()
            .filter(|member| !member.waits())
            .map(|member| member.expires);
        silent
            .chain(self.expected.values().copied())
            .chain(phase)
            .min()
    }

    /// Removes who was silent for too long, and ends waits that have lasted long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expected.retain(|_, until| *until > now);
        let dead: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| !member.waits() && member.expires <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &dead {
            self.remove(id, UNKNOWN_MEMBER_ID);
        }
        match self.phase {
            Phase::PreparingRebalance { until, .. } if until <= now => self.complete_join(now),
            Phase::CompletingRebalance { until } if until <= now => {
                let absent: Vec<String> = self
                    .members
                    .iter()
                    .filter(|(_, member)| !member.waits())
                    .map(|(id, _)| id.clone())
                    .collect();
                for id in &absent {
                    self.remove(id, UNKNOWN_MEMBER_ID);
                }
                self.after_removal(now);
            }
            _ if !dead.is_empty() => self.after_removal(now),
            _ => self.complete_join_if_all_are_here(now),
        }
    }

    fn check(&self, caller: &Caller<'_>) -> Result<(), i16> {
        if let Some(instance) = caller.instance_id {
            match self.by_instance(instance) {
                None => return Err(UNKNOWN_MEMBER_ID),
                Some(current) if current != caller.member_id => return Err(FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        if !self.members.contains_key(caller.member_id) {
            return Err(UNKNOWN_MEMBER_ID);
        }
        if caller.generation != self.generation {
            return Err(ILLEGAL_GENERATION);
        }
        Ok(())
    }

    fn heard(&mut self, now: Instant, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now);
        }
    }

    fn by_instance(&self, instance: &str) -> Option<String> {
        let found = self
            .members
            .iter()
            .find(|(_, member)| member.instance_id.as_deref() == Some(instance));
        found.map(|(id, _)| id.clone())
    }

    /// Whether all the others know an assignor that the request knows.
    fn understands(&self, request: &JoinRequest) -> bool {
        let others: Vec<&Member> = self
            .members
            .iter()
            .filter(|(id, _)| **id != request.member_id)
            .map(|(_, member)| member)
            .collect();
        if others.is_empty() {
            return !request.protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request
                .protocols
                .iter()
                .any(|(name, _)| others.iter().all(|other| knows(other, name)))
    }

    fn add(&mut self, now: Instant, id: &str, request: &JoinRequest) {
        self.arrivals += 1;
        self.members
            .insert(id.to_owned(), Member::new(request, self.arrivals, now));
        self.protocol_type = Some(request.protocol_type.clone());
    }

    fn remove(&mut self, id: &str, error_code: i16) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(joining) = member.joining {
            let _ = joining.send(Joined::failed(id, error_code));
        }
        if let Some(syncing) = member.syncing {
            let _ = syncing.send(Synced::failed(error_code));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
    }

    fn after_removal(&mut self, now: Instant) {
        match self.phase {
            Phase::PreparingRebalance { .. } => self.complete_join_if_all_are_here(now),
            _ => self.prepare_rebalance(now),
        }
    }

    fn prepare_rebalance(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if let Some(syncing) = member.syncing.take() {
                // While it waited it sent no heartbeats: its time begins now.
                member.heard(now);
                let _ = syncing.send(Synced::failed(REBALANCE_IN_PROGRESS));
            }
        }
        let (until, first) = match self.phase {
            Phase::Empty => (now + initial_delay(), Some(now)),
            _ => (now + self.rebalance_timeout(), None),
        };
        self.phase = Phase::PreparingRebalance { until, first };
        self.complete_join_if_all_are_here(now);
    }

    fn complete_join_if_all_are_here(&mut self, now: Instant) {
        if let Phase::PreparingRebalance { first, .. } = self.phase {
            // The first rebalance of a group waits for its time, since nobody knows how many will come.
            let all = first.is_none()
                && self.expected.is_empty()
                && self.members.values().all(Member::joins);
            if all || self.is_idle() {
                self.complete_join(now);
            }
        }
    }

    fn complete_join(&mut self, now: Instant) {
        let absent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| !member.joins())
            .map(|(id, _)| id.clone())
            .collect();
        for id in &absent {
            self.remove(id, UNKNOWN_MEMBER_ID);
        }
        // Kafka's generations wrap nowhere: 2^31 rebalances are not reached; past that they begin again at 1.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader = None;
            self.protocol = None;
            return;
        }
        self.protocol = self.vote();
        if self.leader.is_none() {
            let first = self.members.iter().min_by_key(|(_, member)| member.arrival);
            self.leader = first.map(|(id, _)| id.clone());
        }
        self.phase = Phase::CompletingRebalance {
            until: now + self.rebalance_timeout(),
        };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in &ids {
            let joined = self.joined(id);
            if let Some(member) = self.members.get_mut(id) {
                member.heard(now);
                member.assignment = Bytes::new();
                if let Some(joining) = member.joining.take() {
                    let _ = joining.send(joined);
                }
            }
        }
    }

    fn complete_sync(&mut self, now: Instant, assignments: Vec<(String, Bytes)>) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in &ids {
            let synced = self.synced(id);
            if let Some(member) = self.members.get_mut(id)
                && let Some(syncing) = member.syncing.take()
            {
                member.heard(now);
                let _ = syncing.send(synced);
            }
        }
    }

    /// The assignor that all know and most prefer.
    fn vote(&self) -> Option<String> {
        let mut candidates: Option<HashSet<&str>> = None;
        for member in self.members.values() {
            let known: HashSet<&str> = member
                .protocols
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            candidates = Some(match candidates {
                None => known,
                Some(before) => &before & &known,
            });
        }
        let candidates = candidates?;
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let preferred = member
                .protocols
                .iter()
                .map(|(name, _)| name.as_str())
                .find(|name| candidates.contains(name));
            *votes.entry(preferred?).or_default() += 1;
        }
        votes
            .into_iter()
            .max_by_key(|(_, votes)| *votes)
            .map(|(name, _)| name.to_owned())
    }

    fn joined(&self, id: &str) -> Joined {
        let members = if self.leader.as_deref() == Some(id) {
            let all = self.members.iter();
            all.map(|(id, member)| {
                (
                    id.clone(),
                    member.instance_id.clone(),
                    member.metadata(self.protocol()),
                )
            })
            .collect()
        } else {
            Vec::new()
        };
        Joined {
            error_code: NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members,
        }
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            error_code: NONE,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .members
                .get(id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members
            .values()
            .map(|member| member.rebalance_timeout)
            .max()
            .unwrap_or_default()
    }
}

/// Who sends a request of a member, and what it believes.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
}

enum Admitted {
    Member(String),
    Answer(Joined),
}

fn knows(member: &Member, protocol: &str) -> bool {
    member.protocols.iter().any(|(name, _)| name == protocol)
}

fn initial_delay() -> Duration {
    Duration::from_millis(limits::INITIAL_REBALANCE_DELAY_MS)
}

/// The client's or instance's name and something nobody can guess.
fn new_member_id(request: &JoinRequest) -> String {
    let name = request.instance_id.as_deref().unwrap_or(&request.client_id);
    let name: String = name.chars().take(limits::MAX_MEMBER_NAME).collect();
    format!("{name}-{}", Uuid::new_v4())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
