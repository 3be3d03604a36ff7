use crate::client::*;
use mqtt_broker::Backend;
use mqtt_broker::backend::{ClientId, SavedSession};
use mqtt_codec::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn offline_messages_are_delivered_in_order_also_by_another_process() {
    let server = Server::start().await;
    let (mut client, present) = server.persistent("c").await;
    assert!(!present);
    client.subscribe("t/#", 1).await;
    client.subscribe("later/#", 1).await; // that stream does not exist yet
    client.disconnect().await;
    let mut sender = server.clean("s").await;
    for n in 0..300u16 {
        sender
            .publish(&format!("t/{}", n % 3), &n.to_string(), (n % 3) as u8)
            .await;
    }
    sender.publish("later/1", "later", 1).await;
    let server = Server::over(server.memory, Default::default()).await;
    let (mut client, present) = server.persistent("c").await;
    assert!(present);
    let mut got = Vec::new();
    for _ in 0..301 {
        got.push(client.take().await);
    }
    assert!(got.contains(&"later".to_owned()));
    got.retain(|text| text != "later");
    assert_eq!(got, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
    client.disconnect().await;
    let (mut client, _) = server.persistent("c").await;
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn unacknowledged_messages_are_sent_again_in_order_with_dup() {
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("t", 2).await;
    let mut sender = server.clean("s").await;
    for (text, qos) in [("a", 1), ("b", 2), ("c", 2), ("d", 1)] {
        sender.publish("t", text, qos).await;
    }
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(client.receive_publish().await.packet_id.expect("an id"));
    }
    // c is half way: PUBREC sent, PUBREL received.
    client.send(Packet::PubRec(Ack::success(ids[2]))).await;
    assert_eq!(
        client.receive().await,
        Some(Packet::PubRel(Ack::success(ids[2])))
    );
    client.vanish().await;
    for restart in [false, true] {
        let fresh;
        let now = if restart {
            fresh = Server::over(server.memory.clone(), Default::default()).await;
            &fresh
        } else {
            &server
        };
        let (mut client, _) = now.persistent("c").await;
        for (text, index) in [("a", 0), ("b", 1)] {
            let got = client.receive_publish().await;
            assert!(
                got.dup && got.packet_id == Some(ids[index]) && got.payload == text,
                "{got:?}"
            );
        }
        assert_eq!(
            client.receive().await,
            Some(Packet::PubRel(Ack::success(ids[2])))
        );
        let got = client.receive_publish().await;
        assert!(got.dup && got.packet_id == Some(ids[3]) && got.payload == "d");
        client.nothing().await;
        client.vanish().await;
    }
}

/// The broker dies at every step of a QoS 2 delivery; the client, which keeps its half of the state, never gets the message twice.
#[tokio::test(start_paused = true)]
async fn qos_2_is_exactly_once_over_kills() {
    for kill_after in 1..=3 {
        let server = Server::start().await;
        let (mut client, _) = server.persistent("c").await;
        client.subscribe("t", 2).await;
        let mut sender = server.clean("s").await;
        sender.publish("t", "m", 2).await;
        let packet_id = client.receive_publish().await.packet_id.expect("an id");
        if kill_after >= 2 {
            client.send(Packet::PubRec(Ack::success(packet_id))).await;
            assert_eq!(
                client.receive().await,
                Some(Packet::PubRel(Ack::success(packet_id)))
            );
        }
        if kill_after >= 3 {
            client.send(Packet::PubComp(Ack::success(packet_id))).await;
            tokio::time::sleep(Duration::from_millis(10)).await; // shorter than the checkpoint interval
        }
        client.kill_server_side().await;
        let server = Server::over(server.memory, Default::default()).await;
        let (mut client, present) = server.persistent("c").await;
        assert!(present);
        if kill_after == 1 {
            let got = client.receive_publish().await;
            assert!(
                got.dup && got.packet_id == Some(packet_id),
                "the same id, so that the client knows it"
            );
            client.send(Packet::PubRec(Ack::success(packet_id))).await;
        }
        assert_eq!(
            client.receive().await,
            Some(Packet::PubRel(Ack::success(packet_id)))
        );
        client.send(Packet::PubComp(Ack::success(packet_id))).await;
        client.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledged_messages_do_not_come_again_after_a_kill_and_a_second() {
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("t", 1).await;
    let mut sender = server.clean("s").await;
    for n in 0..10 {
        sender.publish("t", &n.to_string(), 1).await;
        client.take().await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.kill_server_side().await;
    let server = Server::over(server.memory, Default::default()).await;
    let (mut client, _) = server.persistent("c").await;
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_connection_takes_over() {
    let server = Server::start().await;
    let properties = Properties {
        session_expiry_interval: Some(100),
        ..Properties::default()
    };
    let connect = Connect {
        properties,
        clean_start: false,
        ..v5("c")
    };
    let (mut first, _) = server.connect(connect.clone()).await;
    first.subscribe("t", 1).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "m", 1).await;
    assert_eq!(&first.receive_publish().await.payload[..], b"m");
    let (mut second, connack) = server.connect(connect).await;
    assert!(connack.session_present);
    first.closed_with(ReasonCode::SESSION_TAKEN_OVER).await;
    let got = second.receive_publish().await;
    assert!(got.dup && got.payload == "m");
}

#[tokio::test(start_paused = true)]
async fn many_takeovers_at_once_leave_one_connection() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.open(Version::V5);
        client.send(Packet::Connect(Box::new(v5("same")))).await;
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        server
            .broker
            .metrics()
            .connections
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_end_with_clean_start_and_by_expiry() {
    let server = Server::start().await;
    let properties = Properties {
        session_expiry_interval: Some(60),
        ..Properties::default()
    };
    let connect = Connect {
        properties,
        clean_start: false,
        ..v5("c")
    };
    let (client, _) = server.connect(connect.clone()).await;
    client.disconnect().await;
    assert_eq!(server.memory.stored_sessions(), 1);
    tokio::time::sleep(Duration::from_secs(59)).await;
    let (client, connack) = server.connect(connect.clone()).await;
    assert!(connack.session_present);
    client.disconnect().await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(server.memory.stored_sessions(), 0, "[MQTT-3.1.2-23]");
    let (client, connack) = server.connect(connect.clone()).await;
    assert!(!connack.session_present);
    client.disconnect().await;
    let (client, connack) = server.connect(v5("c")).await;
    assert!(!connack.session_present, "clean start");
    assert_eq!(server.memory.stored_sessions(), 0);
    client.disconnect().await;

    // The expiry of a session that a dead process left counts from the next start.
    let (client, _) = server.connect(connect.clone()).await;
    client.kill_server_side().await;
    let server = Server::over(server.memory, Default::default()).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(server.memory.stored_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_says_so_and_saves() {
    let server = Server::start().await;
    let (mut old, _) = server.persistent("old").await;
    old.subscribe("t", 1).await;
    let mut new = server.clean("new").await;
    server.shutdown.cancel();
    new.closed_with(ReasonCode::SERVER_SHUTTING_DOWN).await;
    assert_eq!(old.receive().await, None);
    old.vanish().await;
    let server = Server::over(server.memory, Default::default()).await;
    let (_, present) = server.persistent("old").await;
    assert!(present);
}

/// A client that reads nothing must not cost more than its bounds, and delays nobody else.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_delays_only_itself() {
    let server = Server::start().await;
    let mut deaf = server.clean("deaf").await;
    deaf.subscribe("t", 0).await;
    let mut client = server.clean("c").await;
    client.subscribe("t", 0).await;
    let mut sender = server.clean("s").await;
    let payload = "x".repeat(10_000);
    for _ in 0..200 {
        sender.publish("t", &payload, 1).await;
        assert_eq!(client.take().await.len(), 10_000);
    }
    for _ in 0..200 {
        assert_eq!(
            deaf.take().await.len(),
            10_000,
            "it comes later, and nothing is lost"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_has_its_time_left_when_the_clock_is_set() {
    const YEARS: i64 = 5 * 365 * 86_400_000;
    for add in [YEARS, -YEARS] {
        let server = Server::start().await;
        let mut connect = v5("c");
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(600);
        let (mut client, _) = server.connect(connect).await;
        client.subscribe("t", 1).await;
        client.vanish().await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        server.memory.set_clock(add);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(server.memory.stored_sessions(), 1, "{add}: 100 s are left");
        tokio::time::sleep(Duration::from_secs(170)).await;
        assert_eq!(server.memory.stored_sessions(), 0, "{add}: it is over");
    }
}

fn for_ten_minutes(id: &str) -> Connect {
    let mut connect = v5(id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval = Some(600);
    connect
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_while_the_clock_is_being_set_has_its_session() {
    const YEARS: i64 = 5 * 365 * 86_400_000;
    for add in [YEARS, -YEARS, 3_600_000, -3_600_000] {
        let server = Server::start().await;
        for n in 0..200 {
            let (client, _) = server.connect(for_ten_minutes(&format!("c{n:03}"))).await;
            client.vanish().await;
        }
        sleep(Duration::from_secs(200)).await;
        // The first one is being put right for as long as the last one needs.
        server.memory.saves_wait.send_replace(true);
        server.memory.set_clock(add);
        sleep(Duration::from_millis(1)).await;
        let memory = server.memory.clone();
        let later = tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            memory.saves_wait.send_replace(false);
        });
        let (client, connack) = server.connect(for_ten_minutes("c199")).await;
        assert!(connack.session_present, "{add}");
        later.await.expect("the end");
        client.vanish().await;
        sleep(Duration::from_secs(350)).await;
        assert_eq!(server.memory.stored_sessions(), 200, "{add}");
        sleep(Duration::from_secs(100)).await;
        assert_eq!(server.memory.stored_sessions(), 1, "{add}: of the last one");
        sleep(Duration::from_secs(200)).await;
        assert_eq!(server.memory.stored_sessions(), 0, "{add}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_while_the_clock_is_being_set_has_its_time_too() {
    const YEARS: i64 = 5 * 365 * 86_400_000;
    for add in [YEARS, -YEARS] {
        let server = Server::start().await;
        let (client, _) = server.connect(for_ten_minutes("c")).await;
        server.memory.saves_wait.send_replace(true);
        let gone = tokio::spawn(client.vanish());
        sleep(Duration::from_secs(1)).await;
        server.memory.set_clock(add);
        sleep(Duration::from_secs(1)).await;
        server.memory.saves_wait.send_replace(false);
        gone.await.expect("the end");
        sleep(Duration::from_secs(500)).await;
        assert_eq!(
            server.memory.stored_sessions(),
            1,
            "{add}: it has time left"
        );
        sleep(Duration::from_secs(110)).await;
        assert_eq!(server.memory.stored_sessions(), 0, "{add}: it is over");
    }
}

/// Behind one that the client has not acknowledged, in the broker's memory, and of another client in the session alone.
#[tokio::test(start_paused = true)]
async fn a_message_that_waits_has_its_time_left_when_the_clock_is_set() {
    const YEARS: i64 = 5 * 365 * 86_400_000;
    for add in [YEARS, -YEARS] {
        let server = Server::start().await;
        let (mut away, _) = server.persistent("away").await;
        away.subscribe("t", 1).await;
        away.vanish().await;
        let mut connect = v5("slow");
        connect.properties.receive_maximum = Some(1);
        let (mut slow, _) = server.connect(connect).await;
        slow.subscribe("t", 1).await;
        let mut sender = server.clean("s").await;
        for (text, seconds) in [("first", None), ("short", Some(100)), ("long", Some(600))] {
            let mut message = publish("t", text, 1);
            message.properties.message_expiry_interval = seconds;
            sender.publish_packet(message).await;
        }
        let first = slow.receive_publish().await;
        slow.nothing().await;
        server.memory.set_clock(add);
        tokio::time::sleep(Duration::from_secs(200)).await;
        let packet_id = first.packet_id.expect("an id");
        slow.send(Packet::PubAck(Ack::success(packet_id))).await;
        let second = slow.receive_publish().await;
        assert_eq!(&second.payload[..], b"long", "{add}: the short one is over");
        let left = second.properties.message_expiry_interval.expect("a time");
        assert!((390..=400).contains(&left), "{add}: {left}");
        let (mut away, _) = server.persistent("away").await;
        assert_eq!(
            (away.take().await, away.take().await),
            ("first".into(), "long".into())
        );
        away.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_from_a_time_that_is_yet_to_come_ends_too() {
    let server = Server::start().await;
    server.memory.set_clock(1_000_000_000);
    let mut connect = v5("c");
    connect.clean_start = false;
    connect.properties.session_expiry_interval = Some(60);
    let (mut client, _) = server.connect(connect).await;
    client.subscribe("t", 1).await;
    client.vanish().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The board is started again, with its clock put right.
    server.memory.set_clock(0);
    let server = Server::over(server.memory, Default::default()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(server.memory.stored_sessions(), 1);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(server.memory.stored_sessions(), 0);
}

/// Damaged, or of a later version.
#[tokio::test(start_paused = true)]
async fn who_has_a_session_that_can_not_be_read_gets_a_new_one() {
    let server = Server::start().await;
    let unreadable = SavedSession::default();
    let client = ClientId::new("a");
    let saved = server.memory.save_session(&client, unreadable);
    saved.await.unwrap();
    let (client, present) = server.persistent("a").await;
    assert!(!present);
    let counted = &server.broker.metrics().persistent_sessions;
    assert_eq!(counted.load(Relaxed), 1);
    client.disconnect().await;
    let (_client, present) = server.persistent("a").await;
    assert!(present);
    assert_eq!(counted.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_not_answer_are_waited_for_together() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for n in 0..100 {
        let (mut client, _) = server.persistent(&format!("c{n}")).await;
        client.subscribe("a", 1).await;
        clients.push(client);
    }
    server.memory.saves_wait.send_replace(true);
    for client in &mut clients {
        let packet_id = client.next_id();
        let filter = TopicFilter::new("b").expect("a filter");
        let options = SubscriptionOptions::default();
        let subscribe = Subscribe {
            packet_id,
            properties: Properties::default(),
            filters: vec![SubscribeFilter { filter, options }],
        };
        client.send(Packet::Subscribe(subscribe)).await;
    }
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let asked = server.broker.subscriptions_of_connected().await;
    // This time is virtual.
    let took = begun.elapsed();
    let asked = asked.expect("readable");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(took >= Duration::from_secs(2), "nobody answers: {took:?}");
    assert_eq!(asked.len(), 100);
    for (client, list) in asked {
        let filters: Vec<&str> = list.iter().map(|info| info.filter.as_str()).collect();
        assert_eq!(filters, ["a"], "what is stored of {client}");
    }
    server.memory.saves_wait.send_replace(false);
}
