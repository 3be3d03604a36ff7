//! What an edge keeps of its enrolment.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Result of an enrolment, as text to be stored (the key with mode 0600) and read back.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the edge as the core granted it.
    pub edge: String,
    /// The edge's certificate, PEM.
    pub certificate_pem: String,
    /// The edge's private key, PKCS#8 PEM. Made here; the core never sees it.
    pub key_pem: String,
    /// The core's certificate authority, PEM: the only one that is trusted.
    pub ca_pem: String,
}

impl std::fmt::Debug for Identity {
    /// Without the key: this type ends up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("edge", &self.edge)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0} is not PEM of the expected kind: remove the identity and enrol again")]
    Pem(&'static str),
    #[error("certificate and key do not fit: {0}; remove the identity and enrol again")]
    Rustls(#[from] rustls::Error),
}

impl Identity {
    /// Whether it can be used at all: its parts can be read, and the key is the certificate's.
    pub fn check(&self) -> Result<(), IdentityError> {
        crate::tls::edge_config(self, crate::tls::system_now()).map(drop)
    }

    pub(crate) fn certificate(&self) -> Result<CertificateDer<'static>, IdentityError> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|_| IdentityError::Pem("the certificate"))
    }

    pub(crate) fn ca(&self) -> Result<CertificateDer<'static>, IdentityError> {
        CertificateDer::from_pem_slice(self.ca_pem.as_bytes())
            .map_err(|_| IdentityError::Pem("the core's CA certificate"))
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| IdentityError::Pem("the private key"))
    }
}
