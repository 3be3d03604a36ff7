//! Packets from the client, each to its handler in the session and, where needed, to the backend.

use crate::backend::{
    Backend, Message, Publish, PublishError, SharedMessage, StorageError, by_clock,
};
use crate::connection::{Connection, End};
use crate::early::Ticket;
use crate::limits;
use crate::mailbox::Batch;
use crate::metrics::Metrics;
use crate::packets::{Request, Taken};
use crate::passing::Passing;
use crate::unstored::Route;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mqtt_codec::{Packet, PacketId, QoS, ReasonCode, TopicName, Version};
use mqtt_session::{Close, PublishAction};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// What came back from the backend.
pub(crate) enum Done {
    Stored {
        qos: QoS,
        packet_id: Option<PacketId>,
        /// What of the limits it took: nothing, where it was not with the backend.
        bytes: usize,
        messages: usize,
        result: Result<(), PublishError>,
    },
    Together {
        answers: Vec<Answer>,
        bytes: usize,
        results: Vec<Result<(), PublishError>>,
    },
    /// A QoS 2 message that had been stored before: only its place in the order of answers was kept.
    Repeated { packet_id: PacketId },
    Released {
        packet_ids: Vec<PacketId>,
        result: Result<(), StorageError>,
    },
}

/// How a message is answered.
pub(crate) struct Answer {
    qos: QoS,
    packet_id: Option<PacketId>,
}

impl Answer {
    fn exactly_once(&self) -> Option<PacketId> {
        self.packet_id.filter(|_| self.qos == QoS::ExactlyOnce)
    }
}

/// A message that goes to the backend by itself.
pub(crate) struct Alone {
    message: Message,
    answer: Answer,
    delay_ms: Option<i64>,
}

/// What was read together and goes to the backend together.
#[derive(Default)]
pub(crate) struct Gathered {
    /// With the packet ids of those of QoS 2.
    publishes: Vec<(Publish, Option<PacketId>)>,
    answers: Vec<Answer>,
    bytes: usize,
    /// Of PUBREL.
    releases: Vec<PacketId>,
}

/// What waits is kept over a restart, and of this topic nothing may be kept.
fn never_later() -> PublishError {
    PublishError::TopicNameInvalid("messages on this topic are not stored: no delay".to_owned())
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    pub(crate) fn handle(&mut self, packet: Packet, now_ms: i64) -> Result<Taken, End> {
        match packet {
            Packet::Publish(publish) => return self.publish(*publish, now_ms),
            Packet::PubAck(ack) => self.session.handle_puback(&ack),
            Packet::PubRec(ack) => self.session.handle_pubrec(&ack),
            Packet::PubComp(ack) => self.session.handle_pubcomp(&ack),
            Packet::PubRel(ack) => {
                if self.session.handle_pubrel(&ack) {
                    self.release(ack.packet_id);
                }
            }
            Packet::Subscribe(packet) => {
                return Ok(Taken::Request(Request::Subscribe(packet).into()));
            }
            Packet::Unsubscribe(packet) => {
                return Ok(Taken::Request(Request::Unsubscribe(packet).into()));
            }
            Packet::Auth(packet) => return Ok(Taken::Request(Request::Auth(packet).into())),
            Packet::PingReq => self.session.handle_pingreq(),
            Packet::Disconnect(disconnect) => {
                self.session.handle_disconnect(&disconnect)?;
                return Ok(Taken::Disconnect);
            }
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => {
                return Err(Close::new(
                    ReasonCode::PROTOCOL_ERROR,
                    "a packet that only a server may send, or a second CONNECT",
                )
                .into());
            }
        }
        Ok(Taken::All)
    }

    pub(crate) async fn handle_request(&mut self, request: Request) -> Result<(), End> {
        match request {
            Request::Subscribe(packet) => self.subscribe(packet).await,
            Request::Unsubscribe(packet) => self.unsubscribe(packet).await,
            Request::Auth(packet) => self.authenticate_again(packet).await,
            Request::Retain(alone) => self.retain(alone).await,
        }
    }

    fn publish(&mut self, publish: mqtt_codec::Publish, now_ms: i64) -> Result<Taken, End> {
        let qos = publish.qos;
        match self.session.handle_publish(publish, now_ms)? {
            PublishAction::Repeat { packet_id } => {
                self.begin(Box::pin(std::future::ready(Done::Repeated { packet_id })));
            }
            PublishAction::Store {
                mut message,
                packet_id,
            } => {
                if let Some(count) = self.messages_in.get_mut(usize::from(qos as u8)) {
                    *count += 1;
                }
                self.throttle_message();
                by_clock(&*self.broker.backend, &mut message, now_ms);
                let done = |result| Done::Stored {
                    qos,
                    packet_id,
                    bytes: 0,
                    messages: 0,
                    result,
                };
                let delay_ms = match self.admit(&mut message) {
                    Ok(delay_ms) => delay_ms,
                    Err(error) => {
                        self.answer_in_order(done(Err(error)))?;
                        return Ok(Taken::All);
                    }
                };
                if let Some(route) = self.unstored_route(&message.topic) {
                    let passed = match delay_ms {
                        None => self.pass_on(message, route, now_ms),
                        Some(_) => Err(never_later()),
                    };
                    if let (Ok(()), Some(id), QoS::ExactlyOnce) = (&passed, packet_id, qos) {
                        self.unstored_ids.insert(id);
                    }
                    self.answer_in_order(done(passed))?;
                    return Ok(Taken::All);
                }
                let bytes = message.size();
                self.publishing_bytes += bytes;
                self.publishing_messages += 1;
                if !message.retain && delay_ms.is_none() {
                    self.gather(message, Answer { qos, packet_id });
                    return Ok(Taken::All);
                }
                let retains = message.retain && !message.payload.is_empty();
                let alone = Alone {
                    message,
                    answer: Answer { qos, packet_id },
                    delay_ms,
                };
                if retains {
                    return Ok(Taken::Request(Request::Retain(alone).into()));
                }
                self.publish_alone(alone);
            }
        }
        Ok(Taken::All)
    }

    fn gather(&mut self, message: Message, answer: Answer) {
        let publisher = self.session.client_id().clone();
        let gathered = &mut self.gathered;
        gathered.bytes += message.size();
        let publish = Publish { message, publisher };
        gathered.publishes.push((publish, answer.exactly_once()));
        gathered.answers.push(answer);
        if gathered.publishes.len() >= limits::GATHERED {
            self.give_gathered();
        }
    }

    /// Where a message that is to be retained finds no room, those go that have expired.
    async fn retain(&mut self, alone: Alone) -> Result<(), End> {
        self.give_gathered();
        // Those before it take their places.
        while let Some(Some(done)) = self.publishing.next().now_or_never() {
            self.published(done)?;
        }
        // It may take a while: a client that is not read meanwhile is not silent.
        self.can_read = false;
        let backend = self.broker.backend.clone();
        backend.make_retained_room(&alone.message).await;
        self.publish_alone(alone);
        Ok(())
    }

    fn publish_alone(&mut self, alone: Alone) {
        // Those before it are given early before this one is noted.
        self.give_gathered();
        let Alone {
            mut message,
            answer,
            delay_ms,
        } = alone;
        let bytes = message.size();
        let publisher = self.session.client_id().clone();
        let hub = &self.broker.hub;
        // Retained. What is published later has no place among what is published now.
        let ticket = match delay_ms {
            None => hub.early.by_log(hub.router(), &publisher, &mut message),
            Some(_) => None,
        };
        let backend = self.broker.backend.clone();
        let exactly_once = answer.exactly_once().map(|id| (publisher.clone(), id));
        self.begin(Box::pin(async move {
            let publish = Publish { message, publisher };
            let result = match delay_ms {
                None => backend.publish(publish, exactly_once).await,
                Some(delay_ms) => backend.publish_later(publish, delay_ms, exactly_once).await,
            };
            drop(ticket);
            Done::Stored {
                qos: answer.qos,
                packet_id: answer.packet_id,
                bytes,
                messages: 1,
                result,
            }
        }));
    }

    /// At once, if nothing before it waits for storage: answers go out in the order of what they answer [MQTT-4.6.0-2, 4.6.0-3].
    fn answer_in_order(&mut self, done: Done) -> Result<(), End> {
        self.give_gathered();
        if self.publishing.is_empty() {
            return self.published(done);
        }
        self.begin(Box::pin(std::future::ready(done)));
        Ok(())
    }

    /// Behind everything that came before.
    fn begin(&mut self, work: BoxFuture<'static, Done>) {
        self.give_gathered();
        self.publishing.push_back(work);
    }

    /// Gives the backend what was gathered, if something was. PUBCOMP and the answers to PUBLISH have no order among each other.
    pub(crate) fn give_gathered(&mut self) {
        let Gathered {
            publishes,
            answers,
            bytes,
            releases,
        } = std::mem::take(&mut self.gathered);
        if !publishes.is_empty() {
            self.publish_all(publishes, answers, bytes);
        }
        if !releases.is_empty() {
            let backend = self.broker.backend.clone();
            let client = self.session.client_id().clone();
            self.publishing.push_back(Box::pin(async move {
                let result = backend.release(&client, &releases).await;
                Done::Released {
                    packet_ids: releases,
                    result,
                }
            }));
        }
    }

    fn publish_all(
        &mut self,
        mut publishes: Vec<(Publish, Option<PacketId>)>,
        answers: Vec<Answer>,
        bytes: usize,
    ) {
        let ticket = self.give_early(&mut publishes);
        let backend = self.broker.backend.clone();
        self.publishing.push_back(Box::pin(async move {
            let results = backend.publish_all(publishes).await;
            drop(ticket);
            Done::Together {
                answers,
                bytes,
                results,
            }
        }));
    }

    /// Gives those of QoS 0 to who may have them before they are stored, and them the numbers by which they are known again: see `early.rs`.
    fn give_early(&self, publishes: &mut [(Publish, Option<PacketId>)]) -> Option<Ticket> {
        let hub = &self.broker.hub;
        let is_early = |publish: &Publish| publish.message.qos == QoS::AtMostOnce;
        let count = publishes.iter().filter(|(one, _)| is_early(one)).count();
        if count == 0 {
            return None;
        }
        let ticket = hub.early.begin(count as u64);
        let mut number = ticket.first;
        let all = publishes.iter_mut().map(|(publish, _)| publish);
        let mut all = all.filter(|publish| is_early(publish)).peekable();
        while let Some(first) = all.peek() {
            let topic = first.message.topic.clone();
            let route = hub.early.route(hub.router(), &topic);
            let begin = number;
            let mut run: Vec<Arc<SharedMessage>> = Vec::new();
            while let Some(publish) = all.next_if(|publish| publish.message.topic == topic) {
                if !route.is_empty() {
                    run.push(Arc::new(publish.message.clone().into()));
                    publish.message.number = Some(number);
                }
                number += 1;
            }
            if run.is_empty() {
                continue;
            }
            let source = hub.early.source(self.session.client_id(), &topic);
            let batch = Batch::new(run.into(), None);
            let mut given = 0;
            for mailbox in route.iter() {
                if mailbox.put_early(source, batch.clone(), begin) {
                    given += batch.len() as u64;
                }
            }
            Metrics::add(&self.broker.metrics.early, given);
        }
        Some(ticket)
    }

    /// `None` = messages on this topic are stored.
    fn unstored_route(&self, topic: &TopicName) -> Option<Arc<Route>> {
        let passing = self.passing.as_ref();
        match passing.and_then(|passing| passing.route(topic)) {
            Some(route) => Some(route.clone()),
            None => self.broker.hub.unstored_route(topic),
        }
    }

    /// Towards who is connected; nothing is stored.
    fn pass_on(
        &mut self,
        message: Message,
        route: Arc<Route>,
        now_ms: i64,
    ) -> Result<(), PublishError> {
        let own = self.delivery.mailbox().id();
        let passing = self
            .passing
            .get_or_insert_with(|| Box::new(Passing::new(Some(own))));
        let retained = &self.broker.hub.unstored.retained;
        passing.publish(message, route, retained, &self.broker.metrics, now_ms)
    }

    fn release(&mut self, packet_id: PacketId) {
        if self.unstored_ids.remove(&packet_id) {
            self.session.released(packet_id);
        } else {
            self.gathered.releases.push(packet_id);
        }
    }

    pub(crate) fn published(&mut self, done: Done) -> Result<(), End> {
        match done {
            Done::Repeated { packet_id } => {
                self.session
                    .publish_stored(QoS::ExactlyOnce, Some(packet_id), Ok(()));
            }
            Done::Released { packet_ids, result } => {
                result?;
                for packet_id in packet_ids {
                    self.session.released(packet_id);
                }
            }
            Done::Stored {
                qos,
                packet_id,
                bytes,
                messages,
                result,
            } => {
                self.publishing_bytes = self.publishing_bytes.saturating_sub(bytes);
                self.publishing_messages = self.publishing_messages.saturating_sub(messages);
                self.stored(qos, packet_id, result)?;
            }
            Done::Together {
                answers,
                bytes,
                results,
            } => {
                self.publishing_bytes = self.publishing_bytes.saturating_sub(bytes);
                self.publishing_messages = self.publishing_messages.saturating_sub(answers.len());
                for (Answer { qos, packet_id }, result) in answers.into_iter().zip(results) {
                    self.stored(qos, packet_id, result)?;
                }
            }
        }
        Ok(())
    }

    fn stored(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        result: Result<(), PublishError>,
    ) -> Result<(), End> {
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => self.refused(error, qos)?,
        };
        self.session.publish_stored(qos, packet_id, result);
        Ok(())
    }

    /// How a refused publish is answered: the reason code, or the end of the connection.
    fn refused(&mut self, error: PublishError, qos: QoS) -> Result<Result<(), ReasonCode>, End> {
        Metrics::add(&self.broker.metrics.refused, 1);
        tracing::debug!(client = %self.session.client_id(), %error, "a publish was refused");
        let reason_code = match &error {
            PublishError::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
            PublishError::TopicNameInvalid(_) => ReasonCode::TOPIC_NAME_INVALID,
            PublishError::QuotaExceeded(_) | PublishError::Full(_) => ReasonCode::QUOTA_EXCEEDED,
            PublishError::Unavailable(_) => {
                return Err(Close::new(ReasonCode::SERVER_BUSY, error.to_string()).into());
            }
        };
        match self.session.version() {
            Version::V5 => Ok(Err(reason_code)),
            // 3.1.1 can not say no. Acknowledging is allowed for what is not authorised (section 3.3.5); anything else was
            // meant to be stored, so the client must not believe it is.
            _ if error == PublishError::NotAuthorized || qos == QoS::AtMostOnce => Ok(Ok(())),
            _ => Err(Close::new(reason_code, error.to_string()).into()),
        }
    }
}
