//! The session machine, driven by whatever packets the bytes make, with breaks and restarts in between.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{Connect, Decoder, Packet, Properties, QoS, TopicName, Version, encode};
use mqtt_session::{
    Close, Connected, FeedId, Limits, Message, MessageProperties, Offer, Position, PublishAction,
    Session, SharedMessage, check_connect,
};

const MAX_PACKET: usize = 64 * 1024;
const FEED: FeedId = FeedId {
    stream: 1,
    partition: 0,
};
const NOW: i64 = 1_000_000;

/// The bytes of one connection after the other: an error or a DISCONNECT ends one, and the next begins with what is left.
pub fn mqtt_session(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    let mut stored = None;
    for _ in 0..8 {
        let mut decoder = Decoder::server(MAX_PACKET);
        let Ok(Some(Packet::Connect(connect))) = decoder.decode(&mut buffer) else {
            return;
        };
        if check_connect(&connect).is_err() {
            continue;
        }
        let mut session = connected(*connect, stored.take());
        // The log that is read: its length is where the next message goes.
        let mut log = Vec::new();
        while let Ok(Some(packet)) = decoder.decode(&mut buffer) {
            if handle(&mut session, packet, &mut log).is_err() {
                break;
            }
            send(&mut session);
        }
        stored = end(session);
    }
}

/// A session from storage meets a client.
pub(crate) fn resume(mut session: Session) {
    session.assume_disconnected(NOW);
    let _ = (session.next_deadline(), session.checkpoints());
    session.handle_deadline(NOW);
    let mut session = connected(plain_connect(), Some(session));
    let message = Arc::new(message(QoS::ExactlyOnce).into());
    let _ = session.offer(FEED, Position(0), &message, NOW);
    send(&mut session);
    end(session);
}

fn plain_connect() -> Connect {
    Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: false,
        keep_alive: 0,
        client_id: "c".to_owned(),
        user_name: None,
        password: None,
        will: None,
        properties: Properties::default(),
    }
}

fn message(qos: QoS) -> Message {
    let topic = TopicName::new("a/b").unwrap_or_else(|error| panic!("{error}"));
    Message {
        topic,
        payload: Bytes::from_static(b"m"),
        qos,
        retain: false,
        expires_at: None,
        origin: None,
        number: None,
        properties: MessageProperties::default(),
    }
}

fn connected(connect: Connect, stored: Option<Session>) -> Session {
    let client_id = mqtt_session::ClientId::new(&connect.client_id);
    let Connected { mut session, .. } =
        Session::handle_connect(connect, client_id, stored, Vec::new(), 7, Limits::default());
    for (packet_id, _) in session.missing() {
        session.supply(
            packet_id,
            (packet_id.get() % 3 != 0).then(|| message(QoS::ExactlyOnce)),
        );
    }
    session.resend();
    session
}

fn handle(
    session: &mut Session,
    packet: Packet,
    log: &mut Vec<Arc<SharedMessage>>,
) -> Result<(), Close> {
    match packet {
        Packet::Publish(publish) => {
            let qos = publish.qos;
            match session.handle_publish(*publish, NOW)? {
                PublishAction::Store { message, packet_id } => {
                    log.push(Arc::new(message.into()));
                    session.publish_stored(qos, packet_id, Ok(()));
                }
                PublishAction::Repeat { packet_id } => {
                    session.publish_stored(qos, Some(packet_id), Ok(()))
                }
            }
        }
        Packet::PubAck(ack) => session.handle_puback(&ack),
        Packet::PubRec(ack) => session.handle_pubrec(&ack),
        Packet::PubComp(ack) => session.handle_pubcomp(&ack),
        Packet::PubRel(ack) => {
            if session.handle_pubrel(&ack) {
                session.released(ack.packet_id);
            }
        }
        Packet::Subscribe(subscribe) => {
            let identifier = subscribe
                .properties
                .subscription_identifiers
                .first()
                .copied();
            let mut codes = Vec::new();
            for entry in &subscribe.filters {
                codes.push(match session.check_subscribe(entry) {
                    Ok(()) => {
                        let feeds = vec![(FEED, Position(log.len() as u64))];
                        let subscribed = session.handle_subscribe(entry, identifier, feeds);
                        if subscribed.send_retained {
                            let _ = session.offer_retained(
                                &entry.filter,
                                &Arc::new(message(QoS::AtLeastOnce).into()),
                                NOW,
                            );
                        }
                        subscribed.reason_code
                    }
                    Err(code) => code,
                });
            }
            session.suback(subscribe.packet_id, codes);
        }
        Packet::Unsubscribe(unsubscribe) => {
            let codes = unsubscribe
                .filters
                .iter()
                .map(|filter| session.handle_unsubscribe(filter))
                .collect();
            session.unsuback(unsubscribe.packet_id, codes);
        }
        Packet::PingReq => session.handle_pingreq(),
        Packet::Disconnect(disconnect) => {
            session.handle_disconnect(&disconnect)?;
            return Err(Close::new(mqtt_codec::ReasonCode::SUCCESS, "left"));
        }
        // What only a server may send; the broker closes.
        _ => {
            return Err(Close::new(
                mqtt_codec::ReasonCode::PROTOCOL_ERROR,
                "not a client's packet",
            ));
        }
    }
    let from = session
        .feeds()
        .get(&FEED)
        .map_or(log.len() as u64, |at| at.0);
    for (at, message) in (0..).zip(log.iter()).skip(from as usize) {
        if session.offer(FEED, Position(at), message, NOW) == Offer::Full {
            break;
        }
    }
    assert!(session.in_flight_len() <= usize::from(Limits::default().max_in_flight));
    Ok(())
}

/// Everything that waits leaves, and can be read by a client.
fn send(session: &mut Session) {
    if session.wants_save() {
        let (_, mark) = session.snapshot();
        session.saved(mark);
    }
    let version = session.version();
    let mut out = BytesMut::new();
    let read = |out: &mut BytesMut, what: &dyn std::fmt::Debug| {
        let read = Decoder::with_version(version, 2 * MAX_PACKET).decode(out);
        assert!(
            matches!(read, Ok(Some(_))) && out.is_empty(),
            "{what:?} in {version:?}: {read:?}"
        );
    };
    while let Some(packet) = session.poll_reply() {
        encode(&packet, version, &mut out);
        read(&mut out, &packet);
    }
    while let Some(delivery) = session.poll_delivery(NOW) {
        delivery.encode(version, NOW, &mut out);
        read(&mut out, &delivery);
    }
}

/// The connection ends; what is saved comes back the same.
fn end(mut session: Session) -> Option<Session> {
    let ended = session.handle_connection_end(NOW);
    let client_id = session.client_id().clone();
    let (bytes, _) = session.snapshot();
    let mut again =
        Session::from_bytes(client_id, bytes.clone()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.snapshot().0, bytes);
    ended.keep.then_some(again)
}
