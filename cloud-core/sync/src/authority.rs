//! The core's own certificate authority: made at the first start, kept in the data directory, trusted by edges and nobody else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use credentials::write_private;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use sync_quic::{CORE_NAME, CoreIdentity};

use crate::limits::EDGE_CERTIFICATE_YEARS;
use crate::time::{now_ms, year};

/// Key and certificate in one file, so that there is never one without the other.
const FILE: &str = "sync-ca.pem";
/// A core whose clock stands before this year does not know the time.
const EARLIEST_YEAR: i32 = 2026;
/// The authority and the core's certificate outlive any board: replacing them means enrolling every edge again.
const AUTHORITY_LAST_YEAR: i32 = 2125;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot {what} {path}: {error}")]
    File {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error(
        "{path} is not the key and certificate of an authority ({reason}): restore it from a backup"
    )]
    Damaged { path: PathBuf, reason: String },
    /// A new authority would lock out all edges that trust the old one.
    #[error(
        "{path} is missing although {edges} edges are enrolled with it: restore it from a backup"
    )]
    Missing { path: PathBuf, edges: usize },
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

pub(crate) struct Authority {
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that was just made for an edge.
pub(crate) struct EdgeCertificate {
    pub(crate) der: Vec<u8>,
    /// Hexadecimal.
    pub(crate) serial: String,
    /// Milliseconds since 1970.
    pub(crate) expires_ms: i64,
}

impl Authority {
    /// Reads the authority of a data directory, or makes it where no edge is enrolled yet. Blocks for a few file operations.
    pub(crate) fn open(data_dir: &Path, enrolled: usize) -> Result<Authority, AuthorityError> {
        let path = data_dir.join(FILE);
        match fs::read(&path) {
            Ok(pem) => Authority::parse(&path, &pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound && enrolled == 0 => {
                Authority::create(&path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AuthorityError::Missing {
                path,
                edges: enrolled,
            }),
            Err(error) => Err(AuthorityError::File {
                what: "read",
                path,
                error,
            }),
        }
    }

    fn parse(path: &Path, pem: &[u8]) -> Result<Authority, AuthorityError> {
        let damaged = |reason: String| AuthorityError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let text = std::str::from_utf8(pem).map_err(|error| damaged(error.to_string()))?;
        let key = KeyPair::from_pem(text).map_err(|error| damaged(error.to_string()))?;
        let certificate =
            CertificateDer::from_pem_slice(pem).map_err(|error| damaged(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Authority {
            certificate: certificate.to_vec(),
            issuer,
        })
    }

    fn create(path: &Path) -> Result<Authority, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Towline core authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(AUTHORITY_LAST_YEAR, 1, 1);
        let certificate = params.self_signed(&key)?;
        let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
        let failed = |what, error| AuthorityError::File {
            what,
            path: path.to_owned(),
            error,
        };
        write_private(path, pem.as_bytes()).map_err(|error| failed("write", error))?;
        Authority::parse(path, pem.as_bytes())
    }

    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// A certificate for this process, made anew at each start.
    pub(crate) fn core_identity(&self) -> Result<CoreIdentity, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![CORE_NAME.to_owned()])?;
        params
            .distinguished_name
            .push(DnType::CommonName, CORE_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(AUTHORITY_LAST_YEAR, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(CoreIdentity {
            chain: vec![certificate.der().to_vec(), self.certificate.clone()],
            key: key.serialize_der(),
            ca: self.certificate.clone(),
            reset_secret: self.reset_secret(),
        })
    }

    /// Made from the authority's key, so that it outlives the process; the key can not be found from it.
    fn reset_secret(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(b"towline stateless reset");
        digest.update(self.issuer.key().serialize_der());
        digest.finalize().into()
    }

    /// Signs the public key of an edge's request. Everything else in the certificate is ours to say. An error means that the
    /// request is not one, or that its signature is wrong.
    pub(crate) fn sign_edge(
        &self,
        request: &[u8],
        name: &str,
    ) -> Result<EdgeCertificate, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_der(
            &CertificateSigningRequestDer::from(request),
        )?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(
            year(now_ms()).max(EARLIEST_YEAR) + EDGE_CERTIFICATE_YEARS,
            1,
            1,
        );
        let serial: [u8; 16] = rand::random();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let expires_ms = params.not_after.unix_timestamp().saturating_mul(1000);
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(EdgeCertificate {
            der: certificate.der().to_vec(),
            serial: hex(&serial),
            expires_ms,
        })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
