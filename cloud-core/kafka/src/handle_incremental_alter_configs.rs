//! IncrementalAlterConfigs: sets and deletes single keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::Call;
use crate::error_code;
use crate::handle_alter_configs::alter;
use crate::topic_config::{self, ConfigError};
use crate::wire::incremental_alter_configs::*;

const SET: i8 = 0;
const DELETE: i8 = 1;

pub async fn handle(
    call: Arc<Call>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let change = |current: &BTreeMap<String, String>| apply(current, &resource.configs);
        let altered = alter(
            &call,
            resource.resource_type,
            &resource.resource_name,
            request.validate_only,
            change,
        )
        .await;
        let (error_code, error_message) = match altered {
            Ok(()) => (error_code::NONE, None),
            Err((code, reason)) => (code, Some(reason)),
        };
        let AlterConfigsResource {
            resource_type,
            resource_name,
            ..
        } = resource;
        responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name,
        });
    }
    IncrementalAlterConfigsResponse {
        responses,
        ..Default::default()
    }
}

fn apply(
    current: &BTreeMap<String, String>,
    changes: &[AlterableConfig],
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut config = current.clone();
    for change in changes {
        topic_config::check_key(&change.name)?;
        match (change.config_operation, &change.value) {
            (SET, Some(value)) => {
                topic_config::check(&change.name, value)?;
                config.insert(change.name.clone(), value.clone());
            }
            (SET, None) => return Err(ConfigError::NoValue(change.name.clone())),
            (DELETE, _) => {
                config.remove(&change.name);
            }
            _ => return Err(ConfigError::NotAList(change.name.clone())),
        }
    }
    Ok(config)
}
