//! DISCONNECT (section 3.14) and AUTH (section 3.15): a reason code and properties, both optional.

use crate::properties::id;
use crate::reason::codes;
use crate::wire::Reader;
use crate::{DecodeError, Properties, ReasonCode, Version};
use bytes::{BufMut, BytesMut};

#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect {
    pub reason_code: ReasonCode,
    pub properties: Properties,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    pub reason_code: ReasonCode,
    pub properties: Properties,
}

fn decode(
    mut r: Reader,
    codes: &[u8],
    allowed: &[u8],
) -> Result<(ReasonCode, Properties), DecodeError> {
    if r.is_empty() {
        return Ok((ReasonCode::SUCCESS, Properties::default()));
    }
    let reason_code = ReasonCode::of(r.u8()?, codes)?;
    let properties = if r.is_empty() {
        Properties::default()
    } else {
        Properties::decode(&mut r, allowed)?
    };
    if !r.is_empty() {
        return Err(DecodeError::Malformed("bytes after the end of the packet"));
    }
    Ok((reason_code, properties))
}

fn encode(reason_code: ReasonCode, properties: &Properties, out: &mut BytesMut) {
    if reason_code != ReasonCode::SUCCESS || !properties.is_empty() {
        out.put_u8(reason_code.0);
        properties.encode(out);
    }
}

impl Disconnect {
    pub fn new(reason_code: ReasonCode) -> Disconnect {
        Disconnect {
            reason_code,
            properties: Properties::default(),
        }
    }

    pub(crate) fn decode(r: Reader, version: Version) -> Result<Disconnect, DecodeError> {
        if version != Version::V5 && !r.is_empty() {
            return Err(DecodeError::Malformed(
                "DISCONNECT of 3.1.1 has no body (section 3.14)",
            ));
        }
        let allowed = [
            id::SESSION_EXPIRY_INTERVAL,
            id::REASON_STRING,
            id::USER_PROPERTY,
            id::SERVER_REFERENCE,
        ];
        let (reason_code, properties) = decode(r, codes::DISCONNECT, &allowed)?;
        Ok(Disconnect {
            reason_code,
            properties,
        })
    }

    pub(crate) fn encode(&self, version: Version, out: &mut BytesMut) {
        if version == Version::V5 {
            encode(self.reason_code, &self.properties, out);
        }
    }
}

impl Auth {
    pub(crate) fn decode(r: Reader, version: Version) -> Result<Auth, DecodeError> {
        if version != Version::V5 {
            return Err(DecodeError::Malformed(
                "packet type 15 is reserved in 3.1.1 (section 2.2.1)",
            ));
        }
        let allowed = [
            id::AUTHENTICATION_METHOD,
            id::AUTHENTICATION_DATA,
            id::REASON_STRING,
            id::USER_PROPERTY,
        ];
        let (reason_code, properties) = decode(r, codes::AUTH, &allowed)?;
        Ok(Auth {
            reason_code,
            properties,
        })
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        encode(self.reason_code, &self.properties, out);
    }
}
