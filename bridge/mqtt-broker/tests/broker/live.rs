//! Delivery by the hub: one read for all, and clients that pause, fall behind, and come up again.

use crate::client::*;
use mqtt_broker::backend::Backend;
use mqtt_codec::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// Mostly not at all, sometimes for long.
    pub async fn pause(&mut self, longest_ms: u64) {
        match self.below(40) {
            0 => sleep(Duration::from_millis(self.below(longest_ms))).await,
            1..=8 => tokio::task::yield_now().await,
            _ => {}
        }
    }
}

pub fn seed() -> u64 {
    let seed = std::env::var("TOWLINE_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("random numbers");
        u64::from_be_bytes(bytes)
    });
    println!("TOWLINE_SEED={seed}");
    seed
}

const PUBLISHERS: u64 = 3;
const MESSAGES: u64 = 400;

fn payload(publisher: u64, number: u64, size: u64) -> String {
    format!("{publisher} {number} {}", "x".repeat(size as usize))
}

/// Publisher and number.
fn numbers(text: &str) -> (u64, u64) {
    let mut words = text.split(' ');
    let mut number = || words.next().expect("a word").parse().expect("a number");
    (number(), number())
}

/// What a subscriber got of each publisher, in order, repetitions marked as such left out.
#[derive(Default)]
struct Got(BTreeMap<u64, Vec<u64>>);

impl Got {
    fn add(&mut self, publish: &Publish) {
        let text = String::from_utf8_lossy(&publish.payload);
        let (publisher, number) = numbers(&text);
        let all = self.0.entry(publisher).or_default();
        if publish.dup && all.contains(&number) {
            return;
        }
        all.push(number);
    }

    fn is_complete(&self, publishers: &[u64]) -> bool {
        publishers
            .iter()
            .all(|one| self.0.get(one).and_then(|all| all.last()) == Some(&(MESSAGES - 1)))
    }

    /// All from some number on, each once; from the first on where `from_start`.
    fn check(&self, who: &str, from_start: bool) {
        for (publisher, all) in &self.0 {
            let first = all[0];
            assert!(
                !from_start || first == 0,
                "{who} misses the first of {publisher}"
            );
            let expected: Vec<u64> = (first..MESSAGES).collect();
            assert_eq!(*all, expected, "{who} of publisher {publisher}");
        }
    }
}

/// Takes until it has the last of each publisher; acknowledges.
async fn take_all(client: &mut Client, got: &mut Got, publishers: &[u64], random: &mut Random) {
    while !got.is_complete(publishers) {
        random.pause(900).await;
        match client.receive().await {
            Some(Packet::Publish(publish)) => {
                got.add(&publish);
                let Some(packet_id) = publish.packet_id else {
                    continue;
                };
                let ack = Ack::success(packet_id);
                let answer = match publish.qos {
                    QoS::AtLeastOnce => Packet::PubAck(ack),
                    _ => Packet::PubRec(ack),
                };
                client.send(answer).await;
            }
            Some(Packet::PubRel(ack)) => {
                client
                    .send(Packet::PubComp(Ack::success(ack.packet_id)))
                    .await;
            }
            other => panic!("no PUBLISH but {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_pause_miss_nothing_and_get_nothing_twice() {
    let seed = seed();
    let server = Arc::new(Server::start().await);
    let mut tasks = JoinSet::new();
    let all: Vec<u64> = (0..PUBLISHERS).collect();
    // The streams exist, and with them the feeds.
    let mut first = server.clean("first").await;
    first.publish("live/none", "", 1).await;

    for n in 0..8u64 {
        let mut random = Random(seed ^ (1000 + n));
        let (filter, wanted) = match n {
            0..4 => ("live/#".to_owned(), all.clone()),
            _ => (format!("live/{}", n % PUBLISHERS), vec![n % PUBLISHERS]),
        };
        let mut client = server.clean(&format!("s{n}")).await;
        client.subscribe(&filter, (n % 3) as u8).await;
        tasks.spawn(async move {
            let mut got = Got::default();
            take_all(&mut client, &mut got, &wanted, &mut random).await;
            got.check(&format!("subscriber {n}"), true);
            let rest = tokio::time::timeout(Duration::from_secs(2), async {
                while !matches!(client.receive().await, Some(Packet::Publish(_))) {}
            });
            assert!(
                rest.await.is_err(),
                "subscriber {n} gets more than there is"
            );
        });
    }
    // One that comes late, and asks for more later.
    {
        let (server, mut random) = (server.clone(), Random(seed ^ 2000));
        tasks.spawn(async move {
            sleep(Duration::from_millis(random.below(150))).await;
            let mut client = server.clean("late").await;
            client.subscribe("live/0", 1).await;
            let mut got = Got::default();
            take_all(&mut client, &mut got, &[0], &mut random).await;
            got.check("the late subscriber", false);
        });
    }
    // One that breaks off and comes again.
    {
        let (server, mut random) = (server.clone(), Random(seed ^ 3000));
        let (mut client, _) = server.persistent("comes and goes").await;
        client.subscribe("live/+", 1).await;
        tasks.spawn(async move {
            let mut got = Got::default();
            for _ in 0..5 {
                let some = Duration::from_millis(random.below(1_500));
                let part = take_all(&mut client, &mut got, &[0, 1, 2], &mut random);
                if tokio::time::timeout(some, part).await.is_ok() {
                    break;
                }
                client.vanish().await;
                sleep(Duration::from_millis(random.below(500))).await;
                let (again, present) = server.persistent("comes and goes").await;
                assert!(present);
                client = again;
            }
            take_all(&mut client, &mut got, &[0, 1, 2], &mut random).await;
            got.check("the one that comes and goes", true);
        });
    }
    for publisher in 0..PUBLISHERS {
        let mut random = Random(seed ^ publisher);
        let mut client = server.clean(&format!("p{publisher}")).await;
        tasks.spawn(async move {
            for number in 0..MESSAGES {
                // Not over before the late one has come.
                if number == MESSAGES / 2 {
                    sleep(Duration::from_millis(200)).await;
                }
                random.pause(100).await;
                let size = random.below(16 * 1024);
                let text = payload(publisher, number, size);
                client.publish(&format!("live/{publisher}"), &text, 2).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a client");
    }
    let read = server.memory.messages_read.load(Ordering::Relaxed);
    assert!(
        read > 2 * PUBLISHERS * MESSAGES,
        "nobody fell behind: {read}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_is_read_once_however_many_get_it() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    sender.publish("t/0", "before", 1).await;
    let mut clients = Vec::new();
    for n in 0..50 {
        let mut client = server.clean(&format!("c{n}")).await;
        client.subscribe("t/#", 1).await;
        client.subscribe("t/+", 1).await; // overlapping, and still once
        clients.push(client);
    }
    clients[0].nothing().await; // everybody has joined
    let before = server.memory.messages_read.load(Ordering::Relaxed);
    for n in 0..100 {
        sender.publish("t/1", &n.to_string(), 1).await;
    }
    for client in &mut clients {
        for n in 0..100 {
            assert_eq!(client.take().await, n.to_string());
        }
        client.nothing().await;
    }
    let read = server.memory.messages_read.load(Ordering::Relaxed) - before;
    assert_eq!(read, 100, "messages read");
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_nothing_holds_nobody_up() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    let mut dead = server.clean("dead").await;
    let mut alive = server.clean("alive").await;
    for client in [&mut dead, &mut alive] {
        client.subscribe("t", 0).await;
    }
    let text = "x".repeat(16 * 1024);
    let started = tokio::time::Instant::now();
    for n in 0..500 {
        sender.publish("t", &format!("{n} {text}"), 1).await;
        assert!(alive.take().await.starts_with(&format!("{n} ")));
    }
    assert!(
        started.elapsed() < Duration::from_millis(100),
        "nobody waited"
    );
    // And it loses nothing by it.
    for n in 0..500 {
        assert!(dead.take().await.starts_with(&format!("{n} ")));
    }
    dead.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_moves_on_although_nothing_matches() {
    let server = Server::start().await;
    let mut sender = server.clean("s").await;
    sender.publish("t/other", "", 1).await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("t/mine", 1).await;
    for _ in 0..20 {
        sender.publish("t/other", "", 1).await;
    }
    sleep(Duration::from_secs(15)).await;
    sender.publish("t/other", "", 1).await;
    sleep(Duration::from_secs(15)).await;
    client.kill_server_side().await;
    let saved = server.memory.stored_session("c").expect("a session");
    let (_, position) = saved.checkpoints[0];
    assert!(position.0 >= 20, "{:?}", saved.checkpoints);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_only_move_on_are_not_all_saved_at_once() {
    const IDLE: u64 = 200;
    const SECONDS: u64 = 40;
    let server = Server::start().await;
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let (mut client, _) = server.persistent(&format!("idle{n}")).await;
        client.subscribe(&format!("t/{n}"), 1).await;
        idle.push(client);
    }
    let mut sender = server.clean("s").await;
    // The first seconds: they attach, and what they subscribed to is saved.
    let mut saves = Vec::new();
    for second in 0..20 + SECONDS {
        let before = server.memory.saves.load(Ordering::Relaxed);
        for _ in 0..10 {
            sender.publish("t/other", "x", 1).await;
            sleep(Duration::from_millis(100)).await;
        }
        if second >= 20 {
            saves.push(server.memory.saves.load(Ordering::Relaxed) - before);
        }
    }
    let (all, most) = (saves.iter().sum::<u64>(), saves.iter().max());
    assert!(
        all >= IDLE * SECONDS / 10 / 2,
        "positions move on: {saves:?}"
    );
    assert!(most <= Some(&(2 * all / SECONDS)), "{saves:?}");
}

#[tokio::test(start_paused = true)]
async fn all_move_on_to_the_end_of_a_stream_that_becomes_quiet_and_are_then_left_alone() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for n in 0..30 {
        let (mut client, _) = server.persistent(&format!("idle{n}")).await;
        client.subscribe(&format!("t/{n}"), 1).await;
        idle.push(client);
    }
    let mut sender = server.clean("s").await;
    sleep(Duration::from_secs(30)).await;
    for _ in 0..3 {
        sender.publish("t/other", "x", 1).await;
        sleep(Duration::from_secs(2)).await;
    }
    sleep(Duration::from_secs(10)).await;
    let saves = server.memory.saves.load(Ordering::Relaxed);
    let sessions = server.memory.sessions().await.expect("readable");
    let positions = sessions.iter().map(|(_, saved)| saved.checkpoints.clone());
    let positions: Vec<_> = positions.flatten().map(|(_, at)| at.0).collect();
    assert_eq!(positions, [3; 30]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.memory.saves.load(Ordering::Relaxed), saves);
}
