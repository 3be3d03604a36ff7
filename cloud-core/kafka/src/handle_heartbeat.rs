//! Heartbeat: a member lives, and learns whether it has to join again.

use std::sync::Arc;

use crate::broker::Call;
use crate::group::Caller;
use crate::wire::heartbeat::*;

pub async fn handle(call: Arc<Call>, request: HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let error_code = match call.broker.groups.open(&request.group_id) {
        Ok(group) => group.change(|state, now| state.handle_heartbeat(now, &caller)),
        Err(refused) => refused.0,
    };
    HeartbeatResponse {
        error_code,
        ..Default::default()
    }
}
