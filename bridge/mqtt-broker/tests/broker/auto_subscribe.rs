//! Subscriptions that the server makes.

use crate::client::*;
use mqtt_broker::SubscriptionInfo;
use mqtt_broker::backend::ClientId;
use mqtt_broker::extra::{AutoSubscribe, Extra, Rewrite, Rewrites, Verb};
use mqtt_codec::*;

fn auto(filter: &str) -> AutoSubscribe {
    AutoSubscribe {
        filter: filter.into(),
        options: options(1),
    }
}

async fn subscriptions(server: &Server, client: &str) -> Vec<SubscriptionInfo> {
    let found = server.broker.subscriptions_of(&ClientId::new(client)).await;
    found.expect("readable").expect("a client")
}

#[tokio::test(start_paused = true)]
async fn the_server_subscribes_clients_when_they_connect() {
    let server = Server::with(Extra {
        auto_subscribe: vec![auto("to/%c/#"), auto("users/%u"), auto("forbidden/#")],
        ..Extra::default()
    })
    .await;
    let mut client = server.clean("c").await;
    let mut sender = server.clean("s").await;
    sender.publish("to/c/x", "mine", 1).await;
    sender.publish("to/other/x", "not mine", 1).await;
    assert_eq!(client.take().await, "mine");
    client.nothing().await;
    let subscriptions = subscriptions(&server, "c").await;
    assert_eq!(subscriptions.len(), 1, "no user, and one is not allowed");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_resumed_keeps_what_it_has_subscribed_to_itself() {
    let rewrite = Rewrite::new(Verb::Subscribe, "old/#", "new/{1}").expect("a rule");
    let server = Server::with(Extra {
        auto_subscribe: ["%c/+", "old/%c", "$share/g/%c"].map(auto).to_vec(),
        rewrites: Rewrites(vec![rewrite]),
        ..Extra::default()
    })
    .await;
    let properties = Properties {
        session_expiry_interval: Some(1000),
        ..Properties::default()
    };
    let lasting = Connect {
        clean_start: false,
        properties,
        ..v5("c")
    };
    let mut sender = server.clean("s").await;
    for topic in ["c/1", "new/c"] {
        let packet = Publish {
            retain: true,
            ..publish(topic, topic, 1)
        };
        sender.publish_packet(packet).await;
    }
    let (mut client, _) = server.connect(lasting.clone()).await;
    for topic in ["c/1", "new/c"] {
        assert_eq!(client.take().await, topic, "of a new subscription");
    }
    let own = options(2);
    assert_eq!(
        client.subscribe_with("$exclusive/c/+", own, Some(7)).await,
        ReasonCode(2)
    );
    assert_eq!(client.take().await, "c/1");
    assert_eq!(
        client.subscribe_with("$share/g/c", own, Some(8)).await,
        ReasonCode(2)
    );
    client.unsubscribe("new/c").await;
    client.disconnect().await;
    let (mut client, connack) = server.connect(lasting).await;
    assert!(connack.session_present);
    assert_eq!(client.take().await, "new/c", "it had not");
    client.nothing().await;
    let mut found: Vec<_> = subscriptions(&server, "c").await;
    found.sort_by(|a, b| a.filter.cmp(&b.filter));
    let found = found.iter().map(|one| {
        (
            one.filter.as_str(),
            one.qos(),
            one.identifier,
            one.exclusive,
        )
    });
    let expected = [
        ("$share/g/c", QoS::ExactlyOnce, Some(8), false),
        ("c/+", QoS::ExactlyOnce, Some(7), true),
        ("new/c", QoS::AtLeastOnce, None, false),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
}
