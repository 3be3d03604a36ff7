//! Who may connect, publish and subscribe, and what the client hears of a no.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mqtt_broker::access::{Access, Login, Principal};
use mqtt_broker::backend::ConnectError;
use mqtt_codec::*;

use crate::client::*;

/// Knows alice, whose password is "secret", and mallory, who may not come. `forbidden/...` is not to be subscribed to, `guarded/...` is
/// published to by alice only, `moody/...` is subscribed to as long as `closed` is false.
#[derive(Default)]
pub struct Guard {
    pub closed: AtomicBool,
}

impl Access for Guard {
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<str>>, ConnectError>> {
        Box::pin(async move {
            match (login.user_name, login.password) {
                (Some("mallory"), _) => Err(ConnectError::NotAuthorized),
                (Some("alice"), password) if password != Some(b"secret") => {
                    Err(ConnectError::BadUserNameOrPassword)
                }
                (user, _) => Ok(user.map(Arc::from)),
            }
        })
    }

    fn may_publish(&self, who: &Principal, topic: &TopicName) -> bool {
        !topic.as_str().starts_with("guarded/") || who.user.as_deref() == Some("alice")
    }

    fn may_subscribe(&self, _: &Principal, filter: &TopicFilter) -> bool {
        let closed = filter.as_str().starts_with("moody/") && self.closed.load(Ordering::Relaxed);
        !closed && !filter.as_str().starts_with("forbidden")
    }
}

fn alice(connect: Connect) -> Connect {
    Connect {
        user_name: Some("alice".into()),
        password: Some(Bytes::from_static(b"secret")),
        ..connect
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_is_not_allowed_is_answered_in_its_place() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    for (n, (name, qos)) in [("a/1", 1), ("guarded/x", 1), ("guarded/x", 2), ("a/2", 1)]
        .into_iter()
        .enumerate()
    {
        let packet_id = Some(id(n as u16 + 1));
        let packet = Publish {
            packet_id,
            ..publish(name, "x", qos)
        };
        client.send(Packet::Publish(Box::new(packet))).await;
    }
    for expected in [
        Packet::PubAck(Ack::success(id(1))),
        Packet::PubAck(Ack::new(id(2), ReasonCode::NOT_AUTHORIZED)),
        Packet::PubRec(Ack::new(id(3), ReasonCode::NOT_AUTHORIZED)),
        Packet::PubAck(Ack::success(id(4))),
    ] {
        assert_eq!(client.receive().await, Some(expected));
    }
    assert!(server.memory.payloads("guarded").is_empty());
    // 3.1.1 has no word for it: acknowledged and dropped.
    let (mut old, _) = server.connect(v311("old")).await;
    let packet = Publish {
        packet_id: Some(id(1)),
        ..publish("guarded/x", "x", 1)
    };
    old.send(Packet::Publish(Box::new(packet))).await;
    assert_eq!(
        old.receive().await,
        Some(Packet::PubAck(Ack::success(id(1))))
    );
    assert!(server.memory.payloads("guarded").is_empty());
    let (mut allowed, _) = server.connect(alice(v5("a"))).await;
    let packet = Publish {
        packet_id: Some(id(1)),
        ..publish("guarded/x", "x", 1)
    };
    allowed.send(Packet::Publish(Box::new(packet))).await;
    assert_eq!(
        allowed.receive().await,
        Some(Packet::PubAck(Ack::success(id(1))))
    );
    assert_eq!(server.memory.payloads("guarded").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_must_not_publish_the_will_does_not_get_in() {
    let server = Server::start().await;
    for (connect, code) in [(v5("c"), 0x87), (v311("c"), 5)] {
        let connect = Connect {
            will: will("guarded/alive", 0),
            ..connect
        };
        let (_, connack) = server.connect(connect.clone()).await;
        assert_eq!(connack.reason_code.0, code);
        let (client, connack) = server.connect(alice(connect)).await;
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
        client.disconnect().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_not_allowed_any_more_is_not_resumed() {
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    for filter in ["moody/#", "a/#"] {
        client.subscribe(filter, 1).await;
    }
    client.disconnect().await;
    server.guard.closed.store(true, Ordering::Relaxed);
    let mut writer = server.clean("w").await;
    for name in ["moody/1", "a/1"] {
        writer.publish(name, name, 1).await;
    }
    let (mut client, present) = server.persistent("c").await;
    assert!(present);
    assert_eq!(client.take().await, "a/1");
    client.nothing().await;
}
