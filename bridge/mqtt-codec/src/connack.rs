//! CONNACK (section 3.2).

use crate::properties::id;
use crate::reason::codes;
use crate::wire::Reader;
use crate::{DecodeError, Properties, ReasonCode, Version};
use bytes::{BufMut, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck {
    pub session_present: bool,
    /// For 3.1.1 the return code; written by [`ReasonCode::to_v3_return_code`], read as it stands.
    pub reason_code: ReasonCode,
    pub properties: Properties,
}

const ALLOWED: &[u8] = &[
    id::SESSION_EXPIRY_INTERVAL,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_QOS,
    id::RETAIN_AVAILABLE,
    id::MAXIMUM_PACKET_SIZE,
    id::ASSIGNED_CLIENT_IDENTIFIER,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REASON_STRING,
    id::USER_PROPERTY,
    id::WILDCARD_SUBSCRIPTION_AVAILABLE,
    id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    id::SHARED_SUBSCRIPTION_AVAILABLE,
    id::SERVER_KEEP_ALIVE,
    id::RESPONSE_INFORMATION,
    id::SERVER_REFERENCE,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
];

impl ConnAck {
    pub(crate) fn decode(mut r: Reader, version: Version) -> Result<ConnAck, DecodeError> {
        let flags = r.u8()?;
        if flags & 0xFE != 0 {
            return Err(DecodeError::Malformed(
                "reserved CONNACK flags are set [MQTT-3.2.2-1]",
            ));
        }
        let byte = r.u8()?;
        let (reason_code, properties) = match version {
            Version::V5 => {
                let reason_code = ReasonCode::of(byte, codes::CONNACK)?;
                (reason_code, Properties::decode(&mut r, ALLOWED)?)
            }
            _ => (ReasonCode(byte), Properties::default()),
        };
        if !r.is_empty() {
            return Err(DecodeError::Malformed("bytes after the end of CONNACK"));
        }
        Ok(ConnAck {
            session_present: flags & 1 != 0,
            reason_code,
            properties,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u8(u8::from(self.session_present));
        if version == Version::V5 {
            out.put_u8(self.reason_code.0);
            self.properties.encode(out);
        } else {
            out.put_u8(self.reason_code.to_v3_return_code());
        }
    }
}
