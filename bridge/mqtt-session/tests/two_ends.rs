//! The session against a model of a client, under random loss: connections break anywhere, the server is killed and comes
//! back with what was saved. QoS 1 arrives at least once and in order, QoS 2 exactly once and in order.

use bytes::{Bytes, BytesMut};
use mqtt_codec::*;
use mqtt_session::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const FEED: FeedId = FeedId {
    stream: 1,
    partition: 0,
};

fn message(topic: &str, n: usize) -> Arc<SharedMessage> {
    let message = Message {
        topic: TopicName::new(topic).expect("a topic"),
        payload: Bytes::from(n.to_string()),
        qos: QoS::ExactlyOnce,
        retain: false,
        expires_at: None,
        origin: None,
        number: None,
        properties: MessageProperties::default(),
    };
    Arc::new(message.into())
}

fn log(count: usize) -> Vec<Arc<SharedMessage>> {
    (0..count).map(|n| message("t", n)).collect()
}

/// Each of a topic of its own, in the order of the topics.
fn retained(count: usize) -> Vec<Arc<SharedMessage>> {
    (0..count)
        .map(|n| message(&format!("r/{n:02}"), n))
        .collect()
}

/// What the client reads of a delivery.
fn packet(delivery: Delivery) -> Packet {
    let mut bytes = BytesMut::new();
    delivery.encode(Version::V311, 0, &mut bytes);
    let packet = Decoder::with_version(Version::V311, usize::MAX).decode(&mut bytes);
    packet.expect("a valid packet").expect("a whole packet")
}

fn connect() -> Connect {
    Connect {
        version: Version::V311,
        is_bridge: false,
        clean_start: false,
        keep_alive: 0,
        client_id: "c".into(),
        will: None,
        user_name: None,
        password: None,
        properties: Properties::default(),
    }
}

/// What the client keeps over its connections (section 4.1).
#[derive(Default)]
struct Client {
    received: Vec<usize>,
    unreleased: BTreeSet<PacketId>,
}

impl Client {
    fn handle(&mut self, packet: Packet) -> Option<Packet> {
        match packet {
            Packet::Publish(publish) => {
                let number = std::str::from_utf8(&publish.payload).ok()?.parse().ok()?;
                let packet_id = publish.packet_id?;
                if publish.qos == QoS::AtLeastOnce {
                    self.received.push(number);
                    return Some(Packet::PubAck(Ack::success(packet_id)));
                }
                if self.unreleased.insert(packet_id) {
                    self.received.push(number);
                }
                Some(Packet::PubRec(Ack::success(packet_id)))
            }
            Packet::PubRel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                Some(Packet::PubComp(ack))
            }
            _ => None,
        }
    }
}

struct Server {
    session: Session,
    saved: Bytes,
}

impl Server {
    fn connected(stored: Option<Bytes>, log: &[Arc<SharedMessage>], qos: QoS) -> Server {
        let id = ClientId::new("c");
        let stored =
            stored.map(|bytes| Session::from_bytes(id.clone(), bytes).expect("what was saved"));
        let had = stored.is_some();
        let limits = Limits {
            // Less than is in flight: not all of it is sent again at once.
            max_in_flight: if had { 2 } else { 5 },
            ..Limits::default()
        };
        let mut session = Session::handle_connect(connect(), id, stored, vec![], 1, limits).session;
        if !had {
            let filter = TopicFilter::new("#").expect("a filter");
            let options = SubscriptionOptions {
                qos,
                ..Default::default()
            };
            session.handle_subscribe(
                &SubscribeFilter { filter, options },
                None,
                vec![(FEED, Position(0))],
            );
        }
        for (packet_id, source) in session.missing() {
            let Source::Feed(_, at) = source else {
                panic!("not from the feed")
            };
            session.supply(packet_id, Some(Message::clone(&log[at.0 as usize])));
        }
        let mut server = Server {
            session,
            saved: Bytes::new(),
        };
        server.save();
        server.session.resend();
        server
    }

    fn save(&mut self) {
        let (bytes, mark) = self.session.snapshot();
        self.saved = bytes;
        self.session.saved(mark);
    }

    fn offer(&mut self, log: &[Arc<SharedMessage>]) {
        loop {
            let at = self.session.feeds()[&FEED];
            let Some(message) = log.get(at.0 as usize) else {
                break;
            };
            if self.session.offer(FEED, at, message, 0) == Offer::Full {
                break;
            }
        }
    }

    /// As a host does it: those of the oldest subscription that is to get them, behind what it has had.
    fn offer_retained(&mut self, retained: &[Arc<SharedMessage>]) {
        let due = self.session.retained_due().next();
        let Some((filter, given)) = due.map(|(filter, given)| (filter.clone(), given.cloned()))
        else {
            return;
        };
        let is_left =
            |message: &&Arc<SharedMessage>| given.as_ref().is_none_or(|at| message.topic > *at);
        for message in retained.iter().filter(is_left) {
            if self.session.offer_retained(&filter, message, 0) == Offer::Full {
                return;
            }
        }
        self.session.retained_given(&filter);
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::PubAck(ack) => self.session.handle_puback(&ack),
            Packet::PubRec(ack) => self.session.handle_pubrec(&ack),
            Packet::PubComp(ack) => self.session.handle_pubcomp(&ack),
            other => panic!("{other:?}"),
        }
    }
}

/// What the client has received in the end. Each action: 0-5 one packet goes over, 6 a checkpoint, 7 the connection breaks (saved), 8 the server is killed
/// (not saved), 9 a packet is lost with the connection.
fn received(
    actions: Vec<u8>,
    qos: QoS,
    log: &[Arc<SharedMessage>],
    offer: impl Fn(&mut Server),
) -> Vec<usize> {
    let mut client = Client::default();
    let mut server = Server::connected(None, log, qos);
    let finish = std::iter::repeat_n(0u8, 2000);
    for action in actions.into_iter().chain(finish) {
        offer(&mut server);
        if server.session.wants_save() {
            server.save();
        }
        match action {
            6 => server.save(),
            7 => {
                server.session.handle_connection_end(0);
                server.save();
                server = Server::connected(Some(server.saved), log, qos);
            }
            8 => server = Server::connected(Some(server.saved), log, qos),
            9 => {
                if let Some(delivery) = server.session.poll_delivery(0) {
                    client.handle(packet(delivery)); // its answer does not arrive
                }
                server = Server::connected(Some(server.saved), log, qos);
            }
            _ => {
                let delivery = server.session.poll_delivery(0);
                if let Some(answer) = delivery.and_then(|delivery| client.handle(packet(delivery)))
                {
                    server.handle(answer);
                }
            }
        }
    }
    if qos == QoS::ExactlyOnce {
        return client.received;
    }
    // In order apart from repetitions: every first arrival comes after those before it.
    let mut firsts = Vec::new();
    for number in client.received {
        if !firsts.contains(&number) {
            firsts.push(number);
        }
    }
    firsts
}

fn qos(exactly: bool) -> QoS {
    match exactly {
        true => QoS::ExactlyOnce,
        false => QoS::AtLeastOnce,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_is_lost_and_qos_2_not_repeated(actions in prop::collection::vec(0..10u8, 0..200), exactly in any::<bool>()) {
        let log = log(40);
        let received = received(actions, qos(exactly), &log, |server| server.offer(&log));
        prop_assert_eq!(received, (0..40).collect::<Vec<_>>());
    }

    /// They are nowhere but in the snapshot when they are to be sent again: `connected` finds nothing else.
    #[test]
    fn no_retained_message_is_lost_and_qos_2_not_repeated(actions in prop::collection::vec(0..10u8, 0..200), exactly in any::<bool>()) {
        let retained = retained(40);
        let received = received(actions, qos(exactly), &[], |server| server.offer_retained(&retained));
        prop_assert_eq!(received, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_state_is_an_error_and_never_a_panic(cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let log = log(10);
        let mut server = Server::connected(None, &log, QoS::ExactlyOnce);
        server.offer_retained(&retained(3));
        server.offer(&log);
        server.save();
        let mut bytes = server.saved.to_vec();
        let short = Bytes::copy_from_slice(&bytes[..cut.index(bytes.len())]);
        prop_assert!(Session::from_bytes(ClientId::new("c"), short).is_err());
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let _ = Session::from_bytes(ClientId::new("c"), Bytes::from(bytes));
    }
}

#[test]
fn an_unknown_format_is_said_to_be_one() {
    let result = Session::from_bytes(ClientId::new("c"), Bytes::from_static(&[9, 0]));
    assert_eq!(result.err(), Some(StateError::UnknownFormat(9)));
}

#[test]
fn packet_ids_in_use_are_not_given_again() {
    let log = log(200_000);
    let mut server = Server::connected(None, &log, QoS::AtLeastOnce);
    let mut stuck = None;
    let mut sent = 0;
    loop {
        server.offer(&log);
        let Some(Packet::Publish(publish)) = server.session.poll_delivery(0).map(packet) else {
            break;
        };
        sent += 1;
        let packet_id = publish.packet_id.expect("an id");
        match stuck {
            None => stuck = Some(packet_id), // never acknowledged
            Some(first) => {
                assert_ne!(packet_id, first);
                server.session.handle_puback(&Ack::success(packet_id));
            }
        }
    }
    assert_eq!(sent, 200_000);
}

/// Of a version before retained messages that are due were a part of it.
#[test]
fn a_session_of_format_3_is_read() {
    let hex = [
        "0300000000000000010000000000000001ffffffff800000000000000000020000000200000003612f2b020000000700000000000000017802000000",
        "070000000000000001000000000000000100000000000000000000000600000002000101010100000001000000070100000003612f31000202020000",
        "000001000000070000000000000000010000000000000000000000050100000000000000000000000e0100330a000177000100676f6e650000000100",
        "00000a2473686172652f672f73020000000700000000000000010000000178",
    ];
    let hex = hex.concat();
    let digits = hex.as_bytes().chunks(2);
    let bytes = digits.map(|two| u8::from_str_radix(&String::from_utf8_lossy(two), 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("bytes");
    assert_eq!(bytes[0], 3);
    let read = |bytes| Session::from_bytes(ClientId::new("c"), bytes).expect("a session");
    let mut old = read(Bytes::from(bytes));
    let retained = Source::Retained(TopicName::new("a/1").expect("a topic"));
    let missing: Vec<Source> = old
        .missing()
        .into_iter()
        .map(|(_, source)| source)
        .collect();
    assert_eq!(missing, [retained, Source::Feed(FEED, Position(5))]);
    assert_eq!(old.retained_due().next(), None);
    let filters = |session: &Session| {
        let all = session.subscriptions().iter();
        all.map(|(filter, _)| filter.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(filters(&old), ["a/+", "x"]);
    assert!(old.has_will() && old.exclusive().count() == 1 && old.shared().count() == 1);
    // And written as it is now.
    let (bytes, _) = old.snapshot();
    let new = read(bytes);
    assert_eq!(new.missing(), old.missing());
    assert_eq!(filters(&new), filters(&old));
}
