//! DescribeGroups: phase and members.

use std::sync::Arc;

use access_rules::Verb;

use crate::broker::Call;
use crate::error_code;
use crate::group::{GroupState, Phase};
use crate::wire::describe_groups::*;

pub async fn handle(call: Arc<Call>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let stored = call.broker.groups.with_positions();
    let groups = request
        .groups
        .into_iter()
        .map(|id| match call.broker.groups.get(&id) {
            _ if call.check_group(Verb::Describe, &id).is_err() => DescribedGroup {
                error_code: error_code::GROUP_AUTHORIZATION_FAILED,
                group_id: id,
                ..Default::default()
            },
            Some(group) => group.look(|state| describe(id, state)),
            None if stored.contains(&id) => DescribedGroup {
                group_id: id,
                group_state: Phase::Empty.name().to_owned(),
                ..Default::default()
            },
            // Older versions have no error for it, and say that a group that is not there is dead.
            None => DescribedGroup {
                error_code: if call.version >= 6 {
                    error_code::GROUP_ID_NOT_FOUND
                } else {
                    error_code::NONE
                },
                error_message: Some(format!("there is no group {id}")),
                group_id: id,
                group_state: "Dead".to_owned(),
                ..Default::default()
            },
        });
    DescribeGroupsResponse {
        groups: groups.collect(),
        ..Default::default()
    }
}

fn describe(group_id: String, state: &GroupState) -> DescribedGroup {
    let members = state.members().map(|(id, member)| DescribedGroupMember {
        member_id: id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: member.metadata(state.protocol()),
        member_assignment: member.assignment.clone(),
    });
    DescribedGroup {
        group_id,
        group_state: state.phase().name().to_owned(),
        protocol_type: state.protocol_type().to_owned(),
        protocol_data: state.protocol().to_owned(),
        members: members.collect(),
        ..Default::default()
    }
}
