//! ListGroups: those with members, and those that only have positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use access_rules::Verb;

use crate::broker::Call;
use crate::group::Phase;
use crate::wire::list_groups::*;

/// The only kind of group there is here.
const TYPE: &str = "classic";

pub async fn handle(call: Arc<Call>, request: ListGroupsRequest) -> ListGroupsResponse {
    let mut groups: BTreeMap<String, (String, &'static str)> = BTreeMap::new();
    for id in call.broker.groups.with_positions() {
        groups.insert(id, (String::new(), Phase::Empty.name()));
    }
    for (id, group) in call.broker.groups.all() {
        let found = group.look(|state| (state.protocol_type().to_owned(), state.phase().name()));
        groups.insert(id, found);
    }
    let passes = |filter: &[String], value: &str| {
        filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
    };
    let groups = groups
        .into_iter()
        .filter(|(id, _)| call.check_group(Verb::Describe, id).is_ok())
        .filter(|(_, (_, phase))| {
            passes(&request.states_filter, phase) && passes(&request.types_filter, TYPE)
        })
        .map(|(group_id, (protocol_type, phase))| ListedGroup {
            group_id,
            protocol_type,
            group_state: phase.to_owned(),
            group_type: TYPE.to_owned(),
        });
    ListGroupsResponse {
        groups: groups.collect(),
        ..Default::default()
    }
}
