//! A session as bytes, versioned, for storage.

use crate::in_flight::{Awaiting, InFlight, Source};
use crate::retained::{KeptRoom, kept};
use crate::session::PendingWill;
use crate::shared::SharedSubscription;
use crate::subscriptions::Subscription;
use crate::{ClientId, FeedId, Message, Position, Session, SharedPlace};
use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use mqtt_codec::{PacketId, QoS, SubscriptionOptions, TopicFilter, TopicName};

/// 2: shared and exclusive subscriptions. 3: messages in flight that were never stored. 4: retained messages that are due, and those in flight themselves.
/// The earlier ones are read as well.
const FORMAT: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the stored session is of format {0}, which this version does not know")]
    UnknownFormat(u8),
    #[error("the stored session is damaged: {0}")]
    Damaged(&'static str),
}

impl From<TryGetError> for StateError {
    fn from(_: TryGetError) -> StateError {
        StateError::Damaged("it ends too early")
    }
}

fn put_bytes(out: &mut BytesMut, data: &[u8]) {
    out.put_u32(data.len() as u32);
    out.put_slice(data);
}

fn get_bytes(from: &mut Bytes) -> Result<Bytes, StateError> {
    let len = from.try_get_u32()? as usize;
    if len > from.len() {
        return Err(StateError::Damaged("a field is longer than the rest"));
    }
    Ok(from.split_to(len))
}

fn get_text(from: &mut Bytes) -> Result<String, StateError> {
    String::from_utf8(get_bytes(from)?.to_vec())
        .map_err(|_| StateError::Damaged("text is not UTF-8"))
}

fn put_place(out: &mut BytesMut, feed: FeedId, position: Position) {
    out.put_u64(feed.stream);
    out.put_u32(feed.partition);
    out.put_u64(position.0);
}

fn get_place(from: &mut Bytes) -> Result<(FeedId, Position), StateError> {
    let feed = FeedId {
        stream: from.try_get_u64()?,
        partition: from.try_get_u32()?,
    };
    Ok((feed, Position(from.try_get_u64()?)))
}

fn put_shared_place(out: &mut BytesMut, place: &SharedPlace) {
    put_bytes(out, place.share.as_str().as_bytes());
    put_place(out, place.feed, place.at);
}

fn get_shared_place(from: &mut Bytes) -> Result<SharedPlace, StateError> {
    let share = get_filter(from)?;
    let (feed, at) = get_place(from)?;
    Ok(SharedPlace { share, feed, at })
}

fn get_filter(from: &mut Bytes) -> Result<TopicFilter, StateError> {
    TopicFilter::new(&get_text(from)?)
        .map_err(|_| StateError::Damaged("a topic filter is not valid"))
}

fn get_topic(text: &str) -> Result<TopicName, StateError> {
    TopicName::new(text).map_err(|_| StateError::Damaged("a topic"))
}

fn get_options(from: &mut Bytes) -> Result<SubscriptionOptions, StateError> {
    SubscriptionOptions::from_u8(from.try_get_u8()?)
        .map_err(|_| StateError::Damaged("subscription options"))
}

/// 0, where it may stand, is none (section 3.8.2.1.2).
fn get_identifier(from: &mut Bytes) -> Result<u32, StateError> {
    match from.try_get_u32()? {
        identifier if identifier as usize > mqtt_codec::limits::MAX_REMAINING_LENGTH => {
            Err(StateError::Damaged("a subscription identifier"))
        }
        identifier => Ok(identifier),
    }
}

fn get_packet_id(from: &mut Bytes) -> Result<PacketId, StateError> {
    PacketId::new(from.try_get_u16()?).ok_or(StateError::Damaged("packet id 0"))
}

impl Session {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_u8(FORMAT);
        out.put_u64(self.tag);
        out.put_u64(self.epoch);
        out.put_u32(self.expiry_interval);
        out.put_i64(self.disconnected_at.unwrap_or(i64::MIN));
        out.put_u16(self.in_flight.last_packet_id().get());
        out.put_u32(self.subscriptions.len() as u32);
        for (filter, subscription) in self.subscriptions.iter() {
            put_bytes(&mut out, filter.as_str().as_bytes());
            out.put_u8(subscription.options.to_u8());
            out.put_u32(subscription.identifier.unwrap_or(0));
            out.put_u32(subscription.starts.len() as u32);
            for (feed, position) in &subscription.starts {
                put_place(&mut out, *feed, *position);
            }
        }
        out.put_u32(self.feeds.len() as u32);
        for (feed, position) in &self.feeds {
            put_place(&mut out, *feed, *position);
        }
        out.put_u32(self.in_flight.entries.len() as u32);
        let mut room = KeptRoom::default();
        for entry in &self.in_flight.entries {
            out.put_u16(entry.packet_id.get());
            out.put_u8(entry.awaiting as u8);
            out.put_u8(entry.qos as u8);
            out.put_u8(u8::from(entry.retain));
            out.put_u32(entry.identifiers.len() as u32);
            for identifier in &entry.identifiers {
                out.put_u32(*identifier);
            }
            match &entry.source {
                Source::Feed(feed, position) => {
                    out.put_u8(0);
                    put_place(&mut out, *feed, *position);
                }
                Source::Retained(topic) => {
                    out.put_u8(1);
                    put_bytes(&mut out, topic.as_str().as_bytes());
                    put_bytes(&mut out, &room.take(entry));
                }
                Source::Shared(place) => {
                    out.put_u8(2);
                    put_shared_place(&mut out, place);
                }
                Source::Nowhere(_) => out.put_u8(3),
            }
        }
        match &self.will {
            None => out.put_u8(0),
            Some(will) => {
                out.put_u8(if will.message_expiry.is_some() { 2 } else { 1 });
                out.put_u32(will.message_expiry.unwrap_or(0));
                out.put_u32(will.delay);
                put_bytes(&mut out, &will.message.to_bytes());
            }
        }
        out.put_u32(self.shared.len() as u32);
        for (share, subscription) in &self.shared {
            put_bytes(&mut out, share.as_str().as_bytes());
            out.put_u8(subscription.options.to_u8());
            out.put_u32(subscription.identifier.unwrap_or(0));
        }
        out.put_u32(self.settling.len() as u32);
        for settling in &self.settling {
            put_shared_place(&mut out, &settling.place);
        }
        out.put_u32(self.exclusive.len() as u32);
        for filter in &self.exclusive {
            put_bytes(&mut out, filter.as_str().as_bytes());
        }
        out.put_u32(self.due.len() as u32);
        for (filter, given) in self.due.iter() {
            put_bytes(&mut out, filter.as_str().as_bytes());
            put_bytes(&mut out, given.map_or("", TopicName::as_str).as_bytes());
        }
        out.freeze()
    }

    /// Reads what `snapshot` gave.
    pub fn from_bytes(client_id: ClientId, mut from: Bytes) -> Result<Session, StateError> {
        let from = &mut from;
        let format = from.try_get_u8()?;
        if !(1..=FORMAT).contains(&format) {
            return Err(StateError::UnknownFormat(format));
        }
        let tag = from.try_get_u64()?;
        let epoch = from.try_get_u64()?;
        let mut session = Session::new(client_id, tag, epoch);
        session.expiry_interval = from.try_get_u32()?;
        session.disconnected_at = Some(from.try_get_i64()?).filter(|at| *at != i64::MIN);
        session.in_flight = crate::in_flight::InFlights::new(get_packet_id(from)?);
        for _ in 0..from.try_get_u32()? {
            let filter = get_filter(from)?;
            let options = get_options(from)?;
            let identifier = Some(get_identifier(from)?).filter(|value| *value != 0);
            let mut starts = Vec::new();
            for _ in 0..from.try_get_u32()? {
                starts.push(get_place(from)?);
            }
            session.subscriptions.insert(
                filter,
                Subscription {
                    options,
                    identifier,
                    starts,
                },
            );
        }
        for _ in 0..from.try_get_u32()? {
            let (feed, position) = get_place(from)?;
            session.feeds.insert(feed, position);
        }
        for _ in 0..from.try_get_u32()? {
            let entry = get_in_flight(from, format)?;
            // Packet ids are given out until one is free: there must be a free one.
            if session.in_flight.entries.len() >= usize::from(u16::MAX) - 1 {
                return Err(StateError::Damaged("too many messages in flight"));
            }
            session.in_flight.entries.push_back(entry);
        }
        let kind = from.try_get_u8()?;
        if kind != 0 {
            let expiry = from.try_get_u32()?;
            let delay = from.try_get_u32()?;
            let message =
                Message::from_bytes(get_bytes(from)?).ok_or(StateError::Damaged("the will"))?;
            let message_expiry = (kind == 2).then_some(expiry);
            session.will = Some(Box::new(PendingWill {
                message,
                message_expiry,
                delay,
            }));
        }
        if format >= 2 {
            session.get_shared(from)?;
        }
        if format >= 4 {
            session.get_due(from)?;
        }
        Ok(session)
    }
}

impl Session {
    fn get_shared(&mut self, from: &mut Bytes) -> Result<(), StateError> {
        for _ in 0..from.try_get_u32()? {
            let share = get_filter(from)?;
            if share.share().is_none() {
                return Err(StateError::Damaged("a shared subscription"));
            }
            let options = get_options(from)?;
            let identifier = Some(get_identifier(from)?).filter(|value| *value != 0);
            let subscription = SharedSubscription {
                options,
                identifier,
            };
            self.shared.insert(share, subscription);
        }
        for _ in 0..from.try_get_u32()? {
            let place = get_shared_place(from)?;
            self.settle(place, false);
        }
        for _ in 0..from.try_get_u32()? {
            self.exclusive.insert(get_filter(from)?);
        }
        Ok(())
    }

    fn get_due(&mut self, from: &mut Bytes) -> Result<(), StateError> {
        for _ in 0..from.try_get_u32()? {
            let filter = get_filter(from)?;
            let given = get_text(from)?;
            let given = (!given.is_empty()).then(|| get_topic(&given)).transpose()?;
            if self.subscriptions.get(&filter).is_none() {
                return Err(StateError::Damaged("retained messages of no subscription"));
            }
            self.due.put(filter, given);
        }
        Ok(())
    }
}

fn get_in_flight(from: &mut Bytes, format: u8) -> Result<InFlight, StateError> {
    let packet_id = get_packet_id(from)?;
    let awaiting = match from.try_get_u8()? {
        1 => Awaiting::PubAck,
        2 => Awaiting::PubRec,
        3 => Awaiting::PubComp,
        _ => return Err(StateError::Damaged("the state of a message in flight")),
    };
    let qos = match (QoS::from_u8(from.try_get_u8()?), awaiting) {
        (Some(QoS::AtLeastOnce), Awaiting::PubAck) => QoS::AtLeastOnce,
        (Some(QoS::ExactlyOnce), Awaiting::PubRec | Awaiting::PubComp) => QoS::ExactlyOnce,
        _ => return Err(StateError::Damaged("the QoS of a message in flight")),
    };
    let retain = from.try_get_u8()? != 0;
    let mut identifiers = Vec::new();
    for _ in 0..from.try_get_u32()? {
        match get_identifier(from)? {
            0 => return Err(StateError::Damaged("a subscription identifier")),
            identifier => identifiers.push(identifier),
        }
    }
    let mut message = None;
    let source = match from.try_get_u8()? {
        0 => {
            let (feed, position) = get_place(from)?;
            Source::Feed(feed, position)
        }
        1 => {
            let topic = get_topic(&get_text(from)?)?;
            if format >= 4 {
                message = kept(get_bytes(from)?)?;
            }
            Source::Retained(topic)
        }
        2 => Source::Shared(get_shared_place(from)?),
        3 => Source::Nowhere(None),
        _ => return Err(StateError::Damaged("the source of a message in flight")),
    };
    Ok(InFlight {
        packet_id,
        awaiting,
        qos,
        retain,
        identifiers,
        source,
        message,
        sent: false,
    })
}
