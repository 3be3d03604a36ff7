//! The properties of MQTT 5 (section 2.2.2): one struct for all packets; each packet names those it allows.

use crate::wire::{Reader, put_binary, put_string, put_variable_byte_integer};
use crate::{DecodeError, TopicName, limits};
use bytes::{BufMut, Bytes, BytesMut};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub payload_format_indicator: Option<u8>,
    pub message_expiry_interval: Option<u32>,
    pub content_type: Option<String>,
    pub response_topic: Option<TopicName>,
    pub correlation_data: Option<Bytes>,
    /// Several only in a PUBLISH from a server.
    pub subscription_identifiers: Vec<u32>,
    pub session_expiry_interval: Option<u32>,
    pub assigned_client_identifier: Option<String>,
    pub server_keep_alive: Option<u16>,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Bytes>,
    pub request_problem_information: Option<u8>,
    pub will_delay_interval: Option<u32>,
    pub request_response_information: Option<u8>,
    pub response_information: Option<String>,
    pub server_reference: Option<String>,
    pub reason_string: Option<String>,
    pub receive_maximum: Option<u16>,
    pub topic_alias_maximum: Option<u16>,
    pub topic_alias: Option<u16>,
    pub maximum_qos: Option<u8>,
    pub retain_available: Option<u8>,
    pub user_properties: Vec<(String, String)>,
    pub maximum_packet_size: Option<u32>,
    pub wildcard_subscription_available: Option<u8>,
    pub subscription_identifier_available: Option<u8>,
    pub shared_subscription_available: Option<u8>,
}

pub(crate) mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// A property may be there only once (except those that may not).
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), DecodeError> {
    if slot.replace(value).is_some() {
        return Err(DecodeError::Protocol(
            "a property is there twice (section 2.2.2.2)",
        ));
    }
    Ok(())
}

fn flag(reader: &mut Reader) -> Result<u8, DecodeError> {
    match reader.u8()? {
        value @ (0 | 1) => Ok(value),
        _ => Err(DecodeError::Protocol(
            "a property that is 0 or 1 has another value",
        )),
    }
}

fn not_zero<T: Default + PartialEq>(value: T) -> Result<T, DecodeError> {
    if value == T::default() {
        return Err(DecodeError::Protocol("a property that must not be 0 is 0"));
    }
    Ok(value)
}

impl Properties {
    /// Reads the length and the properties. `allowed` lists the identifiers this packet may carry.
    pub(crate) fn decode(reader: &mut Reader, allowed: &[u8]) -> Result<Properties, DecodeError> {
        let len = reader.variable_byte_integer()?;
        let mut part = Reader(reader.take(len)?);
        let mut p = Properties::default();
        while !part.is_empty() {
            // Identifiers are variable byte integers; all that exist fit in one byte.
            let id = part.variable_byte_integer()?;
            let id = u8::try_from(id).map_err(|_| DecodeError::Malformed("unknown property"))?;
            if !(id::PAYLOAD_FORMAT_INDICATOR..=id::SHARED_SUBSCRIPTION_AVAILABLE).contains(&id) {
                return Err(DecodeError::Malformed("unknown property"));
            }
            if !allowed.contains(&id) {
                return Err(DecodeError::Protocol(
                    "a property that this packet can not have (section 2.2.2.2)",
                ));
            }
            p.decode_one(id, &mut part)?;
        }
        Ok(p)
    }

    fn decode_one(&mut self, id: u8, r: &mut Reader) -> Result<(), DecodeError> {
        match id {
            id::PAYLOAD_FORMAT_INDICATOR => once(&mut self.payload_format_indicator, flag(r)?),
            id::MESSAGE_EXPIRY_INTERVAL => once(&mut self.message_expiry_interval, r.u32()?),
            id::CONTENT_TYPE => once(&mut self.content_type, r.string()?),
            id::RESPONSE_TOPIC => {
                let topic = TopicName::new(&r.string()?).map_err(DecodeError::TopicName)?;
                once(&mut self.response_topic, topic)
            }
            id::CORRELATION_DATA => once(&mut self.correlation_data, r.binary()?),
            id::SUBSCRIPTION_IDENTIFIER => {
                let value = not_zero(r.variable_byte_integer()?)?;
                if self.subscription_identifiers.len() >= limits::MAX_FILTERS_PER_PACKET {
                    return Err(DecodeError::Quota("too many subscription identifiers"));
                }
                self.subscription_identifiers.push(value as u32);
                Ok(())
            }
            id::SESSION_EXPIRY_INTERVAL => once(&mut self.session_expiry_interval, r.u32()?),
            id::ASSIGNED_CLIENT_IDENTIFIER => {
                once(&mut self.assigned_client_identifier, r.string()?)
            }
            id::SERVER_KEEP_ALIVE => once(&mut self.server_keep_alive, r.u16()?),
            id::AUTHENTICATION_METHOD => once(&mut self.authentication_method, r.string()?),
            id::AUTHENTICATION_DATA => once(&mut self.authentication_data, r.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => {
                once(&mut self.request_problem_information, flag(r)?)
            }
            id::WILL_DELAY_INTERVAL => once(&mut self.will_delay_interval, r.u32()?),
            id::REQUEST_RESPONSE_INFORMATION => {
                once(&mut self.request_response_information, flag(r)?)
            }
            id::RESPONSE_INFORMATION => once(&mut self.response_information, r.string()?),
            id::SERVER_REFERENCE => once(&mut self.server_reference, r.string()?),
            id::REASON_STRING => once(&mut self.reason_string, r.string()?),
            id::RECEIVE_MAXIMUM => once(&mut self.receive_maximum, not_zero(r.u16()?)?),
            id::TOPIC_ALIAS_MAXIMUM => once(&mut self.topic_alias_maximum, r.u16()?),
            // 0 is a Topic Alias invalid (0x94), which the session says.
            id::TOPIC_ALIAS => once(&mut self.topic_alias, r.u16()?),
            id::MAXIMUM_QOS => once(&mut self.maximum_qos, flag(r)?),
            id::RETAIN_AVAILABLE => once(&mut self.retain_available, flag(r)?),
            id::USER_PROPERTY => {
                let pair = (r.string()?, r.string()?);
                if self.user_properties.len() >= limits::MAX_USER_PROPERTIES {
                    return Err(DecodeError::Quota("too many user properties"));
                }
                self.user_properties.push(pair);
                Ok(())
            }
            id::MAXIMUM_PACKET_SIZE => once(&mut self.maximum_packet_size, not_zero(r.u32()?)?),
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                once(&mut self.wildcard_subscription_available, flag(r)?)
            }
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                once(&mut self.subscription_identifier_available, flag(r)?)
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                once(&mut self.shared_subscription_available, flag(r)?)
            }
            _ => Err(DecodeError::Malformed("unknown property")),
        }
    }

    fn put_all(&self, out: &mut BytesMut) {
        let o = out;
        let byte = |o: &mut BytesMut, id: u8, value: Option<u8>| {
            if let Some(value) = value {
                o.put_u8(id);
                o.put_u8(value);
            }
        };
        let two = |o: &mut BytesMut, id: u8, value: Option<u16>| {
            if let Some(value) = value {
                o.put_u8(id);
                o.put_u16(value);
            }
        };
        let four = |o: &mut BytesMut, id: u8, value: Option<u32>| {
            if let Some(value) = value {
                o.put_u8(id);
                o.put_u32(value);
            }
        };
        let text = |o: &mut BytesMut, id: u8, value: Option<&str>| {
            if let Some(value) = value {
                o.put_u8(id);
                put_string(o, value);
            }
        };
        let data = |o: &mut BytesMut, id: u8, value: &Option<Bytes>| {
            if let Some(value) = value {
                o.put_u8(id);
                put_binary(o, value);
            }
        };
        byte(
            o,
            id::PAYLOAD_FORMAT_INDICATOR,
            self.payload_format_indicator,
        );
        four(o, id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval);
        text(o, id::CONTENT_TYPE, self.content_type.as_deref());
        text(
            o,
            id::RESPONSE_TOPIC,
            self.response_topic.as_ref().map(TopicName::as_str),
        );
        data(o, id::CORRELATION_DATA, &self.correlation_data);
        for value in &self.subscription_identifiers {
            o.put_u8(id::SUBSCRIPTION_IDENTIFIER);
            put_variable_byte_integer(o, *value as usize);
        }
        four(o, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval);
        text(
            o,
            id::ASSIGNED_CLIENT_IDENTIFIER,
            self.assigned_client_identifier.as_deref(),
        );
        two(o, id::SERVER_KEEP_ALIVE, self.server_keep_alive);
        text(
            o,
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_deref(),
        );
        data(o, id::AUTHENTICATION_DATA, &self.authentication_data);
        byte(
            o,
            id::REQUEST_PROBLEM_INFORMATION,
            self.request_problem_information,
        );
        four(o, id::WILL_DELAY_INTERVAL, self.will_delay_interval);
        byte(
            o,
            id::REQUEST_RESPONSE_INFORMATION,
            self.request_response_information,
        );
        text(
            o,
            id::RESPONSE_INFORMATION,
            self.response_information.as_deref(),
        );
        text(o, id::SERVER_REFERENCE, self.server_reference.as_deref());
        text(o, id::REASON_STRING, self.reason_string.as_deref());
        two(o, id::RECEIVE_MAXIMUM, self.receive_maximum);
        two(o, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        two(o, id::TOPIC_ALIAS, self.topic_alias);
        byte(o, id::MAXIMUM_QOS, self.maximum_qos);
        byte(o, id::RETAIN_AVAILABLE, self.retain_available);
        for (name, value) in &self.user_properties {
            o.put_u8(id::USER_PROPERTY);
            put_string(o, name);
            put_string(o, value);
        }
        four(o, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        byte(
            o,
            id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            self.wildcard_subscription_available,
        );
        byte(
            o,
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            self.subscription_identifier_available,
        );
        byte(
            o,
            id::SHARED_SUBSCRIPTION_AVAILABLE,
            self.shared_subscription_available,
        );
    }

    /// Writes the length and the properties.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let body = self.to_encoded();
        put_variable_byte_integer(out, body.len());
        out.extend_from_slice(&body);
    }

    /// The properties as they stand in a packet, without their length before them: see [`crate::PublishHead`].
    pub fn to_encoded(&self) -> Bytes {
        let mut body = BytesMut::new();
        self.put_all(&mut body);
        body.freeze()
    }

    pub fn is_empty(&self) -> bool {
        *self == Properties::default()
    }
}
