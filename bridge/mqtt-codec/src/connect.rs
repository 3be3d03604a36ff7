//! CONNECT (section 3.1).

use crate::properties::id;
use crate::wire::{Reader, put_binary, put_string};
use crate::{DecodeError, Properties, QoS, TopicName, Version};
use bytes::{BufMut, Bytes, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    pub version: Version,
    /// Of 3.1 and 3.1.1: the upper bit of the level, by which bridges of mosquitto say that they are none of the applications. In no standard; who
    /// knows it sends a bridge nothing of its own back, and retain flags as they were published: MQTT 5 has options for both.
    pub is_bridge: bool,
    /// Clean Session of 3.1.1, Clean Start of 5.
    pub clean_start: bool,
    /// Seconds; 0 = none.
    pub keep_alive: u16,
    pub client_id: String,
    pub will: Option<Will>,
    pub user_name: Option<String>,
    pub password: Option<Bytes>,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    pub topic: TopicName,
    pub payload: Bytes,
    pub qos: QoS,
    pub retain: bool,
    pub properties: Properties,
}

/// In the level.
const BRIDGE: u8 = 0x80;

const ALLOWED: &[u8] = &[
    id::SESSION_EXPIRY_INTERVAL,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFORMATION,
    id::REQUEST_PROBLEM_INFORMATION,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
];
const ALLOWED_WILL: &[u8] = &[
    id::WILL_DELAY_INTERVAL,
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
];

/// With its length, as it stands at the beginning.
const NAMES: [&[u8]; 2] = [b"\x00\x04MQTT", b"\x00\x06MQIsdp"];
const NO_NAME: DecodeError = DecodeError::Malformed("not an MQTT protocol name [MQTT-3.1.2-1]");

/// And is it a bridge?
fn version(name: &[u8], level: u8) -> Result<(Version, bool), DecodeError> {
    match (name, level) {
        (b"MQTT", 5) => Ok((Version::V5, false)),
        (b"MQTT", 4 | 0x84) => Ok((Version::V311, level & BRIDGE != 0)),
        (b"MQIsdp", 3 | 0x83) => Ok((Version::V31, level & BRIDGE != 0)),
        (b"MQTT" | b"MQIsdp", other) => Err(DecodeError::UnsupportedVersion(other)),
        _ => Err(NO_NAME),
    }
}

impl Connect {
    /// Of a packet that is not whole yet: protocol name and level, as far as they are there.
    pub(crate) fn judge_beginning(body: &[u8]) -> Result<(), DecodeError> {
        let begins = |name: &&&[u8]| body.starts_with(name) || name.starts_with(body);
        let name = NAMES.iter().find(begins).ok_or(NO_NAME)?;
        match (name.get(2..), body.get(name.len())) {
            (Some(name), Some(level)) => version(name, *level).map(|_| ()),
            _ => Ok(()),
        }
    }

    pub(crate) fn decode(mut r: Reader) -> Result<Connect, DecodeError> {
        let name = r.binary()?;
        let level = r.u8()?;
        let (version, is_bridge) = version(&name, level)?;
        let flags = r.u8()?;
        if flags & 0x01 != 0 {
            return Err(DecodeError::Malformed(
                "the reserved CONNECT flag is set [MQTT-3.1.2-3]",
            ));
        }
        let has = |bit: u8| flags & bit != 0;
        let will_qos = QoS::from_u8((flags >> 3) & 3)
            .ok_or(DecodeError::Malformed("will QoS 3 [MQTT-3.1.2-12]"))?;
        if !has(0x04) && flags & 0x38 != 0 {
            return Err(DecodeError::Malformed(
                "will flags without a will [MQTT-3.1.2-11]",
            ));
        }
        if version != Version::V5 && has(0x40) && !has(0x80) {
            return Err(DecodeError::Malformed(
                "a password without a user name [MQTT-3.1.2-22]",
            ));
        }
        let keep_alive = r.u16()?;
        let properties = match version {
            Version::V5 => Properties::decode(&mut r, ALLOWED)?,
            _ => Properties::default(),
        };
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::Protocol(
                "authentication data without a method (section 3.1.2.11.10)",
            ));
        }
        let client_id = r.string()?;
        let will = if has(0x04) {
            let properties = match version {
                Version::V5 => Properties::decode(&mut r, ALLOWED_WILL)?,
                _ => Properties::default(),
            };
            let topic = TopicName::new(&r.string()?).map_err(DecodeError::TopicName)?;
            let payload = r.binary()?;
            Some(Will {
                topic,
                payload,
                qos: will_qos,
                retain: has(0x20),
                properties,
            })
        } else {
            None
        };
        let user_name = if has(0x80) { Some(r.string()?) } else { None };
        let password = if has(0x40) { Some(r.binary()?) } else { None };
        if !r.is_empty() {
            return Err(DecodeError::Malformed("bytes after the end of CONNECT"));
        }
        Ok(Connect {
            version,
            is_bridge,
            clean_start: has(0x02),
            keep_alive,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let (name, level) = match self.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        put_string(out, name);
        out.put_u8(level | if self.is_bridge { BRIDGE } else { 0 });
        let mut flags = 0;
        if self.clean_start {
            flags |= 0x02;
        }
        if let Some(will) = &self.will {
            flags |= 0x04 | ((will.qos as u8) << 3) | (u8::from(will.retain) << 5);
        }
        flags |= u8::from(self.password.is_some()) << 6 | u8::from(self.user_name.is_some()) << 7;
        out.put_u8(flags);
        out.put_u16(self.keep_alive);
        if self.version == Version::V5 {
            self.properties.encode(out);
        }
        put_string(out, &self.client_id);
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                will.properties.encode(out);
            }
            put_string(out, will.topic.as_str());
            put_binary(out, &will.payload);
        }
        if let Some(name) = &self.user_name {
            put_string(out, name);
        }
        if let Some(password) = &self.password {
            put_binary(out, password);
        }
    }
}
