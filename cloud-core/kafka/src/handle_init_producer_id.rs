//! InitProducerId: an id under which a producer may number its batches.

use std::sync::Arc;

use access_rules::Verb;

use crate::broker::Call;
use crate::error_code;
use crate::wire::init_producer_id::*;

pub async fn handle(call: Arc<Call>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let failed = |error_code| InitProducerIdResponse {
        error_code,
        producer_epoch: -1,
        ..Default::default()
    };
    if request.transactional_id.is_some() {
        return failed(error_code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    let who = call.principal.asker(&call.client_id);
    if !call.broker.ctx.access.may_any(&who, Verb::Publish) {
        return failed(error_code::CLUSTER_AUTHORIZATION_FAILED);
    }
    // A producer that asks for a newer epoch of its id gets a new id instead: as good, and nobody else can have it.
    match call.kernel().allocate_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            ..Default::default()
        },
        Err(error) => {
            tracing::warn!(%error, "cannot give out a producer id");
            failed(error_code::of_group_write(&error))
        }
    }
}
