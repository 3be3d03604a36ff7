//! A token for a certificate: `EnrolRequest`, `EnrolGrant`, `EnrolRefused`.

use bytes::{BufMut, Bytes, BytesMut};

use super::FrameError;
use super::body::{Body, put_bytes, put_text};
use crate::limits;

/// What an edge sends to be enrolled, once it knows that it talks to the core of its token.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    pub version: u16,
    pub token_id: String,
    pub secret: String,
    /// The name that the edge asks for.
    pub name: String,
    /// PKCS#10 certificate request, DER. The private key never leaves the edge.
    pub request: Bytes,
}

impl std::fmt::Debug for EnrolRequest {
    /// Without the secret: this type ends up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("token_id", &self.token_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl EnrolRequest {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        out.put_u16(self.version);
        put_text(out, "token id", &self.token_id, limits::MAX_TOKEN_PART)?;
        put_text(out, "token secret", &self.secret, limits::MAX_TOKEN_PART)?;
        put_text(out, "edge name", &self.name, limits::MAX_EDGE_NAME)?;
        put_bytes(
            out,
            "certificate request",
            &self.request,
            limits::MAX_CERTIFICATE,
        )
    }

    pub(super) fn take(body: &mut Body) -> Result<EnrolRequest, FrameError> {
        Ok(EnrolRequest {
            version: body.u16("version")?,
            token_id: body.text("token id", limits::MAX_TOKEN_PART)?,
            secret: body.text("token secret", limits::MAX_TOKEN_PART)?,
            name: body.text("edge name", limits::MAX_EDGE_NAME)?,
            request: body.field("certificate request", limits::MAX_CERTIFICATE)?,
        })
    }
}

/// The certificate that the core made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolGrant {
    pub name: String,
    /// The edge's certificate, DER.
    pub certificate: Bytes,
    /// The core's certificate authority, DER.
    pub ca: Bytes,
}

impl EnrolGrant {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        put_text(out, "edge name", &self.name, limits::MAX_EDGE_NAME)?;
        put_bytes(
            out,
            "certificate",
            &self.certificate,
            limits::MAX_CERTIFICATE,
        )?;
        put_bytes(out, "ca certificate", &self.ca, limits::MAX_CERTIFICATE)
    }

    pub(super) fn take(body: &mut Body) -> Result<EnrolGrant, FrameError> {
        Ok(EnrolGrant {
            name: body.text("edge name", limits::MAX_EDGE_NAME)?,
            certificate: body.field("certificate", limits::MAX_CERTIFICATE)?,
            ca: body.field("ca certificate", limits::MAX_CERTIFICATE)?,
        })
    }
}
