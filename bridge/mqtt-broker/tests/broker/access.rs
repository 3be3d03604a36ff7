//! Who may connect, publish and subscribe, and what the client hears of a no.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use access_rules::Subject;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use mqtt_broker::access::{
    Access, Admitted, Exceeded, Exchange, Login, Peer, Principal, Share, Step,
};
use mqtt_broker::backend::{ClientId, ConnectError};
use mqtt_codec::*;
use quota::Quotas;
use tokio_util::sync::CancellationToken;

use crate::client::*;

/// Knows alice, whose password is "secret", and mallory, who may not come. `forbidden/...` is not to be subscribed to, `guarded/...` is
/// published to by alice only, the client id `guarded` is hers, `moody/...` is subscribed to and received as long as `closed` is false; with
/// `grants_whole` nobody is asked about each message. The method RIDDLE asks for a word; who says "open NAME" is NAME, "later" finds nobody
/// who could check it, and who says "slowly" waits for ever.
#[derive(Default)]
pub struct Guard {
    pub closed: AtomicBool,
    pub grants_whole: AtomicBool,
    pub revoked: CancellationToken,
    pub quotas: Arc<Quotas>,
}

struct Riddle(CancellationToken);

impl Exchange for Riddle {
    fn step<'a>(&'a mut self, data: &'a [u8]) -> BoxFuture<'a, Result<Step, ConnectError>> {
        let said = std::str::from_utf8(data).unwrap_or_default();
        if said == "slowly" {
            return Box::pin(std::future::pending());
        }
        let step = match said.split_once(' ') {
            _ if said.is_empty() => Ok(Step::Continue(Bytes::from_static(b"the word?"))),
            Some(("open", name)) => Ok(Step::Done {
                admitted: Admitted {
                    revoked: Some(Arc::new(self.0.clone())),
                    ..Admitted::user(Some(name.into()))
                },
                data: Bytes::from_static(b"come in"),
            }),
            _ if said == "later" => Err(ConnectError::ServerUnavailable),
            _ => Err(ConnectError::BadUserNameOrPassword),
        };
        Box::pin(std::future::ready(step))
    }
}

impl Access for Guard {
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Admitted, ConnectError>> {
        Box::pin(async move {
            match (login.user_name, login.password) {
                (Some("mallory"), _) => Err(ConnectError::NotAuthorized),
                (Some("alice"), password) if password != Some(b"secret") => {
                    Err(ConnectError::BadUserNameOrPassword)
                }
                (user, _) => Ok(Admitted::user(user.map(Arc::from))),
            }
        })
    }

    fn exchange(
        &self,
        method: &str,
        _: &ClientId,
        _: &Peer,
    ) -> Result<Box<dyn Exchange>, ConnectError> {
        match method {
            "RIDDLE" => Ok(Box::new(Riddle(self.revoked.clone()))),
            _ => Err(ConnectError::BadAuthenticationMethod),
        }
    }

    fn enter(&self, who: &Principal) -> Result<Share, Exceeded> {
        self.quotas.enter(&Subject {
            user: who.user.as_deref(),
            client: who.client.as_str(),
            ..Subject::default()
        })
    }

    fn may_receive(&self, _: &Principal, topic: &TopicName) -> bool {
        !(topic.as_str().starts_with("moody/") && self.closed.load(Ordering::Relaxed))
    }

    fn grants_whole(&self) -> bool {
        self.grants_whole.load(Ordering::Relaxed)
    }

    fn may_connect(&self, who: &Principal) -> bool {
        who.client.as_str() != "guarded" || who.user.as_deref() == Some("alice")
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
    // The whole handshake.
    old.publish("guarded/x", "x", 2).await;
    assert!(server.memory.payloads("guarded").is_empty());
    old.publish("a/3", "x", 2).await;
    assert_eq!(server.memory.payloads("a").len(), 3);
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
async fn who_must_not_have_a_client_id_takes_nothing_over() {
    let server = Server::start().await;
    let (mut owner, _) = server.connect(alice(v5("guarded"))).await;
    owner.subscribe("a", 1).await;
    for (connect, code) in [(v5("guarded"), 0x85), (v311("guarded"), 2)] {
        let (mut client, connack) = server.connect(connect).await;
        assert_eq!(connack.reason_code.0, code);
        assert_eq!(client.receive().await, None, "closed [MQTT-3.1.3-8]");
    }
    let (mut other, connack) = server.connect(v5("c")).await;
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    other.publish("a", "still here", 1).await;
    assert_eq!(owner.take().await, "still here");
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
    // Nothing is kept for what is not wanted any more.
    let saved = server.memory.stored_session("c").expect("stored");
    assert_eq!(saved.checkpoints.len(), 1);
    assert_eq!(client.take().await, "a/1");
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_subscription_that_is_taken_away_is_free_for_others() {
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    let subscribed = client
        .subscribe_with("$exclusive/moody/x", SubscriptionOptions::default(), None)
        .await;
    assert_eq!(subscribed, ReasonCode::SUCCESS);
    client.disconnect().await;
    server.guard.closed.store(true, Ordering::Relaxed);
    let (_client, present) = server.persistent("c").await;
    assert!(present);
    server.guard.closed.store(false, Ordering::Relaxed);
    let mut other = server.clean("other").await;
    let subscribed = other
        .subscribe_with("$exclusive/moody/x", SubscriptionOptions::default(), None)
        .await;
    assert_eq!(subscribed, ReasonCode::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_any_more_is_passed_over() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    client.subscribe("#", 1).await;
    let mut writer = server.clean("w").await;
    writer.publish("moody/1", "before", 1).await;
    assert_eq!(client.take().await, "before");
    server.guard.closed.store(true, Ordering::Relaxed);
    writer.publish("moody/1", "hidden", 1).await;
    writer.publish("a", "seen", 1).await;
    assert_eq!(client.take().await, "seen");
    server.guard.closed.store(false, Ordering::Relaxed);
    writer.publish("moody/1", "after", 1).await;
    assert_eq!(client.take().await, "after");
}

fn properties(method: &str, data: &str) -> Properties {
    Properties {
        authentication_method: Some(method.into()),
        authentication_data: Some(Bytes::copy_from_slice(data.as_bytes())),
        ..Properties::default()
    }
}

fn auth(code: ReasonCode, data: &str) -> Packet {
    Packet::Auth(Auth {
        reason_code: code,
        properties: properties("RIDDLE", data),
    })
}

fn riddle(data: &str) -> Packet {
    Packet::Connect(Box::new(Connect {
        properties: properties("RIDDLE", data),
        ..v5("c")
    }))
}

const CONTINUE: ReasonCode = ReasonCode::CONTINUE_AUTHENTICATION;
const AGAIN: ReasonCode = ReasonCode::RE_AUTHENTICATE;

/// A client that was let in by AUTH, as alice.
async fn by_riddle(server: &Server) -> Client {
    let mut client = server.open(Version::V5);
    client.send(riddle("")).await;
    assert_eq!(client.receive().await, Some(auth(CONTINUE, "the word?")));
    client.send(auth(CONTINUE, "open alice")).await;
    match client.receive().await {
        Some(Packet::ConnAck(connack)) => {
            assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
            let told = (
                connack.properties.authentication_method.as_deref(),
                connack.properties.authentication_data.as_deref(),
            );
            assert_eq!(told, (Some("RIDDLE"), Some(&b"come in"[..])));
        }
        other => panic!("no CONNACK but {other:?}"),
    }
    client
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_yet_may_not_send_much() {
    let server = Server::start().await;
    let mut client = server.open(Version::V5);
    client.send(riddle("")).await;
    assert_eq!(client.receive().await, Some(auth(CONTINUE, "the word?")));
    // The header of an AUTH of 1 MiB.
    client.send_bytes(b"\xf0\x80\x80\x40").await;
    match client.receive().await {
        Some(Packet::ConnAck(connack)) => {
            assert_eq!(connack.reason_code, ReasonCode::PACKET_TOO_LARGE);
        }
        other => panic!("no CONNACK but {other:?}"),
    }
    assert_eq!(client.receive().await, None);
    let mut known = by_riddle(&server).await;
    known.publish("a", &"x".repeat(1 << 20), 1).await;
}

#[tokio::test(start_paused = true)]
async fn enhanced_authentication_4_12() {
    let server = Server::start().await;
    let mut client = by_riddle(&server).await;
    client.publish("guarded/x", "as alice", 1).await;
    // The whole answer in CONNECT.
    let mut quick = server.open(Version::V5);
    quick.send(riddle("open bob")).await;
    assert!(matches!(quick.receive().await, Some(Packet::ConnAck(_))));
    let other_method = Packet::Auth(Auth {
        reason_code: CONTINUE,
        properties: properties("OTHER", "open alice"),
    });
    // [MQTT-3.1.2-30], a wrong word, another method, and one that left.
    for (answer, code) in [
        (Some(other_method), ReasonCode::PROTOCOL_ERROR),
        (Some(Packet::PingReq), ReasonCode::PROTOCOL_ERROR),
        (Some(auth(AGAIN, "open alice")), ReasonCode::PROTOCOL_ERROR),
        (
            Some(auth(CONTINUE, "shut")),
            ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        ),
        (
            Some(auth(CONTINUE, "later")),
            ReasonCode::SERVER_UNAVAILABLE,
        ),
        (
            Some(Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS))),
            ReasonCode::SUCCESS,
        ),
        (None, ReasonCode::SUCCESS),
    ] {
        let mut client = server.open(Version::V5);
        client.send(riddle("")).await;
        assert_eq!(client.receive().await, Some(auth(CONTINUE, "the word?")));
        // Or it says nothing, and its time runs out.
        if let Some(answer) = answer {
            client.send(answer).await;
        }
        match client.receive().await {
            Some(Packet::ConnAck(connack)) => {
                assert_eq!(connack.reason_code, code);
                assert_eq!(client.receive().await, None, "closed [MQTT-4.12.0-4]");
            }
            None => assert_eq!(code, ReasonCode::SUCCESS),
            other => panic!("{other:?}"),
        }
    }
}

/// [MQTT-3.2.2-8]: there is no code of CONNACK for a wrong topic filter, and 0x90 is for that of a will
#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_before_connack_is_answered_with_one_of_its_codes() {
    let server = Server::start().await;
    for (bytes, code) in [
        (
            &b"\x82\x08\x00\x01\x00\x00\x02a#\x00"[..],
            ReasonCode::PROTOCOL_ERROR,
        ),
        (b"\x30\x04\x00\x01#\x00", ReasonCode::PROTOCOL_ERROR),
        (b"\x00\x00", ReasonCode::MALFORMED_PACKET),
        (b"\xf0\xff\xff\xff\x7f", ReasonCode::PACKET_TOO_LARGE),
    ] {
        let mut client = server.open(Version::V5);
        client.send(riddle("")).await;
        assert_eq!(client.receive().await, Some(auth(CONTINUE, "the word?")));
        client.send_bytes(bytes).await;
        match client.receive().await {
            Some(Packet::ConnAck(connack)) => {
                assert_eq!(connack.reason_code, code, "{bytes:02x?}")
            }
            other => panic!("{bytes:02x?}: {other:?}"),
        }
        assert_eq!(client.receive().await, None);
    }
}

/// [MQTT-3.1.2-24]
#[tokio::test(start_paused = true)]
async fn no_question_is_larger_than_the_client_takes() {
    let server = Server::start().await;
    let mut question = bytes::BytesMut::new();
    encode(&auth(CONTINUE, "the word?"), Version::V5, &mut question);
    let size = u32::try_from(question.len()).expect("a small packet");
    for (maximum, expected) in [(size, Some(auth(CONTINUE, "the word?"))), (size - 1, None)] {
        let connect = Connect {
            properties: Properties {
                maximum_packet_size: Some(maximum),
                ..properties("RIDDLE", "")
            },
            ..v5("c")
        };
        let mut client = server.open(Version::V5);
        client.send(Packet::Connect(Box::new(connect))).await;
        assert_eq!(client.receive().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn authenticating_again_4_12_1() {
    let server = Server::start().await;
    let mut client = by_riddle(&server).await;
    client.send(auth(AGAIN, "")).await;
    assert_eq!(client.receive().await, Some(auth(CONTINUE, "the word?")));
    // Everything else goes on meanwhile.
    client.publish("a", "x", 1).await;
    client.send(auth(CONTINUE, "open alice")).await;
    assert_eq!(
        client.receive().await,
        Some(auth(ReasonCode::SUCCESS, "come in"))
    );
    for (packet, code) in [
        (auth(AGAIN, "open bob"), ReasonCode::NOT_AUTHORIZED),
        (auth(AGAIN, "shut"), ReasonCode::NOT_AUTHORIZED),
        (auth(AGAIN, "later"), ReasonCode::SERVER_BUSY),
        (auth(CONTINUE, "open alice"), ReasonCode::PROTOCOL_ERROR),
        (
            Packet::Auth(Auth {
                reason_code: AGAIN,
                properties: properties("OTHER", "open alice"),
            }),
            ReasonCode::PROTOCOL_ERROR,
        ),
    ] {
        let mut client = by_riddle(&server).await;
        client.send(packet).await;
        client.closed_with(code).await;
    }
    // Who came without a method has none.
    let mut plain = server.clean("plain").await;
    plain.send(auth(AGAIN, "open alice")).await;
    plain.closed_with(ReasonCode::PROTOCOL_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_user_that_is_gone_is_told_so() {
    let server = Server::start().await;
    let mut client = by_riddle(&server).await;
    server.guard.revoked.cancel();
    client.closed_with(ReasonCode::NOT_AUTHORIZED).await;
}

#[tokio::test(start_paused = true)]
async fn who_authenticates_again_slowly_keeps_nobody_from_anything() {
    let server = Server::start().await;
    server.memory.locks.store(true, Ordering::Relaxed);
    let mut properties = properties("RIDDLE", "open alice");
    properties.session_expiry_interval = Some(60);
    let connect = Connect {
        properties,
        ..v5("c")
    };
    let (mut client, _) = server.connect(connect).await;
    client.subscribe("a", 1).await;
    client.subscribe("$share/g/t", 1).await;
    // Its session is being saved, and it waits for messages of its group.
    server.memory.slow.store(100_000, Ordering::Relaxed);
    let mut other = server.clean("other").await;
    other.publish("a", "x", 1).await;
    assert_eq!(client.take().await, "x");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let saves = server.memory.saves.load(Ordering::Relaxed);
    client.send(auth(AGAIN, "slowly")).await;
    other.subscribe("$share/other/t", 1).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(server.memory.saves.load(Ordering::Relaxed) > saves);
}
