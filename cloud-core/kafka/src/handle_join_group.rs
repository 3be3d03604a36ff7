//! JoinGroup: enters a group, or answers its call to join again.

use std::sync::Arc;
use std::time::Duration;

use access_rules::Verb;
use frontend::Peer;
use tokio::sync::oneshot;

use crate::broker::Call;
use crate::error_code::*;
use crate::group::{JoinRequest, Joined};
use crate::limits;
use crate::wire::join_group::*;

pub async fn handle(call: Arc<Call>, request: JoinGroupRequest) -> JoinGroupResponse {
    let member_id = request.member_id.clone();
    let joined = match join(&call, request).await {
        Ok(joined) => joined,
        Err(error_code) => Joined {
            error_code,
            generation: -1,
            member_id,
            ..Joined::default()
        },
    };
    JoinGroupResponse {
        error_code: joined.error_code,
        generation_id: joined.generation,
        protocol_type: joined.protocol_type,
        // Null from version 7 on; before, an empty string says the same.
        protocol_name: joined
            .protocol
            .or_else(|| (call.version < 7).then(String::new)),
        leader: joined.leader,
        member_id: joined.member_id,
        members: joined
            .members
            .into_iter()
            .map(
                |(member_id, group_instance_id, metadata)| JoinGroupResponseMember {
                    member_id,
                    group_instance_id,
                    metadata,
                },
            )
            .collect(),
        ..Default::default()
    }
}

async fn join(call: &Call, request: JoinGroupRequest) -> Result<Joined, i16> {
    call.check_group(Verb::Subscribe, &request.group_id)?;
    let session = request.session_timeout_ms;
    if !(limits::MIN_SESSION_TIMEOUT_MS..=limits::MAX_SESSION_TIMEOUT_MS).contains(&session) {
        return Err(INVALID_SESSION_TIMEOUT);
    }
    if request
        .protocols
        .iter()
        .map(|protocol| protocol.metadata.len())
        .sum::<usize>()
        > limits::MAX_MEMBER_BYTES
    {
        return Err(INVALID_REQUEST);
    }
    // Version 0 has no time of its own for rebalances.
    let rebalance = if request.rebalance_timeout_ms > 0 {
        request.rebalance_timeout_ms
    } else {
        session
    };
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let group = call
        .broker
        .groups
        .open(&request.group_id)
        .map_err(|refused| refused.0)?;
    let (reply, answer) = oneshot::channel();
    let join = JoinRequest {
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        client_id: call.client_id.clone(),
        client_host: client_host(&call.peer),
        session_timeout: millis(session),
        rebalance_timeout: millis(rebalance.min(limits::MAX_SESSION_TIMEOUT_MS)),
        protocol_type: request.protocol_type,
        // Owned: as slices they would keep the whole request in memory for as long as the member lives.
        protocols: request
            .protocols
            .into_iter()
            .map(|p| (p.name, p.metadata.to_vec().into()))
            .collect(),
        id_required: call.version >= 4,
    };
    group.change(|state, now| state.handle_join(now, join, reply));
    // No answer: the same member has joined again, on another connection.
    answer.await.map_err(|_| REBALANCE_IN_PROGRESS)
}

/// As Kafka's own brokers write it: a slash, and the address.
fn client_host(peer: &Peer) -> String {
    match peer.address {
        Some(address) => format!("/{}", address.ip()),
        None => format!("/{peer}"),
    }
}
