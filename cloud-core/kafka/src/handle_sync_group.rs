//! SyncGroup: the leader hands out the assignment, everybody gets his part.

use std::sync::Arc;

use access_rules::Verb;
use tokio::sync::oneshot;

use crate::broker::Call;
use crate::error_code::*;
use crate::group::{Caller, Synced};
use crate::limits;
use crate::wire::sync_group::*;

pub async fn handle(call: Arc<Call>, request: SyncGroupRequest) -> SyncGroupResponse {
    let synced = sync(&call, request)
        .await
        .unwrap_or_else(|error_code| Synced {
            error_code,
            ..Synced::default()
        });
    SyncGroupResponse {
        error_code: synced.error_code,
        protocol_type: synced.protocol_type,
        protocol_name: synced.protocol,
        assignment: synced.assignment,
        ..Default::default()
    }
}

async fn sync(call: &Call, request: SyncGroupRequest) -> Result<Synced, i16> {
    call.check_group(Verb::Subscribe, &request.group_id)?;
    if request
        .assignments
        .iter()
        .any(|assignment| assignment.assignment.len() > limits::MAX_MEMBER_BYTES)
    {
        return Err(INVALID_REQUEST);
    }
    let group = call
        .broker
        .groups
        .open(&request.group_id)
        .map_err(|refused| refused.0)?;
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let protocol = (
        request.protocol_type.as_deref(),
        request.protocol_name.as_deref(),
    );
    let assignments = request
        .assignments
        .into_iter()
        .map(|a| (a.member_id, a.assignment.to_vec().into()))
        .collect();
    let (reply, answer) = oneshot::channel();
    group.change(|state, now| state.handle_sync(now, &caller, protocol, assignments, reply));
    // No answer: the same member has asked again, on another connection.
    answer.await.map_err(|_| REBALANCE_IN_PROGRESS)
}
