//! SUBACK and UNSUBACK (sections 3.9 and 3.11): one reason code for each filter of the request.

use crate::properties::id;
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

fn decode(
    mut r: Reader,
    version: Version,
) -> Result<(PacketId, Properties, Vec<ReasonCode>), DecodeError> {
    let packet_id = r.packet_id()?;
    let properties = match version {
        Version::V5 => Properties::decode(&mut r, ALLOWED)?,
        _ => Properties::default(),
    };
    Ok((
        packet_id,
        properties,
        r.0.iter().map(|byte| ReasonCode(*byte)).collect(),
    ))
}

impl SubAck {
    pub(crate) fn decode(r: Reader, version: Version) -> Result<SubAck, DecodeError> {
        let (packet_id, properties, reason_codes) = decode(r, version)?;
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
        let (packet_id, properties, reason_codes) = decode(r, version)?;
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
