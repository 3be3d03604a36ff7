//! From PEM files to rustls's configuration.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::certificates::Certificates;

/// What TLS of a listener is made of.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and behind it those that lead to the root. For clients that ask for no name, or for one that none of `names` has.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificates for clients that ask for their name (SNI).
    pub names: Vec<NamedCertificate>,
    pub clients: Clients,
}

#[derive(Debug, Clone)]
pub struct NamedCertificate {
    /// A host name; `*.` at its beginning stands for one label.
    pub name: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Which certificates clients show. The path is of the authorities that they must be of.
#[derive(Debug, Clone)]
pub enum Clients {
    /// They are asked for none.
    Unasked,
    /// They may show one; a bad one ends the handshake.
    Optional(PathBuf),
    /// Without one there is no connection.
    Required(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the certificates in {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: pem::Error },
    #[error("{} has no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has no private key in PEM form: {error}", path.display())]
    NoKey { path: PathBuf, error: pem::Error },
    #[error("{} has a certificate that is no CA's: {error}", path.display())]
    NoAuthority { path: PathBuf, error: rustls::Error },
    #[error("the authorities in {} cannot be used: {error}", path.display())]
    Authorities {
        path: PathBuf,
        error: VerifierBuilderError,
    },
    #[error(
        "the certificate in {} and the key in {} can not be used together: {error}", certificate.display(), key.display()
    )]
    Mismatch {
        certificate: PathBuf,
        key: PathBuf,
        error: rustls::Error,
    },
    #[error("'{0}' is no host name that clients can ask for: a name, or *. and a name")]
    Name(String),
    #[error("the certificate in {} is not for {name}: {error}", certificate.display())]
    OtherName {
        name: String,
        certificate: PathBuf,
        error: rustls::Error,
    },
    #[error("two certificates are for {0}: leave one out")]
    Twice(String),
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Changes when a file was written anew, or another one is in its place; also when its mode or owner was changed, or it was written by
/// who keeps the time of change.
pub(super) type Stamp = Vec<Option<(SystemTime, (i64, i64), u64, u64)>>;

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let authorities = match &self.clients {
            Clients::Unasked => None,
            Clients::Optional(path) | Clients::Required(path) => Some(path),
        };
        let named = self.names.iter();
        [&self.certificate, &self.key]
            .into_iter()
            .chain(authorities)
            .chain(named.flat_map(|named| [&named.certificate, &named.key]))
    }

    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            let modified = metadata.modified().ok()?;
            Some((modified, changed, metadata.len(), metadata.ino()))
        };
        self.paths().map(stamp).collect()
    }

    pub(super) fn load(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let default = certified(&self.certificate, &self.key, &provider)?;
        let mut certificates = Certificates::new(default);
        for named in &self.names {
            let key = certified(&named.certificate, &named.key, &provider)?;
            certificates.add(named, key)?;
        }
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.clients {
            Clients::Unasked => builder.with_no_client_auth(),
            Clients::Optional(path) | Clients::Required(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(authorities(path)?),
                    provider,
                );
                let verifier = match &self.clients {
                    Clients::Optional(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier = verifier.build().map_err(|error| TlsError::Authorities {
                    path: path.clone(),
                    error,
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        match &self.clients {
            // Resumption costs the server no memory: the client keeps the session, sealed.
            Clients::Unasked => config.ticketer = Ticketer::new()?,
            // A resumed session is not verified again: an authority that was taken away, or a certificate that has expired, would go on.
            Clients::Optional(_) | Clients::Required(_) => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        Ok(config)
    }
}

fn certified(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::NoKey {
        path: key.to_owned(),
        error,
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| TlsError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        error,
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::NoAuthority {
                path: path.to_owned(),
                error,
            })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| TlsError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect();
    let certificates = certificates.map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}
