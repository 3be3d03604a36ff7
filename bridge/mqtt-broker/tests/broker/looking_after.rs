//! What whoever looks after a broker sees and does.

use crate::client::*;
use mqtt_broker::backend::ClientId;
use mqtt_broker::extra::{Ban, BanKey};
use mqtt_codec::*;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test(start_paused = true)]
async fn clients_are_seen_kicked_banned_and_unsubscribed() {
    let server = Server::start().await;
    let broker = &server.broker;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("a/+", 1).await;
    client.subscribe("$share/g/b", 2).await;
    let (id, filter) = (ClientId::new("c"), |text| {
        TopicFilter::new(text).expect("ok")
    });
    let seen = broker.client(&id).expect("connected");
    assert_eq!(
        (seen.subscriptions, seen.shared_subscriptions, seen.version),
        (1, 1, Version::V311)
    );
    let of = |list: Vec<mqtt_broker::SubscriptionInfo>| {
        let filters = list.into_iter().map(|info| info.filter.as_str().to_owned());
        filters.collect::<Vec<_>>()
    };
    let list = broker.subscriptions_of(&id).await.expect("readable");
    assert_eq!(of(list.expect("a client")), ["a/+", "$share/g/b"]);
    let gone = broker.unsubscribe(&id, &filter("a/+")).await;
    assert_eq!(gone, Ok(Some(true)));
    assert!(broker.kick(&id));
    assert_eq!(client.receive().await, None);
    client.vanish().await;
    assert!(!broker.kick(&id));
    let sessions = broker.sessions().await.expect("readable");
    assert_eq!((sessions.len(), sessions[0].connected), (1, false));
    assert_eq!(of(sessions[0].subscriptions.clone()), ["$share/g/b"]);
    assert_eq!(broker.unsubscribe(&id, &filter("x")).await, Ok(Some(false)));
    let gone = broker.unsubscribe(&id, &filter("$share/g/b")).await;
    assert_eq!(gone, Ok(Some(true)));
    assert_eq!(broker.delete_session(&id).await, Ok(true));
    assert_eq!(broker.unsubscribe(&id, &filter("x")).await, Ok(None));

    let mut user = server.clean("u").await;
    let forever = Ban {
        lasts: None,
        reason: "test".into(),
    };
    let key: BanKey = "client:u".parse().expect("a key");
    assert!(broker.bans().add(key.clone(), forever));
    assert_eq!(broker.kick_banned(), 1);
    user.closed_with(ReasonCode::ADMINISTRATIVE_ACTION).await;
    assert_eq!(server.code(v5("u")).await, ReasonCode::BANNED);
    assert!(broker.bans().lift(&key));
    assert_eq!(server.code(v5("u")).await, ReasonCode::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn who_has_a_session_is_told_why_it_ends_and_who_has_none_stays() {
    let server = Server::start().await;
    let broker = &server.broker;
    let mut passing = server.clean("passing").await;
    let id = ClientId::new("passing");
    assert_eq!(broker.delete_session(&id).await, Ok(false));
    passing.subscribe("t", 0).await;
    let id = ClientId::new("nobody");
    assert_eq!(broker.delete_session(&id).await, Ok(false));
    let properties = Properties {
        session_expiry_interval: Some(100),
        ..Properties::default()
    };
    let lasting = Connect {
        properties,
        ..v5("lasting")
    };
    // However often: the two ways in which it hears of it are looked at in any order.
    for _ in 0..20 {
        let (mut client, connack) = server.connect(lasting.clone()).await;
        assert!(!connack.session_present);
        let id = ClientId::new("lasting");
        assert_eq!(broker.delete_session(&id).await, Ok(true));
        client.closed_with(ReasonCode::ADMINISTRATIVE_ACTION).await;
        assert_eq!(server.memory.stored_sessions(), 0);
    }
    assert_eq!(broker.metrics().persistent_sessions.load(Relaxed), 0);
    // Whoever takes a session over is something else.
    let (mut client, _) = server.connect(lasting.clone()).await;
    let _other = server.connect(lasting).await;
    client.closed_with(ReasonCode::SESSION_TAKEN_OVER).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_a_session_that_subscribes_to_nothing_any_more() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    sender.publish("a/1", "x", 1).await;
    sender.publish("b/1", "x", 1).await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("a/+", 1).await;
    client.subscribe("b/+", 1).await;
    client.vanish().await;
    let id = ClientId::new("c");
    let kept = || {
        let saved = server.memory.stored_session("c").expect("stored");
        saved.checkpoints.len()
    };
    for (filter, left) in [("a/+", 1), ("x", 1), ("b/+", 0)] {
        let filter = TopicFilter::new(filter).expect("ok");
        let gone = server.broker.unsubscribe(&id, &filter).await;
        assert!(gone.is_ok_and(|gone| gone.is_some()), "{filter}");
        assert_eq!(kept(), left, "{filter}");
    }
}
