//! What hosts can switch on beside the protocol, `$SYS`, and what is asked of a running broker.

use crate::client::*;
use crate::memory::Memory;
use mqtt_broker::Limits;
use mqtt_broker::extra::{Extra, Rates, Redirect, Rewrite, Rewrites, Verb};
use mqtt_codec::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

async fn server(limits: Limits, extra: Extra) -> Server {
    Server::extended(Arc::new(Memory::new()), limits, extra).await
}

#[tokio::test(start_paused = true)]
async fn topic_aliases_towards_a_client_that_takes_them_3_3_2_3_4() {
    let server = Server::start().await;
    let properties = Properties {
        topic_alias_maximum: Some(1),
        ..Properties::default()
    };
    let taking = Connect {
        properties,
        ..v5("taking")
    };
    let (mut client, _) = server.connect(taking).await;
    client.subscribe("long/#", 0).await;
    let mut sender = server.clean("s").await;
    let mut got = Vec::new();
    for name in ["long/topic/one", "long/topic/two", "long/topic/one"] {
        sender.publish(name, "x", 1).await;
        let publish = client.receive_publish().await;
        let topic = publish.topic.map(|topic| topic.as_str().to_owned());
        got.push((topic, publish.properties.topic_alias));
    }
    let whole = |name: &str| Some(format!("long/topic/{name}"));
    assert_eq!(
        got,
        [
            (whole("one"), Some(1)),
            (whole("two"), None),
            (None, Some(1))
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_connack_announces_is_enforced_3_2_2_3() {
    let limits = Limits {
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        ..Limits::default()
    };
    let server = server(limits, Extra::default()).await;
    let (mut client, connack) = server.connect(v5("c")).await;
    let announced = &connack.properties;
    assert_eq!(
        (announced.maximum_qos, announced.retain_available),
        (Some(1), Some(0))
    );
    assert_eq!(
        client.subscribe_with("t", options(2), None).await,
        ReasonCode(1),
        "[MQTT-3.2.2-10]"
    );
    let too_high = Publish {
        packet_id: Some(id(9)),
        ..publish("t", "x", 2)
    };
    client.send(Packet::Publish(Box::new(too_high))).await;
    client.closed_with(ReasonCode::QOS_NOT_SUPPORTED).await; // [MQTT-3.2.2-11]
    let mut client = server.clean("c").await;
    let retained = Publish {
        retain: true,
        ..publish("t", "x", 0)
    };
    client.send(Packet::Publish(Box::new(retained))).await;
    client.closed_with(ReasonCode::RETAIN_NOT_SUPPORTED).await; // [MQTT-3.2.2-14]
    for (qos, retain, expected) in [
        (QoS::ExactlyOnce, false, ReasonCode::QOS_NOT_SUPPORTED), // [MQTT-3.2.2-12]
        (QoS::AtMostOnce, true, ReasonCode::RETAIN_NOT_SUPPORTED), // [MQTT-3.2.2-13]
        (QoS::AtLeastOnce, false, ReasonCode::SUCCESS),
    ] {
        let will = will("w", 0).map(|will| Will {
            qos,
            retain,
            ..will
        });
        let connect = Connect { will, ..v5("w") };
        assert_eq!(server.code(connect).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_say_why() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    let refused = Publish {
        packet_id: Some(id(7)),
        ..publish("quota", "x", 1)
    };
    client.send(Packet::Publish(Box::new(refused))).await;
    let (packet, text) = client.receive_explained().await.expect("PUBACK");
    let code = ReasonCode::QUOTA_EXCEEDED;
    assert_eq!(packet, Packet::PubAck(Ack::new(id(7), code)));
    assert_eq!(text.as_deref(), Some(code.text()));
    client.send(Packet::PingResp).await;
    let (packet, text) = client.receive_explained().await.expect("DISCONNECT");
    assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}");
    assert!(text.is_some());
}

#[tokio::test(start_paused = true)]
async fn response_information_for_who_asks_3_2_2_3_15() {
    let extra = Extra {
        response_topic: Some("answers/%c".into()),
        ..Extra::default()
    };
    let server = Server::with(extra).await;
    for (asked, expected) in [(None, None), (Some(0), None), (Some(1), Some("answers/c"))] {
        let properties = Properties {
            request_response_information: asked,
            ..Properties::default()
        };
        let (_client, connack) = server
            .connect(Connect {
                properties,
                ..v5("c")
            })
            .await;
        let told = connack.properties.response_information;
        assert_eq!(told.as_deref(), expected, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_client_is_sent_elsewhere_4_11() {
    for (moved, expected) in [
        (false, ReasonCode::USE_ANOTHER_SERVER),
        (true, ReasonCode::SERVER_MOVED),
    ] {
        let redirect = Some(Redirect {
            server: "other:1883".into(),
            moved,
        });
        let server = Server::with(Extra {
            redirect,
            ..Extra::default()
        })
        .await;
        let (mut client, connack) = server.connect(v5("c")).await;
        assert_eq!(connack.reason_code, expected);
        let reference = connack.properties.server_reference;
        assert_eq!(reference.as_deref(), Some("other:1883"));
        assert_eq!(client.receive().await, None);
        assert_eq!(server.code(v311("c")).await, ReasonCode(3));
    }
}

#[tokio::test(start_paused = true)]
async fn sys_topics_are_live_and_nobody_elses() {
    let server = Server::with(Extra::default()).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut client = server.clean("c").await;
    client.subscribe("#", 1).await;
    // A group would get nothing of it.
    for group in ["$share/g/$SYS/broker/uptime", "$share/g/$SYS/#"] {
        let code = client.subscribe_with(group, options(1), None).await;
        assert_eq!(code, ReasonCode::TOPIC_FILTER_INVALID, "{group}");
    }
    client.subscribe("$SYS/broker/uptime", 1).await;
    let now = client.receive_publish().await;
    assert!(now.retain && now.qos == QoS::AtMostOnce);
    let live = client.receive_publish().await;
    assert_eq!(&live.payload[..], b"10 seconds");
    let mine = Publish {
        packet_id: Some(id(9)),
        ..publish("$SYS/broker/uptime", "x", 1)
    };
    client.send(Packet::Publish(Box::new(mine))).await;
    let refused = Packet::PubAck(Ack::new(id(9), ReasonCode::NOT_AUTHORIZED));
    assert_eq!(client.receive().await, Some(refused));
    assert!(server.memory.payloads("$SYS").is_empty());
    client.unsubscribe("$SYS/broker/uptime").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn sys_counts_a_stored_session_whose_client_is_connected_once() {
    let server = Server::with(Extra::default()).await;
    let mut watcher = server.clean("watcher").await;
    watcher.subscribe("$SYS/broker/clients/+", 0).await;
    let properties = Properties {
        session_expiry_interval: Some(1000),
        ..Properties::default()
    };
    let lasting = Connect {
        properties,
        ..v5("c")
    };
    server.connect(lasting).await.0.disconnect().await;
    let told = async |watcher: &mut Client| {
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(watcher.take().await);
        }
        told
    };
    let at_first = told(&mut watcher).await;
    assert_eq!(at_first, ["0", "0", "0"], "connected, disconnected, total");
    assert_eq!(told(&mut watcher).await, ["1", "1", "2"]);
    // It is stored until it ends, which is with this connection.
    let resumed = Connect {
        clean_start: false,
        ..v5("c")
    };
    let (_client, connack) = server.connect(resumed).await;
    assert!(connack.session_present);
    assert_eq!(told(&mut watcher).await, ["2", "0", "2"]);
}

#[tokio::test(start_paused = true)]
async fn sys_topics_are_passed_over_for_who_does_not_take_them() {
    let extra = Extra {
        sys_interval: Some(Duration::from_secs(1)),
        ..Extra::default()
    };
    let server = Server::with(extra).await;
    let mut client = server.clean("c").await;
    client.subscribe("$SYS/#", 0).await;
    // It takes a little now and then, so that nobody gives it up.
    for _ in 0..200 {
        sleep(Duration::from_secs(30)).await;
        client.take_bytes(10).await;
    }
    let mut got = 0;
    while timeout(Duration::from_millis(100), client.receive())
        .await
        .is_ok()
    {
        got += 1;
    }
    assert!((1..20_000).contains(&got), "{got} values");
    // And goes on with those of now.
    client.receive_publish().await;
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_subscription_is_one_sessions_while_it_lives() {
    let server = Server::start().await;
    let mut first = server.clean("first").await;
    let mut second = server.clean("second").await;
    let filter = "$exclusive/t/+";
    assert_eq!(
        first.subscribe_with(filter, options(1), None).await,
        ReasonCode(1)
    );
    assert_eq!(
        first.subscribe_with(filter, options(1), None).await,
        ReasonCode(1)
    );
    let refused = ReasonCode::QUOTA_EXCEEDED;
    assert_eq!(
        second.subscribe_with(filter, options(1), None).await,
        refused
    );
    let (mut old, _) = server.connect(v311("old")).await;
    assert_eq!(
        old.subscribe_with(filter, options(1), None).await,
        ReasonCode(0x80)
    );
    second.publish("t/1", "x", 1).await;
    assert_eq!(first.take().await, "x", "on the topic behind it");
    first.unsubscribe(filter).await;
    assert_eq!(
        second.subscribe_with(filter, options(1), None).await,
        ReasonCode(1)
    );
    second.vanish().await;
    assert_eq!(
        first.subscribe_with(filter, options(1), None).await,
        ReasonCode(1)
    );
    for invalid in [
        "$exclusive",
        "$exclusive/",
        "$exclusive/$share/g/t",
        "$share/g/$exclusive/t",
    ] {
        let code = first.subscribe_with(invalid, options(1), None).await;
        assert_eq!(code, ReasonCode::TOPIC_FILTER_INVALID, "{invalid}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_persistent_session_keeps_its_exclusive_subscription_over_a_restart() {
    let memory = Arc::new(Memory::new());
    let server = Server::over(memory.clone(), Limits::default()).await;
    let (mut first, _) = server.persistent("first").await;
    assert_eq!(
        first.subscribe_with("$exclusive/t", options(1), None).await,
        ReasonCode(1)
    );
    first.kill_server_side().await;
    let server = Server::over(memory, Limits::default()).await;
    let mut second = server.clean("second").await;
    let code = second
        .subscribe_with("$exclusive/t", options(1), None)
        .await;
    assert_eq!(code, ReasonCode::QUOTA_EXCEEDED);
    let _clean = server.clean("first").await;
    let code = second
        .subscribe_with("$exclusive/t", options(1), None)
        .await;
    assert_eq!(code, ReasonCode(1));
}

#[tokio::test(start_paused = true)]
async fn topics_are_rewritten_for_publish_and_subscribe() {
    let rule = |verb, from, to| Rewrite::new(verb, from, to).expect("a rule");
    let rewrites = Rewrites(vec![
        rule(Verb::All, "old/+/#", "new/{2}/{1}"),
        rule(Verb::Publish, "only/publish", "p/%c"),
        rule(Verb::Subscribe, "only/subscribe", "p/+"),
        rule(Verb::Publish, "open/#", "guarded/{1}"),
    ]);
    let server = Server::with(Extra {
        rewrites,
        ..Extra::default()
    })
    .await;
    let mut client = server.clean("c").await;
    client.subscribe("$share/g/old/+/x", 1).await;
    client.subscribe("new/#", 1).await;
    client.subscribe("only/subscribe", 1).await;
    let mut sender = server.clean("s").await;
    for (topic, expected, copies) in [
        ("old/a/x", "new/x/a", 2),
        ("only/publish", "p/s", 1),
        ("new/y", "new/y", 1),
    ] {
        sender.publish(topic, "x", 1).await;
        for _ in 0..copies {
            let got = client.receive_publish().await.topic.expect("a topic");
            assert_eq!(got.as_str(), expected);
        }
    }
    client.unsubscribe("only/subscribe").await;
    sender.publish("only/publish", "x", 1).await;
    client.nothing().await;
    // So are the topics of wills, and of what is published later: rules for access see the new one.
    let dying = Connect {
        will: will("old/a/w", 0),
        ..v5("d")
    };
    server.connect(dying).await.0.vanish().await;
    let got = client.receive_publish().await.topic.expect("a topic");
    assert_eq!(got.as_str(), "new/w/a");
    let guarded = Connect {
        will: will("open/x", 0),
        ..v5("g")
    };
    assert_eq!(server.code(guarded).await, ReasonCode::NOT_AUTHORIZED);
    let packet = Publish {
        packet_id: Some(id(9)),
        ..publish("$delayed/5/open/x", "x", 1)
    };
    sender.send(Packet::Publish(Box::new(packet))).await;
    let refused = Packet::PubAck(Ack::new(id(9), ReasonCode::NOT_AUTHORIZED));
    assert_eq!(sender.receive().await, Some(refused));
    for (from, to) in [("a/+", "{2}"), ("a/+", "{x}"), ("a/b#", "c"), ("a", "")] {
        assert!(Rewrite::new(Verb::All, from, to).is_err(), "{from} {to}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_publishes_too_fast_is_read_later_and_loses_nothing() {
    let rates = Rates {
        messages: Some(10),
        ..Rates::default()
    };
    let server = Server::with(Extra {
        rates,
        ..Extra::default()
    })
    .await;
    let mut client = server.clean("c").await;
    let start = Instant::now();
    for n in 0..40 {
        client.publish("t", &n.to_string(), 1).await;
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(2900), "{took:?}");
    assert_eq!(server.memory.payloads("t").len(), 40);
}

#[tokio::test(start_paused = true)]
async fn delayed_messages_are_refused_where_they_are_not_offered_or_not_meant() {
    let server = Server::start().await;
    let mut client = server.clean("c").await;
    for (topic, expected) in [
        ("$delayed/5/t", ReasonCode::TOPIC_NAME_INVALID),
        ("$delayed/x/t", ReasonCode::TOPIC_NAME_INVALID),
        ("$delayed/5/guarded/x", ReasonCode::NOT_AUTHORIZED),
    ] {
        let packet = Publish {
            packet_id: Some(id(9)),
            ..publish(topic, "x", 1)
        };
        client.send(Packet::Publish(Box::new(packet))).await;
        let refused = Packet::PubAck(Ack::new(id(9), expected));
        assert_eq!(client.receive().await, Some(refused), "{topic}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_that_would_be_delayed_by_its_topic_is_refused() {
    let server = Server::start().await;
    for topic in ["$delayed/5/t", "$delayed/x", "$delayed"] {
        let connect = Connect {
            will: will(topic, 0),
            ..v5("c")
        };
        let refused = ReasonCode::TOPIC_NAME_INVALID;
        assert_eq!(server.code(connect).await, refused, "{topic}");
    }
}
