//! Shared groups over restarts of a host that writes where they are (`MemoryShares`).

use crate::client::*;
use crate::live::{Random, seed};
use crate::memory::Memory;
use crate::shared::staying;
use mqtt_broker::Limits;
use mqtt_codec::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

async fn server(memory: &Arc<Memory>) -> Server {
    Server::over(memory.clone(), Limits::default()).await
}

/// As if the process had been killed: nothing is written any more.
async fn kill(server: Server, clients: Vec<Client>) -> Arc<Memory> {
    for client in clients {
        client.kill_server_side().await;
    }
    server.shutdown.cancel();
    server.memory.forget_shares();
    server.memory
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_on_where_it_was_and_has_what_came_while_its_members_were_away() {
    let server = server(&Arc::new(Memory::new())).await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    for n in 0..4 {
        sender.publish("t", &n.to_string(), 1).await;
    }
    assert_eq!(member.take().await, "0");
    assert_eq!(member.take().await, "1");
    member.receive_publish().await;
    member.disconnect().await;
    for n in 4..6 {
        sender.publish("t", &n.to_string(), 1).await;
    }
    let memory = kill(server, vec![sender]).await;
    let server = self::server(&memory).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "6", 1).await;
    let mut other = server.clean("other").await;
    other.subscribe("$share/g/t", 1).await;
    let mut of_other = Vec::new();
    for _ in 0..3 {
        of_other.push(other.take().await);
    }
    assert_eq!(of_other, ["4", "5", "6"]);
    other.nothing().await;
    let (mut member, connack) = server.connect(staying("m")).await;
    assert!(connack.session_present);
    let mut of_member = Vec::new();
    for _ in 0..2 {
        let again = member.receive_publish().await;
        assert!(again.dup, "sent before");
        of_member.push(again.payload);
    }
    assert_eq!(of_member, ["2", "3"]);
    member.nothing().await;
}

/// Of a group with a stored session, also what others had.
#[tokio::test(start_paused = true)]
async fn what_a_member_had_that_went_with_the_process_goes_to_the_others() {
    let server = server(&Arc::new(Memory::new())).await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    member.disconnect().await;
    let mut passing = server.clean("passing").await;
    passing.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    for n in 0..4 {
        sender.publish("t", &n.to_string(), 1).await;
    }
    assert_eq!(passing.take().await, "0");
    passing.receive_publish().await;
    assert_eq!(passing.take().await, "2");
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.memory.write_shares(None);
    let mut memory = kill(server, vec![passing, sender]).await;
    for _ in 0..2 {
        // Written while nobody has taken what came back.
        let server = self::server(&memory).await;
        memory.write_shares(None);
        assert_eq!(memory.stored_groups(), 1, "its member is away");
        memory = kill(server, Vec::new()).await;
    }
    let server = self::server(&memory).await;
    let (mut member, _) = server.connect(staying("m")).await;
    for n in [1, 3] {
        assert_eq!(member.take().await, n.to_string());
    }
    member.nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_is_written_as_long_as_a_stored_session_is_its_member() {
    let server = server(&Arc::new(Memory::new())).await;
    let mut passing = server.clean("passing").await;
    passing.subscribe("$share/g/t", 1).await;
    server.memory.write_shares(None);
    assert_eq!(server.memory.stored_groups(), 0, "no stored session");
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    assert_eq!(server.memory.stored_groups(), 1, "before SUBACK");
    member.disconnect().await;
    // A clean start ends the session.
    server.clean("m").await.disconnect().await;
    server.memory.write_shares(None);
    assert_eq!(server.memory.stored_groups(), 0);
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    member.disconnect().await;
    passing.disconnect().await;
    assert_eq!(server.memory.stored_groups(), 1);
    tokio::time::sleep(Duration::from_secs(3700)).await;
    assert_eq!(server.memory.stored_groups(), 0, "it has expired");
}

/// That it was sent, only the session knew.
#[tokio::test(start_paused = true)]
async fn qos_2_of_a_session_that_ended_goes_to_nobody_else_after_a_crash_4_8_2_5() {
    let server = server(&Arc::new(Memory::new())).await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 2).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "sent", 2).await;
    member.receive_publish().await;
    let (mut other, _) = server.connect(staying("other")).await;
    other.subscribe("$share/g/t", 2).await;
    member.vanish().await;
    let member = server.clean("m").await;
    let memory = kill(server, vec![member, other, sender]).await;
    let server = self::server(&memory).await;
    let (mut other, connack) = server.connect(staying("other")).await;
    assert!(connack.session_present);
    other.nothing().await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "next", 2).await;
    assert_eq!(other.take().await, "next");
}

/// No session says that it was sent.
#[tokio::test(start_paused = true)]
async fn qos_2_of_a_member_that_went_with_the_process_goes_to_nobody_else_4_8_2_5() {
    let server = server(&Arc::new(Memory::new())).await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 2).await;
    member.disconnect().await;
    let mut passing = server.clean("passing").await;
    passing.subscribe("$share/g/t", 2).await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "released", 2).await;
    assert_eq!(passing.take().await, "released");
    for n in 0..3 {
        sender.publish("t", &n.to_string(), 2).await;
        assert_eq!(passing.receive_publish().await.payload, n.to_string());
    }
    let memory = kill(server, vec![passing, sender]).await;
    let server = self::server(&memory).await;
    let (mut member, connack) = server.connect(staying("m")).await;
    assert!(connack.session_present);
    member.nothing().await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "next", 2).await;
    assert_eq!(member.take().await, "next");
}

#[tokio::test(start_paused = true)]
async fn what_a_session_has_of_a_group_that_it_has_left_goes_to_nobody_else() {
    for qos in [1, 2] {
        let server = server(&Arc::new(Memory::new())).await;
        // Found first after the restart, when the group has no member yet.
        let (mut leaver, _) = server.connect(staying("a")).await;
        leaver.subscribe("$share/g/t", qos).await;
        let (mut member, _) = server.connect(staying("m")).await;
        member.subscribe("$share/g/t", qos).await;
        member.disconnect().await;
        let mut sender = server.clean("s").await;
        for n in 0..3 {
            sender.publish("t", &n.to_string(), qos).await;
            leaver.receive_publish().await;
        }
        leaver.unsubscribe("$share/g/t").await;
        let memory = kill(server, vec![leaver, sender]).await;
        let server = self::server(&memory).await;
        let (mut member, connack) = server.connect(staying("m")).await;
        assert!(connack.session_present);
        member.nothing().await;
        let (mut leaver, connack) = server.connect(staying("a")).await;
        assert!(connack.session_present);
        for n in 0..3 {
            let again = leaver.receive_publish().await;
            assert!(again.dup && again.payload == n.to_string(), "{again:?}");
        }
        let mut sender = server.clean("s").await;
        sender.publish("t", "next", qos).await;
        assert_eq!(member.take().await, "next");
        leaver.nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_ended_begins_anew_also_after_a_restart() {
    let server = server(&Arc::new(Memory::new())).await;
    let (mut member, _) = server.connect(staying("m")).await;
    member.subscribe("$share/g/t", 1).await;
    let mut sender = server.clean("s").await;
    member.unsubscribe("$share/g/t").await;
    sender.publish("t", "nobody", 1).await;
    let memory = kill(server, vec![member, sender]).await;
    let server = self::server(&memory).await;
    let (mut member, connack) = server.connect(staying("m")).await;
    assert!(connack.session_present);
    member.subscribe("$share/g/t", 1).await;
    member.nothing().await;
    let mut sender = server.clean("s").await;
    sender.publish("t", "x", 1).await;
    assert_eq!(member.take().await, "x");
}

/// A client, and what it knows: that survives everything.
#[derive(Default)]
struct Knows {
    /// QoS 2 that is not released.
    ids: BTreeSet<PacketId>,
}

#[derive(Default)]
struct Got {
    /// By payload.
    times: BTreeMap<String, usize>,
    /// Acknowledged, and where the group was is written: comes no more.
    done: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
}

/// Takes what comes within a moment, and answers to so many of ten.
async fn take(
    client: &mut Client,
    knows: &mut Knows,
    got: &mut Got,
    random: &mut Random,
    of_ten: u64,
) {
    loop {
        let next = tokio::time::timeout(Duration::from_millis(20), client.receive()).await;
        let Ok(Some(packet)) = next else {
            return;
        };
        let answers = random.below(10) < of_ten;
        match packet {
            Packet::Publish(publish) => {
                let text = String::from_utf8_lossy(&publish.payload).into_owned();
                let packet_id = publish.packet_id.expect("a QoS above 0");
                let ack = Ack::success(packet_id);
                let is_new = publish.qos == QoS::AtLeastOnce || knows.ids.insert(packet_id);
                if is_new {
                    assert!(!got.done.contains(&text), "{text} comes again");
                    *got.times.entry(text.clone()).or_default() += 1;
                }
                if answers && publish.qos == QoS::AtLeastOnce {
                    got.acknowledged.insert(text);
                    client.send(Packet::PubAck(ack)).await;
                } else if answers {
                    client.send(Packet::PubRec(ack)).await;
                }
            }
            Packet::PubRel(ack) => {
                knows.ids.remove(&ack.packet_id);
                if answers {
                    client
                        .send(Packet::PubComp(Ack::success(ack.packet_id)))
                        .await;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// So that what is read for a group waits for its members.
fn narrow(mut connect: Connect) -> Connect {
    connect.properties.receive_maximum = Some(3);
    connect
}

/// Two persistent members and, of the group of QoS 1, one that goes with the process; messages, acknowledgements and deaths as they come. `of_both`: the
/// group of QoS 2 has one as well, and what that is sent before it dies goes with it.
async fn lives(seed: u64, of_both: bool) {
    let mut random = Random(seed);
    let mut memory = Arc::new(Memory::new());
    let (mut one, mut two) = (Got::default(), Got::default());
    let mut knows: [Knows; 4] = Default::default();
    let mut published = 0;
    for life in 0..6 {
        let is_last = life == 5;
        // What was sent to the last process, that may not have seen it.
        one.acknowledged.clear();
        let server = server(&memory).await;
        let mut members = Vec::new();
        for n in 0..4 {
            let (mut member, connack) = server.connect(narrow(staying(&format!("m{n}")))).await;
            assert_eq!(connack.session_present, life > 0);
            let (filter, qos) = if n < 2 {
                ("$share/g/one", 1)
            } else {
                ("$share/h/two", 2)
            };
            if life == 0 {
                member.subscribe(filter, qos).await;
            }
            members.push(Some(member));
        }
        let (mut passing, _) = server.connect(narrow(v5("passing"))).await;
        passing.subscribe("$share/g/one", 1).await;
        let mut passing_two = None;
        if of_both && !is_last {
            let (mut member, _) = server.connect(narrow(v5("passing two"))).await;
            member.subscribe("$share/h/two", 2).await;
            passing_two = Some((member, Knows::default()));
        }
        let mut sender = server.clean("s").await;
        for _ in 0..30 {
            let n = random.below(4) as usize;
            let of_ten = if is_last { 10 } else { 7 };
            match random.below(8) {
                0..=2 if !is_last => {
                    for _ in 0..random.below(16) {
                        let text = published.to_string();
                        published += 1;
                        sender.publish("one", &text, 1).await;
                        sender.publish("two", &text, 2).await;
                    }
                }
                3 | 4 => {
                    if let Some(member) = &mut members[n] {
                        let got = if n < 2 { &mut one } else { &mut two };
                        take(member, &mut knows[n], got, &mut random, of_ten).await;
                    }
                }
                5 => {
                    let mut nothing = Knows::default();
                    take(&mut passing, &mut nothing, &mut one, &mut random, of_ten).await;
                    if let Some((member, knows)) = &mut passing_two {
                        take(member, knows, &mut two, &mut random, of_ten).await;
                    }
                }
                6 => match members[n].take() {
                    Some(member) => member.vanish().await,
                    None => {
                        let again = server.connect(narrow(staying(&format!("m{n}")))).await;
                        assert!(again.1.session_present);
                        members[n] = Some(again.0);
                    }
                },
                7 => {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    memory.write_shares(None);
                    one.done.append(&mut one.acknowledged);
                }
                _ => {}
            }
        }
        if is_last {
            // What is held back by a member that is full comes in the next round.
            for n in [0, 1, 2, 3].repeat(4) {
                if members[n].is_none() {
                    let again = server.connect(narrow(staying(&format!("m{n}")))).await;
                    members[n] = Some(again.0);
                }
                let got = if n < 2 { &mut one } else { &mut two };
                let member = members[n].as_mut().expect("connected");
                take(member, &mut knows[n], got, &mut random, 10).await;
                // What it did not answer to before is sent again.
                members[n].take().expect("connected").vanish().await;
                let mut nothing = Knows::default();
                take(&mut passing, &mut nothing, &mut one, &mut random, 10).await;
            }
            passing.vanish().await;
            let (mut member, _) = server.connect(narrow(staying("m0"))).await;
            take(&mut member, &mut knows[0], &mut one, &mut random, 10).await;
            break;
        }
        let mut clients: Vec<Client> = members.into_iter().flatten().collect();
        clients.extend([passing, sender]);
        clients.extend(passing_two.map(|(member, _)| member));
        if random.below(3) == 0 {
            // In order: everything is settled and written.
            for client in clients {
                client.vanish().await;
            }
            memory.write_shares(None);
            memory = kill(server, Vec::new()).await;
        } else {
            memory = kill(server, clients).await;
        }
    }
    for n in 0..published {
        let text = n.to_string();
        assert!(one.times.contains_key(&text), "{text} of QoS 1 is lost");
        let times = two.times.get(&text).copied().unwrap_or(0);
        assert!(
            times == 1 || times == 0 && of_both,
            "{text} of QoS 2: {times}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_and_no_qos_2_repeated_whenever_the_process_dies() {
    let first = seed();
    for round in 0..60 {
        let seed = first.wrapping_add(round);
        println!("seed {seed}");
        lives(seed, round % 2 == 1).await;
    }
}
