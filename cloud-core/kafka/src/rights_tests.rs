//! Who a client is, what it may do and how much of it.

use std::collections::BTreeSet;

use access_rules::{Rule, Who};
use bytes::Bytes;
use quota::{Each, Quota};

use crate::client_tests::{Client, Server, batch, fetched, produced};
use crate::error_code::*;
use crate::wire::api_versions::ApiVersionsRequest;
use crate::wire::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use crate::wire::metadata::MetadataRequest;
use crate::wire::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use crate::wire::sasl_authenticate::SaslAuthenticateRequest;
use crate::wire::sasl_handshake::SaslHandshakeRequest;

async fn add_ann(server: &Server) {
    let identity = &server.ctx.identity;
    let added = identity.add_user("ann", "secret".into(), BTreeSet::new(), 1);
    added.await.unwrap();
}

/// As clients do it: versions first, then who one is.
async fn log_in(server: &Server) -> Client {
    let mut client = server.client().await;
    client.ask(0, ApiVersionsRequest::default()).await;
    let handshake = SaslHandshakeRequest {
        mechanism: "PLAIN".to_owned(),
    };
    assert_eq!(client.ask(1, handshake).await.error_code, NONE);
    let authenticate = SaslAuthenticateRequest {
        auth_bytes: Bytes::from_static(b"\0ann\0secret"),
    };
    assert_eq!(client.ask(0, authenticate).await.error_code, NONE);
    client
}

fn of_ann() -> Quota {
    Quota {
        who: Who {
            user: Some("ann".to_owned()),
            ..Who::default()
        },
        each: Each::User,
        connections: None,
        messages: None,
        bytes: None,
    }
}

#[tokio::test]
async fn who_logs_in_where_anybody_may_come_is_charged_as_who_it_is() {
    let server = Server::open_to_all(vec![Quota {
        connections: Some(1),
        ..of_ann()
    }]);
    add_ann(&server).await;
    let mut first = log_in(&server).await;
    first.ask(9, MetadataRequest::default()).await;
    let mut second = log_in(&server).await;
    second.send(9, &MetadataRequest::default()).await;
    assert_eq!(second.frame().await, None, "one connection too many");
    // Nobody is not ann.
    let mut nobody = server.client().await;
    nobody.ask(9, MetadataRequest::default()).await;
}

/// The share of before counts no more, as soon as it begins to say who it is.
#[tokio::test]
async fn who_was_nobody_before_it_logged_in_is_counted_once() {
    let server = Server::open_to_all(vec![Quota {
        who: Who::default(),
        connections: Some(1),
        ..of_ann()
    }]);
    add_ann(&server).await;
    let mut client = server.client().await;
    client.ask(9, MetadataRequest::default()).await;
    let handshake = SaslHandshakeRequest {
        mechanism: "PLAIN".to_owned(),
    };
    client.ask(1, handshake).await;
    let mut nobody = server.client().await;
    nobody.ask(9, MetadataRequest::default()).await;
}

#[tokio::test]
async fn what_a_connection_produces_first_waits_for_what_the_last_one_owes_and_nothing_else_does() {
    let mut server = Server::open_to_all(vec![Quota {
        who: Who::default(),
        messages: Some(1),
        ..of_ann()
    }]);
    let mut first = server.client().await;
    first.create("t").await;
    let many = batch(&[b"x".as_slice(); 1_000]).into_bytes();
    assert_eq!(first.produce("t", many).await, (NONE, 0));
    drop(first);
    let quotas = server.ctx.quotas.clone();
    assert_eq!(quotas.counts().delayed, 1);
    let mut second = server.client().await;
    // Only what is produced is charged: who shares a user with busy producers is not kept waiting for an answer.
    second.ask(9, MetadataRequest::default()).await;
    assert_eq!(quotas.counts().delayed, 1);
    let one = batch(&[b"y"]).into_bytes();
    second.send(9, &produced("t", one, -1)).await;
    while quotas.counts().delayed < 2 {
        tokio::task::yield_now().await;
    }
    // It is still held when the process stops.
    server.stop().await;
    assert_eq!(second.frame().await, None);
    let topics = server.ctx.kernel.streams(&record::Namespace::default());
    let partition = topics[0].id.partition(0);
    let marks = server.ctx.kernel.watermarks(partition).unwrap();
    assert_eq!(marks.end, 1_000);
}

#[tokio::test]
async fn a_fetch_that_waits_ends_with_its_user() {
    let server = Server::open_to_all(vec![]);
    add_ann(&server).await;
    let mut client = log_in(&server).await;
    client.create("t").await;
    client.send(12, &fetched("t", 0, 300_000, 1 << 20)).await;
    // It is waiting when somebody else was answered.
    let mut nobody = server.client().await;
    nobody.ask(9, MetadataRequest::default()).await;
    server.ctx.identity.delete_user("ann").await.unwrap();
    assert_eq!(client.frame().await, None);
}

async fn deleted(client: &mut Client, name: &str) -> i16 {
    let topics = vec![DeleteTopicState {
        name: Some(name.to_owned()),
        ..Default::default()
    }];
    let request = DeleteTopicsRequest {
        topics,
        ..Default::default()
    };
    client.ask(6, request).await.responses[0].error_code
}

async fn epoch_asked(client: &mut Client, name: &str) -> i16 {
    let partitions = vec![OffsetForLeaderPartition {
        current_leader_epoch: -1,
        ..Default::default()
    }];
    let request = OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic {
            topic: name.to_owned(),
            partitions,
        }],
        ..Default::default()
    };
    client.ask(4, request).await.topics[0].partitions[0].error_code
}

#[tokio::test]
async fn who_may_not_see_a_topic_is_not_told_whether_it_is_there() {
    let server = Server::open_to_all(vec![]);
    let mut client = server.client().await;
    client.create("there").await;
    client.create("mine").await;
    let mine = Rule {
        allow: true,
        verbs: "all".parse().unwrap(),
        who: Who::default(),
        resource: "stream:m*".parse().unwrap(),
    };
    server.ctx.access.add_rule(mine, None).await.unwrap();
    for name in ["there", "nowhere"] {
        let denied = TOPIC_AUTHORIZATION_FAILED;
        assert_eq!(epoch_asked(&mut client, name).await, denied, "{name}");
        assert_eq!(deleted(&mut client, name).await, denied, "{name}");
    }
    let unknown = UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(epoch_asked(&mut client, "my").await, unknown);
    assert_eq!(deleted(&mut client, "my").await, unknown);
    assert_eq!(epoch_asked(&mut client, "mine").await, NONE);
    assert_eq!(deleted(&mut client, "mine").await, NONE);
}
