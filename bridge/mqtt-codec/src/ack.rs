//! PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7): four packets of one form.

use crate::properties::id;
use crate::wire::Reader;
use crate::{DecodeError, PacketId, Properties, ReasonCode, Version};
use bytes::{BufMut, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    pub packet_id: PacketId,
    pub reason_code: ReasonCode,
    pub properties: Properties,
}

const ALLOWED: &[u8] = &[id::REASON_STRING, id::USER_PROPERTY];

impl Ack {
    pub fn new(packet_id: PacketId, reason_code: ReasonCode) -> Ack {
        Ack {
            packet_id,
            reason_code,
            properties: Properties::default(),
        }
    }

    pub fn success(packet_id: PacketId) -> Ack {
        Ack::new(packet_id, ReasonCode::SUCCESS)
    }

    /// `codes` = those of the packet.
    pub(crate) fn decode(
        mut r: Reader,
        version: Version,
        codes: &[u8],
    ) -> Result<Ack, DecodeError> {
        let packet_id = r.packet_id()?;
        let mut ack = Ack::success(packet_id);
        if version == Version::V5 && !r.is_empty() {
            ack.reason_code = ReasonCode::of(r.u8()?, codes)?;
            if !r.is_empty() {
                ack.properties = Properties::decode(&mut r, ALLOWED)?;
            }
        }
        if !r.is_empty() {
            return Err(DecodeError::Malformed(
                "bytes after the end of an acknowledgement",
            ));
        }
        Ok(ack)
    }

    pub(crate) fn encode(&self, version: Version, out: &mut BytesMut) {
        out.put_u16(self.packet_id.get());
        let plain = self.reason_code == ReasonCode::SUCCESS && self.properties.is_empty();
        if version == Version::V5 && !plain {
            out.put_u8(self.reason_code.0);
            self.properties.encode(out);
        }
    }
}
