//! DescribeCluster: one broker, which is also the controller that clients see.

use std::sync::Arc;

use crate::broker::{Call, NODE_ID};
use crate::error_code;
use crate::wire::describe_cluster::*;

/// Endpoints of brokers, as opposed to those of controllers, which there are none of.
const BROKERS: i8 = 1;

pub async fn handle(call: Arc<Call>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponse {
            error_code: error_code::INVALID_REQUEST,
            error_message: Some(
                "this is a broker; there are no separate controllers to describe".to_owned(),
            ),
            endpoint_type: request.endpoint_type,
            ..Default::default()
        };
    }
    let (host, port) = call.advertised();
    DescribeClusterResponse {
        cluster_id: call.broker.ctx.cluster_id.to_string(),
        controller_id: NODE_ID,
        brokers: vec![DescribeClusterBroker {
            broker_id: NODE_ID,
            host,
            port,
            ..Default::default()
        }],
        ..Default::default()
    }
}
