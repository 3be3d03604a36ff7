//! Who trusts whom: rustls configurations of the three roles.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::congestion::Memory;
use crate::token::fingerprint;
use crate::{Identity, IdentityError};

/// Tickets that an edge keeps; each is used once.
const TICKETS: usize = 8;
/// Sessions that the core keeps for edges that come back, in memory (about 1 KB each). A session is taken out when it is used,
/// so that early data that somebody has recorded is never taken twice.
const SESSIONS: usize = 16 * 1024;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: CertificateDer<'static>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca)?;
    Ok(Arc::new(roots))
}

/// What a certificate is checked against, in seconds since 1970.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock, believed as it is.
pub fn system_now() -> Now {
    Arc::new(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    })
}

struct Clock(Now);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            (self.0)(),
        )))
    }
}

/// A client's settings for both transports, and what one connection leaves to the next. Kept as long as its tickets are to be of use.
#[derive(Clone)]
pub(crate) struct ClientTls {
    /// Takes a ticket where there is one.
    pub(crate) quic: Arc<QuicClientConfig>,
    /// Leaves the tickets alone: a full handshake, after which there is one more.
    pub(crate) quic_anew: Arc<QuicClientConfig>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) link: Memory,
}

impl ClientTls {
    fn new(mut config: ClientConfig, alpn: &[u8]) -> Result<ClientTls, rustls::Error> {
        config.alpn_protocols = vec![alpn.to_vec()];
        // A ticket belongs to its transport: QUIC's hold the peer's transport parameters too. They live in memory: rustls gives
        // no way to write them down, so the first connection of a process takes a full handshake.
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        let mut quic_config = config.clone();
        let tickets = Arc::new(ClientSessionMemoryCache::new(TICKETS));
        quic_config.resumption = Resumption::store(tickets.clone());
        quic_config.enable_early_data = true;
        let mut anew = quic_config.clone();
        anew.resumption = Resumption::store(Arc::new(OnlyKept(tickets)));
        let quic = |config: ClientConfig| {
            QuicClientConfig::try_from(config)
                .map(Arc::new)
                .map_err(|error| rustls::Error::General(error.to_string()))
        };
        Ok(ClientTls {
            quic: quic(quic_config)?,
            quic_anew: quic(anew)?,
            tls: Arc::new(config),
            link: Memory::default(),
        })
    }
}

/// Keeps tickets and gives none away.
#[derive(Debug)]
struct OnlyKept(Arc<ClientSessionMemoryCache>);

impl ClientSessionStore for OnlyKept {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(server)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

/// An edge that has its identity: only its core's authority is trusted, and the edge shows its certificate.
pub(crate) fn edge_config(identity: &Identity, now: Now) -> Result<ClientTls, IdentityError> {
    let config = ClientConfig::builder_with_details(provider(), Arc::new(Clock(now)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(identity.ca()?)?)
        .with_client_auth_cert(vec![identity.certificate()?], identity.key()?)?;
    Ok(ClientTls::new(config, sync::ALPN_SYNC)?)
}

/// An edge that has only a token: the core must show a chain to the authority whose fingerprint is in the token.
pub(crate) fn enrol_config(ca_fingerprint: [u8; 32], now: Now) -> Result<ClientTls, rustls::Error> {
    let provider = provider();
    let verifier = Arc::new(PinnedAuthority {
        ca_fingerprint,
        provider: provider.clone(),
    });
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock(now)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    ClientTls::new(config, sync::ALPN_ENROL)
}

/// The core: it shows its chain, and checks a client's certificate when one is shown. Whether one has to be shown depends on the
/// ALPN, and is decided right after the handshake.
pub(crate) fn core_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    ca: CertificateDer<'static>,
) -> Result<CoreTls, rustls::Error> {
    let provider = provider();
    let clients = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![sync::ALPN_SYNC.to_vec(), sync::ALPN_ENROL.to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.send_tls13_tickets = 1;
    let mut quic = config.clone();
    quic.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    // Early data: see `dial::attempt_quic` for what an edge sends in it.
    quic.max_early_data_size = u32::MAX;
    let quic = QuicServerConfig::try_from(quic)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(CoreTls {
        quic: Arc::new(quic),
        tls: Arc::new(config),
    })
}

/// The core's settings for both transports.
pub(crate) struct CoreTls {
    pub(crate) quic: Arc<QuicServerConfig>,
    pub(crate) tls: Arc<ServerConfig>,
}

/// Finds the pinned authority in the chain that is shown, and then verifies as usual with it as the only root: chain, name,
/// validity and the handshake's signature.
#[derive(Debug)]
struct PinnedAuthority {
    ca_fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(ca) = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.ca_fingerprint)
        else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        WebPkiServerVerifier::builder_with_provider(
            roots(ca.clone().into_owned())?,
            self.provider.clone(),
        )
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?
        .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
