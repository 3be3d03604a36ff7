//! DeleteTopics, by name or by id.

use std::sync::Arc;

use access_rules::Verb;
use kernel::DeleteStreamError;

use crate::broker::Call;
use crate::error_code;
use crate::wire::delete_topics::*;

pub async fn handle(call: Arc<Call>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let named = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState {
            name: Some(name),
            ..Default::default()
        });
    let asked: Vec<DeleteTopicState> = request.topics.into_iter().chain(named).collect();
    let mut responses = Vec::with_capacity(asked.len());
    for topic in asked {
        responses.push(delete(&call, topic).await);
    }
    DeleteTopicsResponse {
        responses,
        ..Default::default()
    }
}

async fn delete(call: &Call, topic: DeleteTopicState) -> DeletableTopicResult {
    let stream = match &topic.name {
        Some(name) => call.broker.topics.by_name(name),
        None => call.broker.topics.by_uuid(topic.topic_id),
    };
    let unknown = match topic.name {
        Some(_) => error_code::UNKNOWN_TOPIC_OR_PARTITION,
        None => error_code::UNKNOWN_TOPIC_ID,
    };
    // By the name that was asked for, if there is such a topic or not: that is told to those only who may delete it. Of an id, which nobody
    // can guess, it is told to everybody, as Kafka does.
    let found = stream.as_ref().map(|stream| stream.address.name.as_str());
    let allowed = match topic.name.as_deref().or(found) {
        Some(name) => call.check_topic(Verb::Delete, name),
        None => Ok(()),
    };
    let mut result = DeletableTopicResult {
        name: topic.name,
        topic_id: topic.topic_id,
        ..Default::default()
    };
    let stream = match allowed.and(stream.ok_or(unknown)) {
        Ok(stream) => stream,
        Err(error_code) => {
            return DeletableTopicResult {
                error_code,
                ..result
            };
        }
    };
    result.name = Some(stream.address.name.as_str().to_owned());
    result.topic_id = stream.uuid;
    match call.kernel().delete_stream(&stream.address).await {
        Ok(()) => result,
        Err(error) => DeletableTopicResult {
            error_code: match &error {
                DeleteStreamError::Unknown(_) => unknown,
                DeleteStreamError::Write(write) => error_code::of_write(write),
            },
            error_message: Some(error.to_string()),
            ..result
        },
    }
}
