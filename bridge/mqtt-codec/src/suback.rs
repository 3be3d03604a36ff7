//! SUBACK and UNSUBACK (sections 3.9 and 3.11): one reason code for each filter of the request.

use crate::properties::id;
use crate::reason::codes;
use crate::wire::Reader;
use crate::{DecodeError, PacketId, Properties, ReasonCode, Version};
use bytes::{BufMut, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct SubAck {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// In the order of the request. For 3.1.1 every error is written as 0x80.
    pub reason_codes: Vec<ReasonCode>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// In the order of the request. 3.1.1 has none.
    pub reason_codes: Vec<ReasonCode>,
}

const ALLOWED: &[u8] = &[id::REASON_STRING, id::USER_PROPERTY];

/// `codes` = those of the packet; `None` = it has no payload.
fn decode(
    mut r: Reader,
    version: Version,
    codes: Option<&[u8]>,
) -> Result<(PacketId, Properties, Vec<ReasonCode>), DecodeError> {
    let packet_id = r.packet_id()?;
    let properties = match version {
        Version::V5 => Properties::decode(&mut r, ALLOWED)?,
        _ => Properties::default(),
    };
    let Some(codes) = codes else {
        return match r.is_empty() {
            true => Ok((packet_id, properties, Vec::new())),
            false => Err(DecodeError::Malformed("UNSUBACK of 3.1.1 has no payload")),
        };
    };
    if r.is_empty() {
        return Err(DecodeError::Protocol(
            "no reason code for any filter [MQTT-3.8.4-6]",
        ));
    }
    let reason_codes = r.0.iter().map(|byte| ReasonCode::of(*byte, codes));
    Ok((
        packet_id,
        properties,
        reason_codes.collect::<Result<_, _>>()?,
    ))
}

impl SubAck {
    pub(crate) fn decode(r: Reader, version: Version) -> Result<SubAck, DecodeError> {
        let codes = match version {
            Version::V5 => codes::SUBACK,
            _ => codes::SUBACK_V3,
        };
        let (packet_id, properties, reason_codes) = decode(r, version, Some(codes))?;
        Ok(SubAck {
            packet_id,
            properties,
            reason_codes,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.encode(out);
        }
        for code in &self.reason_codes {
            let v3_failure = version != Version::V5 && code.is_error();
            out.put_u8(if v3_failure { 0x80 } else { code.0 });
        }
    }
}

impl UnsubAck {
    pub(crate) fn decode(r: Reader, version: Version) -> Result<UnsubAck, DecodeError> {
        let codes = (version == Version::V5).then_some(codes::UNSUBACK);
        let (packet_id, properties, reason_codes) = decode(r, version, codes)?;
        Ok(UnsubAck {
            packet_id,
            properties,
            reason_codes,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.encode(out);
            for code in &self.reason_codes {
                out.put_u8(code.0);
            }
        }
    }
}
