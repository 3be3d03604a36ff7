//! Metadata: the one broker, and the topics asked for, made on the way where that is allowed.

use std::sync::Arc;

use access_rules::Verb;
use frontend::context::StreamForWriteError;
use kernel::{CreateStreamError, Stream};

use crate::broker::{Call, NODE_ID};
use crate::error_code;
use crate::topics::leader_epoch;
use crate::wire::metadata::*;

pub async fn handle(call: Arc<Call>, request: MetadataRequest) -> MetadataResponse {
    let (host, port) = call.advertised();
    // Version 0 has no null: there an empty list means all topics.
    let asked = request
        .topics
        .filter(|topics| call.version > 0 || !topics.is_empty());
    let mut topics = Vec::new();
    match asked {
        None => topics.extend(
            call.broker
                .topics
                .all()
                .iter()
                .filter(|stream| sees(&call, stream))
                .map(|stream| describe(stream)),
        ),
        Some(asked) => {
            for topic in asked {
                topics.push(match &topic.name {
                    Some(name) => by_name(&call, name, request.allow_auto_topic_creation).await,
                    None => match call.broker.topics.by_uuid(topic.topic_id) {
                        Some(stream) if sees(&call, &stream) => describe(&stream),
                        _ => MetadataResponseTopic {
                            error_code: error_code::UNKNOWN_TOPIC_ID,
                            // Null from version 12 on; before, a topic cannot be asked for by its id alone.
                            name: (call.version < 12).then(String::new),
                            topic_id: topic.topic_id,
                            ..Default::default()
                        },
                    },
                });
            }
        }
    }
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: NODE_ID,
            host,
            port,
            rack: None,
        }],
        cluster_id: Some(call.broker.ctx.cluster_id.to_string()),
        controller_id: NODE_ID,
        topics,
        ..Default::default()
    }
}

async fn by_name(call: &Call, name: &str, may_create: bool) -> MetadataResponseTopic {
    let broker = &call.broker;
    let failed = |error_code| MetadataResponseTopic {
        error_code,
        name: Some(name.to_owned()),
        ..Default::default()
    };
    let Ok(address) = broker.topics.address(name) else {
        return failed(error_code::INVALID_TOPIC_EXCEPTION);
    };
    if let Err(code) = call.check_topic(Verb::Describe, name) {
        return failed(code);
    }
    if let Some(stream) = broker.kernel().stream(&address) {
        return describe(&stream);
    }
    let may_create = may_create && broker.ctx.streams.auto_create;
    if may_create && let Err(code) = call.check_topic(Verb::Create, name) {
        return failed(code);
    }
    if !may_create {
        return failed(error_code::UNKNOWN_TOPIC_OR_PARTITION);
    }
    match broker.ctx.stream_for_write(&address).await {
        Ok(stream) => describe(&stream),
        Err(StreamForWriteError::Unknown(_)) => failed(error_code::UNKNOWN_TOPIC_OR_PARTITION),
        Err(StreamForWriteError::Create(error)) => {
            tracing::warn!(topic = name, %error, "cannot create the topic that a client asked for");
            failed(match error {
                CreateStreamError::Write(error) => error_code::of_write(&error),
                _ => error_code::UNKNOWN_SERVER_ERROR,
            })
        }
    }
}

/// A topic that a client may not see does not exist for it.
fn sees(call: &Call, stream: &Stream) -> bool {
    call.check_topic(Verb::Describe, stream.address.name.as_str())
        .is_ok()
}

fn describe(stream: &Stream) -> MetadataResponseTopic {
    let partitions = stream.partition_ids().map(|id| MetadataResponsePartition {
        partition_index: id.partition as i32,
        leader_id: NODE_ID,
        leader_epoch: leader_epoch(stream),
        replica_nodes: vec![NODE_ID],
        isr_nodes: vec![NODE_ID],
        ..Default::default()
    });
    MetadataResponseTopic {
        name: Some(stream.address.name.as_str().to_owned()),
        topic_id: stream.uuid,
        partitions: partitions.collect(),
        ..Default::default()
    }
}
