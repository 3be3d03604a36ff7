//! PUBLISH from the client (sections 3.3, 4.3).

use crate::{Close, Message, MessageProperties, Session};
use mqtt_codec::{Ack, Packet, PacketId, Publish, QoS, ReasonCode, TopicName, Version};

/// What to do with a PUBLISH. After either, call [`Session::publish_stored`] in the order of arrival [MQTT-4.6.0-2, 4.6.0-3].
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are of the large variant, and none is kept"
)]
pub enum PublishAction {
    /// Store it; with QoS 2 together with the packet id.
    Store {
        message: Message,
        packet_id: Option<PacketId>,
    },
    /// A QoS 2 message that is stored already: only the answer is repeated.
    Repeat { packet_id: PacketId },
}

impl Session {
    pub fn handle_publish(
        &mut self,
        publish: Publish,
        now_ms: i64,
    ) -> Result<PublishAction, Close> {
        let topic = self.topic_of(publish.topic, publish.properties.topic_alias)?;
        if !publish.properties.subscription_identifiers.is_empty() {
            return Err(Close::new(
                ReasonCode::PROTOCOL_ERROR,
                "a client must not send subscription identifiers [MQTT-3.3.4-6]",
            ));
        }
        if publish.qos > self.connection.limits.maximum_qos {
            return Err(Close::new(
                ReasonCode::QOS_NOT_SUPPORTED,
                "a QoS above the server's maximum [MQTT-3.2.2-11]",
            ));
        }
        if publish.retain && !self.connection.limits.retain_available {
            return Err(Close::new(
                ReasonCode::RETAIN_NOT_SUPPORTED,
                "retained messages are switched off [MQTT-3.2.2-14]",
            ));
        }
        if let (Some(packet_id), QoS::ExactlyOnce) = (publish.packet_id, publish.qos)
            && self.connection.unreleased.contains_key(&packet_id)
        {
            return Ok(PublishAction::Repeat { packet_id });
        }
        if publish.qos != QoS::AtMostOnce {
            let used = self.connection.storing + self.connection.unreleased.len();
            let limit = usize::from(self.connection.limits.receive_limit);
            if self.connection.version == Version::V5 && used >= limit {
                return Err(Close::new(
                    ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
                    format!("more than {limit} unacknowledged publishes [MQTT-3.3.4-9]"),
                ));
            }
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, _) => self.connection.storing += 1,
            (QoS::ExactlyOnce, Some(packet_id)) => {
                self.connection.unreleased.insert(packet_id, false);
            }
            _ => {}
        }
        let expires_at = publish
            .properties
            .message_expiry_interval
            .map(|seconds| now_ms.saturating_add(i64::from(seconds) * 1000).into());
        let mut message = Message {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires_at,
            origin: None,
            number: None,
            properties: MessageProperties::from_packet(publish.properties),
        };
        message.origin = self.origin_of(&message);
        Ok(PublishAction::Store {
            message,
            packet_id: publish.packet_id,
        })
    }

    /// What a message of this client carries, so that it does not come back where it is not wanted [MQTT-3.8.3-3]. What is retained can come to
    /// subscriptions that are yet to be made.
    pub fn origin_of(&self, message: &Message) -> Option<u64> {
        let is_kept = message.retain && !message.payload.is_empty();
        let unwanted = is_kept || self.subscriptions.no_local_matches(&message.topic);
        unwanted.then_some(self.connection.origin)
    }

    /// Topic aliases (section 3.3.2.3.4).
    fn topic_of(
        &mut self,
        topic: Option<TopicName>,
        alias: Option<u16>,
    ) -> Result<TopicName, Close> {
        let invalid = |text: &str| Close::new(ReasonCode::TOPIC_ALIAS_INVALID, text);
        let Some(alias) = alias else {
            return topic.ok_or_else(|| {
                Close::new(ReasonCode::PROTOCOL_ERROR, "no topic and no topic alias")
            });
        };
        if alias == 0 || alias > self.connection.limits.topic_alias_maximum {
            return Err(invalid(
                "a topic alias is 0 or above the maximum [MQTT-3.3.2-8, 3.3.2-9]",
            ));
        }
        match topic {
            Some(topic) => {
                self.connection.aliases.insert(alias, topic.clone());
                Ok(topic)
            }
            None => {
                let known = self.connection.aliases.get(&alias).cloned();
                known.ok_or_else(|| {
                    Close::new(ReasonCode::PROTOCOL_ERROR, "a topic alias that was not set")
                })
            }
        }
    }

    /// The message is stored, or was refused with `result`: PUBACK or PUBREC goes out. QoS 0 has no answer.
    pub fn publish_stored(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        result: Result<(), ReasonCode>,
    ) {
        let Some(packet_id) = packet_id else { return };
        let code = result.err().unwrap_or(ReasonCode::SUCCESS);
        let mut ack = Ack::new(packet_id, code);
        if code.is_error() {
            ack.properties.reason_string = Some(code.text().to_owned());
        }
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.connection.storing = self.connection.storing.saturating_sub(1);
                self.reply(Packet::PubAck(ack));
            }
            QoS::ExactlyOnce => {
                if code.is_error() {
                    self.connection.unreleased.remove(&packet_id);
                } else if let Some(answered) = self.connection.unreleased.get_mut(&packet_id) {
                    *answered = true;
                }
                self.reply(Packet::PubRec(ack));
            }
        }
    }
}
