//! FindCoordinator: every group is kept here.

use std::sync::Arc;

use access_rules::Verb;

use crate::broker::{Call, NODE_ID};
use crate::error_code::{self, NO_TRANSACTIONS};
use crate::wire::find_coordinator::*;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub async fn handle(call: Arc<Call>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (host, port) = call.advertised();
    let find = |key: String| match request.key_type {
        GROUP if call.check_group(Verb::Describe, &key).is_err() => none(
            key,
            error_code::GROUP_AUTHORIZATION_FAILED,
            "the user may not use this group",
        ),
        GROUP => Coordinator {
            key,
            node_id: NODE_ID,
            host: host.clone(),
            port,
            ..Default::default()
        },
        TRANSACTION => none(
            key,
            error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            NO_TRANSACTIONS,
        ),
        _ => none(
            key,
            error_code::INVALID_REQUEST,
            "only coordinators of groups are known",
        ),
    };
    if call.version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(find).collect();
        return FindCoordinatorResponse {
            coordinators,
            ..Default::default()
        };
    }
    let Coordinator {
        error_code,
        error_message,
        node_id,
        host,
        port,
        ..
    } = find(request.key);
    FindCoordinatorResponse {
        error_code,
        error_message,
        node_id,
        host,
        port,
        ..Default::default()
    }
}

fn none(key: String, error_code: i16, message: &str) -> Coordinator {
    Coordinator {
        key,
        node_id: -1,
        port: -1,
        error_code,
        error_message: Some(message.to_owned()),
        ..Default::default()
    }
}
