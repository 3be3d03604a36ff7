//! Messages of QoS 0 before they are stored: at once for who is connected, once, and in order, whatever the disk does meanwhile.

use crate::client::*;
use crate::live::{Random, seed};
use mqtt_broker::backend::PublishError;
use mqtt_codec::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// There is the stream, and nothing is committed from now on.
async fn held() -> Server {
    let server = Server::start().await;
    let mut first = server.clean("first").await;
    first.publish("t/none", "", 1).await;
    server.memory.hold(true);
    server
}

fn refused<T>(_: &T) -> Result<(), PublishError> {
    Err(PublishError::QuotaExceeded("the disk is full".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn it_comes_while_the_commit_hangs_and_not_again_after_it() {
    let server = held().await;
    let mut publisher = server.clean("p").await;
    publisher.subscribe("t/own", 1).await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("t/+", 0).await;
    subscriber.subscribe("t/#", 2).await;
    let mut exact = server.clean("exact").await;
    exact.subscribe("t/1", 0).await;
    for round in 0..3 {
        for n in 0..5 {
            let text = format!("{round} {n}");
            publisher.publish("t/1", &text, 0).await;
            assert_eq!(subscriber.take().await, text);
            assert_eq!(exact.take().await, text);
        }
        assert_eq!(server.memory.held(), 5);
        assert_eq!(server.memory.payloads("t").len(), 1 + round * 5);
        server.memory.commit(usize::MAX, |_| Ok(()));
        subscriber.nothing().await;
        exact.nothing().await;
    }
    // A client's own as well.
    publisher.publish("t/own", "own", 0).await;
    assert_eq!(publisher.take().await, "own");
    assert_eq!(subscriber.take().await, "own");
    server.memory.hold(false);
    publisher.nothing().await;
    subscriber.nothing().await;
    assert_eq!(server.memory.payloads("t").len(), 17);
}

#[tokio::test(start_paused = true)]
async fn in_a_stream_that_does_not_exist_yet_too() {
    let server = Server::start().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("new/#", 0).await;
    let mut publisher = server.clean("p").await;
    server.memory.hold(true);
    publisher.publish("new/1", "a", 0).await;
    assert_eq!(subscriber.take().await, "a");
    server.memory.commit(1, |_| Ok(()));
    subscriber.nothing().await;
    publisher.publish("new/1", "b", 0).await;
    assert_eq!(subscriber.take().await, "b");
    server.memory.hold(false);
    subscriber.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_kept_waits_for_the_log() {
    let server = held().await;
    let mut live = server.clean("live").await;
    live.subscribe("t/#", 1).await;
    let (mut persistent, _) = server.persistent("persistent").await;
    let mut member = server.clean("member").await;
    server.memory.hold(false);
    persistent.subscribe("t/#", 1).await;
    member.subscribe("$share/g/t/#", 1).await;
    let mut publisher = server.clean("p").await;
    server.memory.hold(true);
    publisher.publish("t/1", "0", 0).await;
    assert_eq!(live.take().await, "0");
    persistent.nothing().await;
    member.nothing().await;
    let packet = Publish {
        packet_id: Some(publisher.next_id()),
        ..publish("t/1", "1", 1)
    };
    publisher.send(Packet::Publish(Box::new(packet))).await;
    publisher.nothing().await;
    live.nothing().await;
    server.memory.hold(false);
    assert_eq!(live.take().await, "1");
    for client in [&mut persistent, &mut member] {
        assert_eq!(client.take().await, "0");
        assert_eq!(client.take().await, "1");
        client.nothing().await;
    }
    live.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn options_of_a_subscription_hold() {
    let server = held().await;
    let mut client = server.clean("c").await;
    let own = SubscriptionOptions {
        no_local: true,
        ..Default::default()
    };
    client.subscribe_with("t/own", own, None).await;
    client
        .subscribe_with("t/+/x", Default::default(), Some(7))
        .await;
    client.publish("t/own", "mine", 0).await;
    client.nothing().await;
    let mut expiring = publish("t/a/x", "e", 0);
    expiring.properties.message_expiry_interval = Some(9);
    expiring.properties.user_properties = vec![("a".to_owned(), "b".to_owned())];
    client.publish_packet(expiring).await;
    let got = client.receive_publish().await;
    assert_eq!(got.properties.subscription_identifiers, [7]);
    assert_eq!(got.properties.message_expiry_interval, Some(9));
    assert_eq!(got.properties.user_properties.len(), 1);
    server.memory.hold(false);
    client.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_retained_goes_by_the_log_and_is_not_overtaken_4_6_0_6() {
    let server = held().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("t/#", 0).await;
    let mut publisher = server.clean("p").await;
    let retained = |text: &str| Publish {
        retain: true,
        ..publish("t/1", text, 0)
    };
    publisher.publish("t/1", "0", 0).await;
    publisher.publish_packet(retained("1")).await;
    publisher.publish("t/1", "2", 0).await;
    // Another topic, and another client, do not wait.
    publisher.publish("t/2", "other topic", 0).await;
    let mut other = server.clean("o").await;
    other.publish("t/1", "other client", 0).await;
    for text in ["0", "other topic", "other client"] {
        assert_eq!(subscriber.take().await, text);
    }
    subscriber.nothing().await;
    server.memory.commit(1, |_| Ok(()));
    subscriber.nothing().await;
    server.memory.commit(usize::MAX, |_| Ok(()));
    assert_eq!(subscriber.take().await, "1");
    assert_eq!(subscriber.take().await, "2");
    subscriber.nothing().await;
    publisher.publish("t/1", "3", 0).await;
    assert_eq!(subscriber.take().await, "3");
}

#[tokio::test(start_paused = true)]
async fn a_will_is_not_overtaken_by_the_next_connection_of_its_client() {
    let server = held().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("t/#", 0).await;
    let mut with_will = v5("p");
    with_will.will = will("t/1", 0);
    if let Some(will) = &mut with_will.will {
        will.qos = QoS::AtMostOnce;
    }
    server.memory.answers_early.store(true, Ordering::Relaxed);
    let (publisher, _) = server.connect(with_will).await;
    publisher.vanish().await;
    let mut again = server.clean("p").await;
    again.publish("t/1", "again", 0).await;
    subscriber.nothing().await;
    server.memory.hold(false);
    assert_eq!(subscriber.take().await, "gone");
    assert_eq!(subscriber.take().await, "again");
}

/// In both ways of a host: the answer comes with the commit, and before it.
#[tokio::test(start_paused = true)]
async fn who_subscribes_while_a_message_is_on_its_way_gets_it_before_later_ones() {
    for answers_early in [false, true] {
        let server = held().await;
        let early = &server.memory.answers_early;
        early.store(answers_early, Ordering::Relaxed);
        let mut publisher = server.clean("p").await;
        publisher.publish("t/1", "0", 0).await;
        let mut subscriber = server.clean("s").await;
        subscriber.subscribe("t/#", 0).await;
        sleep(Duration::from_secs(60)).await;
        publisher.publish("t/1", "1", 0).await;
        subscriber.nothing().await;
        server.memory.commit(1, |_| Ok(()));
        assert_eq!(subscriber.take().await, "0", "{answers_early}");
        // Long enough that it has looked again.
        sleep(Duration::from_secs(6)).await;
        publisher.publish("t/1", "2", 0).await;
        subscriber.nothing().await;
        let mut other = server.clean("o").await;
        other.publish("t/1", "other", 0).await;
        assert_eq!(subscriber.take().await, "other", "{answers_early}");
        server.memory.commit(2, |_| Ok(()));
        for text in ["1", "2"] {
            assert_eq!(subscriber.take().await, text, "{answers_early}");
        }
        publisher.publish("t/1", "3", 0).await;
        assert_eq!(subscriber.take().await, "3", "{answers_early}");
        server.memory.hold(false);
        subscriber.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_subscribes_again_meanwhile_gets_it_at_most_once() {
    let server = held().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("t/#", 0).await;
    let mut publisher = server.clean("p").await;
    publisher.publish("t/1", "0", 0).await;
    assert_eq!(subscriber.take().await, "0");
    subscriber.unsubscribe("t/#").await;
    publisher.publish("t/1", "nobody", 0).await;
    subscriber.subscribe("t/#", 0).await;
    publisher.publish("t/1", "1", 0).await;
    subscriber.nothing().await;
    server.memory.hold(false);
    // It was published before the subscription and stored after it.
    assert_eq!(subscriber.take().await, "nobody");
    assert_eq!(subscriber.take().await, "1");
    subscriber.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_was_there_for_who_was_connected_and_holds_nothing_up() {
    let server = held().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("t/#", 0).await;
    let (mut persistent, _) = server.persistent("persistent").await;
    server.memory.hold(false);
    persistent.subscribe("t/#", 0).await;
    server.memory.hold(true);
    let mut publisher = server.clean("p").await;
    publisher.publish("t/1", "0", 0).await;
    assert_eq!(subscriber.take().await, "0");
    let retained = Publish {
        retain: true,
        ..publish("t/1", "1", 0)
    };
    publisher.publish_packet(retained).await;
    publisher.publish("t/1", "2", 0).await;
    sleep(Duration::from_secs(1)).await;
    server.memory.commit(usize::MAX, refused);
    subscriber.nothing().await;
    persistent.nothing().await;
    // The publisher goes on, by the log: of the last one nothing has come.
    publisher.publish("t/1", "3", 0).await;
    subscriber.nothing().await;
    server.memory.commit(1, |_| Ok(()));
    assert_eq!(subscriber.take().await, "3");
    assert_eq!(persistent.take().await, "3");
    publisher.publish("t/1", "4", 0).await;
    assert_eq!(subscriber.take().await, "4");
    // Where nothing comes after it, that it never will is found out.
    publisher
        .publish_packet(Publish {
            retain: true,
            ..publish("t/2", "5", 0)
        })
        .await;
    sleep(Duration::from_secs(1)).await;
    server.memory.commit(usize::MAX, refused);
    sleep(Duration::from_secs(60)).await;
    publisher.publish("t/2", "6", 0).await;
    assert_eq!(subscriber.take().await, "6");
}

const BOUND: usize = 4_096;

/// Four publishers, each message taken before the next is sent.
async fn one_by_one(publishers: &mut [Client], subscriber: &mut Client, from: usize, count: usize) {
    let all = publishers.len();
    for n in from..from + count {
        let text = n.to_string();
        publishers[n % all].publish("t/1", &text, 0).await;
        assert_eq!(subscriber.take().await, text);
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_are_given_early_and_no_more() {
    let server = held().await;
    let mut subscriber = server.clean("s").await;
    subscriber.subscribe("t/#", 0).await;
    let mut publishers = Vec::new();
    for n in 0..4 {
        publishers.push(server.clean(&format!("p{n}")).await);
    }
    one_by_one(&mut publishers, &mut subscriber, 0, BOUND).await;
    for (n, publisher) in publishers.iter_mut().enumerate() {
        for text in [BOUND + n, BOUND + 4 + n] {
            publisher.publish("t/1", &text.to_string(), 0).await;
            subscriber.nothing().await;
        }
    }
    // One that comes back makes room, but not for those who have something in the log already.
    server.memory.commit(1, |_| Ok(()));
    publishers[0]
        .publish("t/1", &(BOUND + 8).to_string(), 0)
        .await;
    subscriber.nothing().await;
    let mut other = server.clean("other").await;
    other.publish("t/1", "other", 0).await;
    assert_eq!(subscriber.take().await, "other");
    other.publish("t/1", "and no more", 0).await;
    subscriber.nothing().await;
    server.memory.commit(usize::MAX, |_| Ok(()));
    let mut of_each = [0; 4];
    for _ in 0..9 {
        let n: usize = subscriber.take().await.parse().expect("a number");
        assert!(n >= BOUND && n > of_each[n % 4], "{n}");
        of_each[n % 4] = n;
    }
    assert_eq!(subscriber.take().await, "and no more");
    subscriber.nothing().await;
    // Of those that are refused nothing comes back: the room is there again after a while.
    one_by_one(&mut publishers, &mut subscriber, 0, BOUND).await;
    publishers[0].publish("t/1", "full", 0).await;
    subscriber.nothing().await;
    server.memory.commit(usize::MAX, refused);
    sleep(Duration::from_secs(60)).await;
    one_by_one(&mut publishers, &mut subscriber, 0, 8).await;
    server.memory.hold(false);
    subscriber.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_nothing_gets_all_in_order_and_then_early_again() {
    let server = held().await;
    let mut slow = server.clean("slow").await;
    slow.subscribe("t/#", 0).await;
    let mut quick = server.clean("quick").await;
    quick.subscribe("t/#", 0).await;
    let mut publisher = server.clean("p").await;
    let text = "x".repeat(8 * 1024);
    for n in 0..600 {
        publisher.publish("t/1", &format!("{n} {text}"), 0).await;
        assert!(quick.take().await.starts_with(&format!("{n} ")));
        if n % 50 == 49 {
            server.memory.commit(40, |_| Ok(()));
        }
    }
    let behind = server.memory.held();
    assert_eq!(behind, 120);
    for n in 0..480 {
        assert!(slow.take().await.starts_with(&format!("{n} ")), "{n}");
    }
    slow.nothing().await;
    server.memory.commit(usize::MAX, |_| Ok(()));
    for n in 480..600 {
        assert!(slow.take().await.starts_with(&format!("{n} ")), "{n}");
    }
    slow.nothing().await;
    quick.nothing().await;
    publisher.publish("t/1", "early", 0).await;
    assert_eq!(slow.take().await, "early");
    server.memory.hold(false);
    slow.nothing().await;
}

const PUBLISHERS: usize = 4;
const MESSAGES: usize = 500;

/// What one subscriber got, by publisher, topic and QoS of publishing, in order.
type Got = BTreeMap<String, Vec<usize>>;

/// Takes until it has the last of each publisher of QoS 0, and of QoS 1.
async fn take_all(client: &mut Client, random: &mut Random, slow: bool) -> Got {
    let mut got = Got::new();
    let mut ends = 0;
    while ends < 2 * PUBLISHERS {
        if slow {
            random.pause(1_500).await;
        }
        let text = client.take().await;
        let mut words = text.split(' ');
        let (source, number) = (words.next().expect("a source"), words.next());
        let number: usize = number.expect("a number").parse().expect("a number");
        ends += usize::from(number >= MESSAGES);
        got.entry(source.to_owned()).or_default().push(number);
    }
    client.nothing().await;
    got
}

/// Each message that was stored once, each that was refused at most once, in order. `late`: not from the beginning.
fn check(who: &str, got: &Got, sent: &Got, refused: &BTreeSet<(String, usize)>, late: bool) {
    for (source, sent) in sent {
        let none = Vec::new();
        let got = got.get(source).unwrap_or(&none);
        assert!(
            got.windows(2).all(|pair| pair[0] < pair[1]),
            "{who} of {source}: {got:?}"
        );
        let first = got.first().copied().unwrap_or(usize::MAX);
        let is_refused = |n: &usize| refused.contains(&(source.clone(), *n));
        let wanted = sent.iter().filter(|n| !is_refused(n));
        let wanted: Vec<usize> = wanted.copied().filter(|n| !late || *n >= first).collect();
        let stored: Vec<usize> = got.iter().copied().filter(|n| !is_refused(n)).collect();
        assert_eq!(stored, wanted, "{who} of {source}");
    }
}

async fn publish_all(server: Arc<Server>, publisher: usize, mut random: Random) -> Got {
    let mut sent = Got::new();
    let name = format!("p{publisher}");
    let mut client = server.clean(&name).await;
    for number in 0..MESSAGES + 2 {
        random.pause(200).await;
        if random.below(60) == 0 {
            client.disconnect().await;
            client = server.clean(&name).await;
        }
        let topic = match random.below(3) {
            0 => "e/all".to_owned(),
            _ => format!("e/{publisher}"),
        };
        let last = number >= MESSAGES;
        let qos = match number {
            MESSAGES => 0,
            n if n > MESSAGES => 1,
            _ => u8::from(random.below(10) == 0),
        };
        let size = match random.below(8) {
            0..2 => random.below(32 * 1024),
            _ => random.below(20),
        };
        let source = format!("{name}/{topic}/{qos}");
        let packet = Publish {
            retain: !last && random.below(40) == 0,
            ..publish(
                &topic,
                &format!("{source} {number} {}", "x".repeat(size as usize)),
                qos,
            )
        };
        client.publish_packet(packet).await;
        sent.entry(source).or_default().push(number);
    }
    client.disconnect().await;
    sent
}

#[tokio::test(start_paused = true)]
async fn every_subscriber_gets_every_message_once_and_in_order() {
    let first = seed();
    let (mut early, mut read) = (0, 0);
    for round in 0..6 {
        let seed = first.wrapping_add(round);
        let server = Arc::new(Server::start().await);
        server.clean("first").await.publish("e/none", "", 1).await;
        let answers_early = round % 2 == 1;
        server
            .memory
            .answers_early
            .store(answers_early, Ordering::Relaxed);
        server.memory.hold(true);
        // Commits at random, and refuses some of QoS 0.
        let disk = {
            let (server, mut random) = (server.clone(), Random(seed ^ 500));
            let refusals: Arc<std::sync::Mutex<BTreeSet<(String, usize)>>> = Arc::default();
            let known = refusals.clone();
            let task = tokio::spawn(async move {
                loop {
                    let longest = [1, 5, 20, 400][random.below(4) as usize];
                    sleep(Duration::from_millis(random.below(longest))).await;
                    let most = random.below(60) as usize;
                    let refuses = random.below(30) == 0;
                    server.memory.commit(most, |publish| {
                        let text = String::from_utf8_lossy(&publish.message.payload).into_owned();
                        let mut words = text.split(' ');
                        let source = words.next().unwrap_or_default().to_owned();
                        let number = words.next().and_then(|word| word.parse().ok());
                        let Some(number) = number.filter(|number| *number < MESSAGES) else {
                            return Ok(());
                        };
                        if !refuses || publish.message.qos != QoS::AtMostOnce {
                            return Ok(());
                        }
                        known.lock().expect("the lock").insert((source, number));
                        refused(publish)
                    });
                }
            });
            (task, refusals)
        };
        let mut subscribers = JoinSet::new();
        for n in 0..7u64 {
            let (server, mut random) = (server.clone(), Random(seed ^ (1000 + n)));
            let mut client = match n {
                6 => server.persistent("s6").await.0,
                _ => server.clean(&format!("s{n}")).await,
            };
            if n != 5 {
                client.subscribe("e/#", (n % 2) as u8).await;
            }
            subscribers.spawn(async move {
                if n == 5 {
                    sleep(Duration::from_millis(random.below(1_000))).await;
                    let options = SubscriptionOptions {
                        qos: QoS::AtLeastOnce,
                        retain_handling: RetainHandling::DoNotSend,
                        ..Default::default()
                    };
                    client.subscribe_with("e/+", options, None).await;
                }
                let got = take_all(&mut client, &mut random, n % 3 == 1).await;
                (n, got)
            });
        }
        let mut publishers = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            let random = Random(seed ^ publisher as u64);
            publishers.spawn(publish_all(server.clone(), publisher, random));
        }
        let mut sent = Got::new();
        while let Some(done) = publishers.join_next().await {
            sent.extend(done.expect("a publisher"));
        }
        let mut all = Vec::new();
        while let Some(done) = subscribers.join_next().await {
            all.push(done.expect("a subscriber"));
        }
        disk.0.abort();
        let refusals = disk.1.lock().expect("the lock").clone();
        for (n, got) in all {
            let who = format!("round {round}, subscriber {n}");
            check(&who, &got, &sent, &refusals, n == 5);
        }
        early += server.broker.metrics().early.load(Ordering::Relaxed);
        read += server.memory.messages_read.load(Ordering::Relaxed);
        server.shutdown.cancel();
    }
    let messages = (6 * PUBLISHERS * MESSAGES) as u64;
    assert!(early > messages, "hardly anything was early: {early}");
    assert!(read > messages * 5 / 4, "nobody fell behind: {read}");
}
