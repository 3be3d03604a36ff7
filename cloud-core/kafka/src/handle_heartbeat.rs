//! Heartbeat: a member lives, and learns whether it has to join again.

use std::sync::Arc;

use access_rules::Verb;

use crate::broker::Call;
use crate::group::Caller;
use crate::wire::heartbeat::*;

pub async fn handle(call: Arc<Call>, request: HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let allowed = call.check_group(Verb::Subscribe, &request.group_id);
    let error_code = match (allowed, call.broker.groups.open(&request.group_id)) {
        (Err(code), _) => code,
        (_, Ok(group)) => group.change(|state, now| state.handle_heartbeat(now, &caller)),
        (_, Err(refused)) => refused.0,
    };
    HeartbeatResponse {
        error_code,
        ..Default::default()
    }
}
