//! TLS for devices: certificate and key from files that are read again when they change, or on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::limits;

#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and behind it those that lead to the root.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whose certificates clients must have. `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

pub struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

/// Changes when a file was written anew: its times and lengths.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key]
            .into_iter()
            .chain(&self.client_ca)
    }

    fn stamp(&self) -> Stamp {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.paths().map(stamp).collect()
    }

    fn load(&self) -> Result<ServerConfig> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("{} has no private key in PEM form", self.key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).with_context(|| {
                        format!("{} has a certificate that is no CA's", path.display())
                    })?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        builder.with_single_cert(chain, key).with_context(|| {
            let (certificate, key) = (self.certificate.display(), self.key.display());
            format!(
                "the certificate in {certificate} and the key in {key} can not be used together"
            )
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = || format!("cannot read the certificates in {}", path.display());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .with_context(unreadable)?
        .collect();
    let certificates = certificates.with_context(unreadable)?;
    if certificates.is_empty() {
        bail!("{} has no certificate in PEM form", path.display());
    }
    Ok(certificates)
}

impl Tls {
    pub fn open(files: TlsFiles) -> Result<Arc<Tls>> {
        let config = RwLock::new(Arc::new(files.load()?));
        Ok(Arc::new(Tls { files, config }))
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.read().clone()
    }

    /// Reads the files again. What is wrong with them is logged, and what was read before stays in force.
    fn reload(&self) {
        match self.files.load() {
            Ok(config) => {
                *self.config.write() = Arc::new(config);
                tracing::info!("the TLS certificate was read again");
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the TLS files can not be read again: the certificate from before stays in use"
                );
            }
        }
    }

    /// Looks after the files until `shutdown`.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) -> Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut looks = tokio::time::interval(limits::TLS_LOOK);
        let mut stamp = self.files.stamp();
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = looks.tick() => false,
                () = shutdown.cancelled() => return Ok(()),
            };
            let now = self.files.stamp();
            if asked || now != stamp {
                stamp = now;
                let tls = self.clone();
                tokio::task::spawn_blocking(move || tls.reload()).await?;
            }
        }
    }
}

/// The common name in a certificate that TLS has verified.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    Some(name.as_str().ok()?.into())
}
