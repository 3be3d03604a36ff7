//! The header of a request and of a response.

use super::api::Api;
use super::reader::{Reader, WireError};
use super::writer::Writer;

/// What stands before the body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
    /// What the client calls itself; for logs and for describing groups.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads the header and leaves `reader` set for the body. A version that is not served of an API that is can only be
    /// answered for ApiVersions, which the caller must do: the body behind it cannot be read.
    pub fn read(reader: &mut Reader) -> Result<(Self, Result<Api, WireError>), WireError> {
        let (key, version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
        let api = match Api::from_key(key) {
            None => Err(WireError::UnknownApi(key)),
            Some(api) if !api.versions().contains(&version) => {
                Err(WireError::UnknownVersion { key, version })
            }
            Some(api) => Ok(api),
        };
        let mut header = Self {
            key,
            version,
            correlation_id,
            client_id: None,
        };
        if let Ok(api) = api {
            let flexible = version >= api.flexible_from();
            // The client id keeps the old encoding even in the flexible header (KIP-482).
            header.client_id = reader.old_string()?;
            reader.set_flexible(flexible);
            reader.tagged_fields()?;
        }
        Ok((header, api))
    }

    /// Writes the header and leaves `writer` set for the body: what a client does.
    #[cfg(test)]
    pub fn write(&self, writer: &mut Writer, api: Api) {
        writer.i16(self.key);
        writer.i16(self.version);
        writer.i32(self.correlation_id);
        writer.old_string(self.client_id.as_deref());
        writer.set_flexible(self.version >= api.flexible_from());
        writer.tagged_fields();
    }

    /// Begins the response. That of ApiVersions never has the flexible header: a client that does not know our versions
    /// yet must be able to read it (KIP-511).
    pub fn begin_response(&self, api: Api, body_version: i16) -> Writer {
        let flexible = body_version >= api.flexible_from();
        let mut writer = Writer::new(flexible && api != Api::ApiVersions);
        writer.i32(self.correlation_id);
        writer.tagged_fields();
        writer.set_flexible(flexible);
        writer
    }
}
