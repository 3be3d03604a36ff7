//! DeleteGroups: groups that nobody is in, with their positions.

use std::sync::Arc;

use access_rules::Verb;

use crate::broker::Call;
use crate::error_code;
use crate::wire::delete_groups::*;

pub async fn handle(call: Arc<Call>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let error_code = delete(&call, &group_id)
            .await
            .err()
            .unwrap_or(error_code::NONE);
        results.push(DeletableGroupResult {
            group_id,
            error_code,
        });
    }
    DeleteGroupsResponse {
        results,
        ..Default::default()
    }
}

async fn delete(call: &Call, group_id: &str) -> Result<(), i16> {
    call.check_group(Verb::Delete, group_id)?;
    let group = call
        .broker
        .groups
        .open(group_id)
        .map_err(|refused| refused.0)?;
    let _settled = group.after_commits().await;
    if !group.look(|state| state.is_idle()) {
        return Err(error_code::NON_EMPTY_GROUP);
    }
    let deleted = call
        .kernel()
        .cursor_delete(&call.broker.groups.cursor(group_id))
        .await;
    match deleted.map_err(|error| error_code::of_group_write(&error))? {
        true => Ok(()),
        false => Err(error_code::GROUP_ID_NOT_FOUND),
    }
}
