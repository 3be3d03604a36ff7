//! Retained messages that a session has not had when its connection ends, or that older messages are on the way before.

use crate::chapters::{lasting, retained, subscribe};
use crate::client::*;
use mqtt_broker::Limits;
use mqtt_codec::*;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A session that stays, of a client that takes one message at a time.
fn slow() -> Connect {
    let mut connect = lasting(Version::V5, "slow");
    connect.properties.receive_maximum = Some(1);
    connect
}

async fn resume(server: &Server) -> Client {
    let (client, connack) = server.connect(slow()).await;
    assert!(connack.session_present);
    client
}

/// The connection is over, and with `restart` the server's process too.
async fn lose(server: Server, client: Client, restart: bool) -> Server {
    if restart {
        client.kill_server_side().await;
        Server::over(server.memory, Limits::default()).await
    } else {
        client.vanish().await;
        server
    }
}

async fn keep(server: &Server, names: &[String]) {
    let mut sender = server.clean("s").await;
    for name in names {
        sender.publish_packet(retained(name, name, 2)).await;
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}/{n:02}")).collect()
}

async fn take(client: &mut Client, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        got.push(client.take().await);
    }
    got
}

/// What comes, with its RETAIN flag, until nothing more does.
async fn take_all(client: &mut Client) -> Vec<(String, bool)> {
    let mut got = Vec::new();
    let wait = Duration::from_millis(500);
    while let Ok(packet) = tokio::time::timeout(wait, client.receive_publish()).await {
        if let Some(packet_id) = packet.packet_id {
            client.send(Packet::PubAck(Ack::success(packet_id))).await;
        }
        let text = String::from_utf8_lossy(&packet.payload).into_owned();
        got.push((text, packet.retain));
    }
    got
}

async fn ack(client: &mut Client, packet: &Publish) {
    let packet_id = packet.packet_id.expect("an id");
    client.send(Packet::PubAck(Ack::success(packet_id))).await;
}

async fn subscribe_again(client: &mut Client, filter: &str) {
    client.send(subscribe(999, &[(filter, 1)])).await;
    assert!(matches!(client.receive().await, Some(Packet::SubAck(_))));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_of_them_comes_after_the_connection_also_from_another_process() {
    for (qos, restart) in [(1, false), (1, true), (2, false), (2, true)] {
        let mut server = Server::start().await;
        let all = names("r", 20);
        keep(&server, &all).await;
        let (mut client, _) = server.connect(slow()).await;
        client.subscribe("#", qos).await;
        let mut got = take(&mut client, 5).await;
        let last = client.receive_publish().await;
        server = lose(server, client, restart).await;
        let mut client = resume(&server).await;
        let again = client.receive_publish().await;
        // What was saved last: within a second of QoS 1, and before it was sent of QoS 2.
        if qos == 2 || !restart {
            assert!(again.dup && again.packet_id == last.packet_id, "{again:?}");
            assert!(again.payload == last.payload && again.retain);
        }
        client.vanish().await;
        let mut client = resume(&server).await;
        let left = if qos == 1 && restart { 20 } else { 15 };
        got.extend(take(&mut client, left).await);
        client.nothing().await;
        got.sort();
        got.dedup_by(|a, b| qos == 1 && a == b);
        assert_eq!(got, all, "QoS {qos}, restart: {restart}");
        client.vanish().await;
        resume(&server).await.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_ends_them_and_a_new_subscription_begins_them_again() {
    let server = Server::start().await;
    keep(&server, &names("a", 9)).await;
    keep(&server, &names("b", 3)).await;
    let (mut client, _) = server.connect(slow()).await;
    client.subscribe("a/+", 1).await;
    let first = client.receive_publish().await;
    client.subscribe("b/+", 1).await;
    ack(&mut client, &first).await;
    let second = client.receive_publish().await;
    client.unsubscribe("a/+").await;
    client.vanish().await;
    let mut client = resume(&server).await;
    let again = client.receive_publish().await;
    assert!(again.dup && again.payload == "a/01");
    assert_eq!(again.packet_id, second.packet_id);
    ack(&mut client, &again).await;
    assert_eq!(take(&mut client, 1).await, ["b/00"]);
    let second = client.receive_publish().await;
    assert_eq!(second.payload, "b/01");
    subscribe_again(&mut client, "b/+").await;
    client.vanish().await;
    let mut client = resume(&server).await;
    let expected = ["b/01", "b/00", "b/01", "b/02"];
    assert_eq!(take(&mut client, 4).await, expected);
    client.nothing().await;
}

/// [MQTT-4.6.0-5] of 3.1.1, [MQTT-4.6.0-6] of 5
#[tokio::test(start_paused = true)]
async fn what_waits_for_the_client_comes_before_the_retained_message_that_is_newer() {
    for filter in ["t", "+", "#"] {
        let server = Server::start().await;
        let (mut client, _) = server.connect(slow()).await;
        client.subscribe("t", 1).await;
        let mut sender = server.clean("s").await;
        for n in 1..=3 {
            sender
                .publish_packet(retained("t", &format!("m{n}"), 1))
                .await;
        }
        let first = client.receive_publish().await;
        subscribe_again(&mut client, filter).await;
        // It is still waiting for its turn.
        for n in 4..=5 {
            sender
                .publish_packet(retained("t", &format!("m{n}"), 1))
                .await;
        }
        client.nothing().await;
        ack(&mut client, &first).await;
        let live = (2..=5).map(|n| (format!("m{n}"), false));
        let expected: Vec<_> = live.chain([("m5".to_owned(), true)]).collect();
        assert_eq!(take_all(&mut client).await, expected, "{filter}");
    }
}

/// [MQTT-4.6.0-5] of 3.1.1, [MQTT-4.6.0-6] of 5: the client was away, so that the log has to be read first
#[tokio::test(start_paused = true)]
async fn what_came_while_the_client_was_away_comes_before_the_retained_message_that_is_newer() {
    for again in [false, true] {
        let server = Server::start().await;
        keep(&server, &["t/1".to_owned(), "t/2".to_owned()]).await;
        let (mut client, _) = server.connect(slow()).await;
        client.subscribe("t/#", 1).await;
        let first = client.receive_publish().await;
        client.vanish().await;
        let mut sender = server.clean("s").await;
        for n in 0..300 {
            sender
                .publish_packet(retained("t/2", &n.to_string(), 1))
                .await;
        }
        let mut client = resume(&server).await;
        assert_eq!(client.receive_publish().await.packet_id, first.packet_id);
        if again {
            subscribe_again(&mut client, "t/#").await;
        }
        ack(&mut client, &first).await;
        let mut expected: Vec<_> = (0..300).map(|n| (n.to_string(), false)).collect();
        if again {
            expected.push(("t/1".to_owned(), true));
        }
        expected.push(("299".to_owned(), true));
        assert_eq!(take_all(&mut client).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_is_not_for_the_client_holds_nothing_up() {
    let server = Server::start().await;
    keep(&server, &names("t/a", 3)).await;
    let (mut client, _) = server.connect(slow()).await;
    client.subscribe("t/a/+", 1).await;
    let first = client.receive_publish().await;
    client.vanish().await;
    let mut sender = server.clean("s").await;
    for n in 0..300 {
        sender.publish("t/b", &n.to_string(), 1).await;
    }
    let mut client = resume(&server).await;
    assert_eq!(client.receive_publish().await.packet_id, first.packet_id);
    ack(&mut client, &first).await;
    let kept = |name: &str| (name.to_owned(), true);
    let rest = [kept("t/a/01"), kept("t/a/02")];
    assert_eq!(take_all(&mut client).await, rest);
    // The position of a session that follows the feed moves on only now and then.
    for n in 0..50 {
        sender.publish("t/b", &n.to_string(), 1).await;
    }
    subscribe_again(&mut client, "t/a/+").await;
    assert_eq!(take_all(&mut client).await.len(), 3);
}

/// [MQTT-4.4.0-1], [MQTT-4.3.2-1], [MQTT-4.3.3-1] of 3.1.1; [MQTT-4.4.0-1], [MQTT-4.3.2-3], [MQTT-4.3.3-3], [MQTT-4.3.3-7] of 5
#[tokio::test(start_paused = true)]
async fn one_in_flight_is_sent_again_as_it_was_whatever_became_of_it() {
    for (qos, restart) in [(1, false), (1, true), (2, false), (2, true)] {
        for change in ["replaced", "cleared", "expired"] {
            let mut server = Server::start().await;
            let mut sender = server.clean("s").await;
            let mut kept = retained("t", "v1", 2);
            kept.properties.content_type = Some("text/plain".to_owned());
            kept.properties.message_expiry_interval = (change == "expired").then_some(5);
            sender.publish_packet(kept).await;
            let (mut client, _) = server.connect(slow()).await;
            client.subscribe("t", qos).await;
            let first = client.receive_publish().await;
            // It is saved by then.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            match change {
                "replaced" => sender.publish_packet(retained("t", "v2", 2)).await,
                "cleared" => sender.publish_packet(retained("t", "", 2)).await,
                _ => tokio::time::sleep(Duration::from_secs(10)).await,
            }
            server = lose(server, client, restart).await;
            let mut client = resume(&server).await;
            let again = client.receive_publish().await;
            let said = format!("QoS {qos}, restart: {restart}, {change}: {again:?}");
            assert!(again.dup && again.retain, "{said}");
            assert_eq!(again.packet_id, first.packet_id, "{said}");
            assert_eq!(again.payload, "v1", "{said}");
            let content_type = again.properties.content_type;
            assert_eq!(content_type.as_deref(), Some("text/plain"), "{said}");
        }
    }
}

/// The rules may be others than when it was sent first.
#[tokio::test(start_paused = true)]
async fn one_in_flight_is_not_sent_again_to_who_must_not_receive_it_any_more() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    sender.publish_packet(retained("moody/1", "x", 1)).await;
    let (mut client, _) = server.connect(slow()).await;
    client.subscribe("+/1", 1).await;
    client.receive_publish().await;
    client.vanish().await;
    server.guard.closed.store(true, Ordering::Relaxed);
    resume(&server).await.nothing().await;
}

/// The same where nobody is asked about each message: the user may be another one.
#[tokio::test(start_paused = true)]
async fn one_in_flight_is_asked_about_although_what_is_granted_is_granted_whole() {
    let server = Server::start().await;
    server.guard.grants_whole.store(true, Ordering::Relaxed);
    let mut sender = server.clean("s").await;
    let (mut client, _) = server.connect(slow()).await;
    client.subscribe("+/1", 1).await;
    sender.publish("moody/1", "before", 1).await;
    client.receive_publish().await;
    client.vanish().await;
    server.guard.closed.store(true, Ordering::Relaxed);
    let mut client = resume(&server).await;
    sender.publish("moody/1", "after", 1).await;
    assert_eq!(client.take().await, "after");
    client.nothing().await;
}
