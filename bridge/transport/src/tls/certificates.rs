//! Which certificate a client is shown: by the name it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{NamedCertificate, TlsError};

#[derive(Debug)]
pub(super) struct Certificates {
    default: Arc<CertifiedKey>,
    /// By the name in lower case, or what follows the `*.` of it.
    exact: HashMap<String, Arc<CertifiedKey>>,
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    pub(super) fn new(default: CertifiedKey) -> Certificates {
        Certificates {
            default: Arc::new(default),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }

    /// The certificate has to be for that name: a client would refuse it otherwise, and its log would be the first to say so.
    pub(super) fn add(
        &mut self,
        named: &NamedCertificate,
        key: CertifiedKey,
    ) -> Result<(), TlsError> {
        let name = named.name.to_ascii_lowercase();
        let (names, name, asked) = match name.strip_prefix("*.") {
            Some(parent) => (
                &mut self.wildcard,
                parent.to_owned(),
                format!("any.{parent}"),
            ),
            None => (&mut self.exact, name.clone(), name),
        };
        let asked = match ServerName::try_from(asked) {
            Ok(asked @ ServerName::DnsName(_)) => asked,
            _ => return Err(TlsError::Name(named.name.clone())),
        };
        key.end_entity_cert()
            .and_then(ParsedCertificate::try_from)
            .and_then(|certificate| verify_server_name(&certificate, &asked))
            .map_err(|error| TlsError::OtherName {
                name: named.name.clone(),
                certificate: named.certificate.clone(),
                error,
            })?;
        if names.insert(name, Arc::new(key)).is_some() {
            return Err(TlsError::Twice(named.name.clone()));
        }
        Ok(())
    }

    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(&name).or_else(|| self.wildcard.get(parent?))
        });
        found.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()).clone())
    }
}
