//! LeaveGroup: one member by itself, or several by an administrator.

use std::sync::Arc;

use access_rules::Verb;

use crate::broker::Call;
use crate::error_code;
use crate::wire::leave_group::*;

pub async fn handle(call: Arc<Call>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if let Err(error_code) = call.check_group(Verb::Subscribe, &request.group_id) {
        return LeaveGroupResponse {
            error_code,
            ..Default::default()
        };
    }
    let group = match call.broker.groups.open(&request.group_id) {
        Ok(group) => group,
        Err(refused) => {
            return LeaveGroupResponse {
                error_code: refused.0,
                ..Default::default()
            };
        }
    };
    let leave = |member: &str, instance: Option<&str>| {
        group.change(|state, now| state.handle_leave(now, member, instance))
    };
    if call.version < 3 {
        return LeaveGroupResponse {
            error_code: leave(&request.member_id, None),
            ..Default::default()
        };
    }
    let members = request.members.into_iter().map(|member| MemberResponse {
        error_code: leave(&member.member_id, member.group_instance_id.as_deref()),
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
    });
    LeaveGroupResponse {
        error_code: error_code::NONE,
        members: members.collect(),
        ..Default::default()
    }
}
