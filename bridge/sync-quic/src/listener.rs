//! The core's side: from a bound socket to an edge that has said hello, or that wants to be enrolled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sync::{
    CloseCode, EnrolGrant, EnrolRefusal, EnrolRequest, Frame, FrameReader, Hello, HelloRefused,
    Welcome, limits,
};

use crate::Timing;
use crate::edge::{EdgeConnection, WelcomeEdge};
use crate::tls::core_config;
use crate::wire::{read_frame, transport, write_frame};

/// Handshakes at once above which a client must prove its address first (RFC 9000, 8.1.2).
const UNVALIDATED_HANDSHAKES: usize = 64;
/// Handshakes at once above which new ones are refused.
const MAX_HANDSHAKES: usize = 1024;
/// Bytes of datagrams held for connections that are not accepted yet.
const INCOMING_BUFFER: u64 = 8 * 1024 * 1024;
/// How long a refusal may take to arrive before the connection is closed over it.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// The core's certificate as DER.
pub struct CoreIdentity {
    /// The core's certificate (for [`crate::CORE_NAME`]), then the authority: enrolling edges look for it in the chain.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key: Vec<u8>,
    /// The authority that signs the edges' certificates.
    pub ca: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("the core's certificate cannot be used: {0}")]
    Identity(#[from] rustls::Error),
    #[error("cannot listen on udp {address}: {error}")]
    Socket {
        address: SocketAddr,
        error: std::io::Error,
    },
}

/// A bound UDP socket. Cheap to clone.
#[derive(Clone)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    timing: Timing,
    handshakes: Arc<AtomicUsize>,
}

impl Listener {
    /// Binds inside a tokio runtime.
    pub fn bind(
        address: SocketAddr,
        identity: CoreIdentity,
        timing: Timing,
    ) -> Result<Listener, BindError> {
        let chain = identity
            .chain
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key));
        let mut config = core_config(chain, key, CertificateDer::from(identity.ca))?;
        config
            .transport_config(transport(
                &timing,
                1,
                (limits::MAX_LANES + limits::MAX_QUERIES) as u32,
            ))
            .max_incoming(MAX_HANDSHAKES)
            .incoming_buffer_size_total(INCOMING_BUFFER);
        let endpoint = quinn::Endpoint::server(config, address)
            .map_err(|error| BindError::Socket { address, error })?;
        Ok(Listener {
            endpoint,
            timing,
            handshakes: Arc::default(),
        })
    }

    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next client, before any cryptography; `None` after [`Listener::close`]. Cancel-safe.
    pub async fn accept(&self) -> Option<Pending> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let waiting = self.handshakes.load(Ordering::Relaxed);
            if waiting >= MAX_HANDSHAKES {
                incoming.refuse();
                continue;
            }
            if waiting >= UNVALIDATED_HANDSHAKES
                && !incoming.remote_address_validated()
                && incoming.may_retry()
            {
                if incoming.retry().is_err() {
                    tracing::debug!("a client could not be asked to prove its address");
                }
                continue;
            }
            self.handshakes.fetch_add(1, Ordering::Relaxed);
            return Some(Pending {
                incoming,
                timing: self.timing,
                _counted: Counted(self.handshakes.clone()),
            });
        }
    }

    /// Closes every connection and takes no more; returns when the peers know, or after the idle timeout.
    pub async fn close(&self) {
        self.endpoint
            .close(CloseCode::ShuttingDown.to_wire().into(), b"");
        self.endpoint.wait_idle().await;
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client that has sent its first datagram.
pub struct Pending {
    incoming: quinn::Incoming,
    timing: Timing,
    _counted: Counted,
}

/// Why a client did not get as far as a hello or an enrolment request.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("handshake with {remote}: {reason}")]
    Handshake { remote: SocketAddr, reason: String },
    #[error("{remote} showed no client certificate")]
    NoCertificate { remote: SocketAddr },
    #[error("{remote} broke the protocol: {reason}")]
    Protocol { remote: SocketAddr, reason: String },
    #[error("{remote} did not say what it wants within {limit:?}")]
    TooSlow {
        remote: SocketAddr,
        limit: std::time::Duration,
    },
}

/// What a client wants.
pub enum Accepted {
    Edge(EdgeHandshake),
    Enrol(EnrolHandshake),
}

impl Pending {
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Handshake and first frame, within `timing.handshake`. To be called in a task of its own.
    pub async fn establish(self) -> Result<Accepted, AcceptError> {
        let (remote, limit) = (self.remote(), self.timing.handshake);
        match tokio::time::timeout(limit, self.handshake(remote)).await {
            Ok(result) => result,
            Err(_) => Err(AcceptError::TooSlow { remote, limit }),
        }
    }

    async fn handshake(self, remote: SocketAddr) -> Result<Accepted, AcceptError> {
        let handshake = |error: quinn::ConnectionError| AcceptError::Handshake {
            remote,
            reason: error.to_string(),
        };
        let quic = self.incoming.await.map_err(handshake)?;
        // Dropping the last handle closes with code 0; from here every end has its own code.
        let protocol = |reason: String| {
            quic.close(CloseCode::Protocol.to_wire().into(), reason.as_bytes());
            AcceptError::Protocol { remote, reason }
        };
        let alpn = quic
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| data.protocol)
            .unwrap_or_default();
        let enrol = alpn == sync::ALPN_ENROL;
        let certificate = quic
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|chain| chain.first().map(|leaf| leaf.to_vec()));
        if !enrol && certificate.is_none() {
            quic.close(
                CloseCode::NoCertificate.to_wire().into(),
                b"show the certificate of an enrolment",
            );
            return Err(AcceptError::NoCertificate { remote });
        }
        let (send, mut recv) = quic.accept_bi().await.map_err(handshake)?;
        let limit = if enrol {
            limits::MAX_ENROL_FRAME
        } else {
            limits::MAX_CONTROL_FRAME
        };
        let mut reader = FrameReader::new(limit);
        let first = read_frame(&mut recv, &mut reader)
            .await
            .map_err(|error| protocol(error.to_string()))?;
        match (first, certificate) {
            (Some(Frame::EnrolRequest(request)), _) if enrol => {
                Ok(Accepted::Enrol(EnrolHandshake {
                    quic,
                    send,
                    request,
                    remote,
                }))
            }
            (Some(Frame::Hello(hello)), Some(certificate)) if !enrol => {
                Ok(Accepted::Edge(EdgeHandshake {
                    quic,
                    send,
                    recv,
                    reader,
                    certificate,
                    hello,
                    remote,
                }))
            }
            _ => Err(protocol(
                "the first frame is not the one that belongs there".to_owned(),
            )),
        }
    }
}

/// An edge whose certificate is signed by the authority, and that has said hello. Whether it may stay is the caller's to say.
pub struct EdgeHandshake {
    quic: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    reader: FrameReader,
    /// The edge's certificate, DER; the chain is verified, its name and whether it was replaced are not.
    pub certificate: Vec<u8>,
    pub hello: Hello,
    pub remote: SocketAddr,
}

impl EdgeHandshake {
    /// Lets the edge in. Fails when it has gone meanwhile.
    pub async fn welcome(mut self, welcome: Welcome) -> Result<WelcomeEdge, AcceptError> {
        write_frame(&mut self.send, &Frame::Welcome(welcome))
            .await
            .map_err(|error| AcceptError::Handshake {
                remote: self.remote,
                reason: error.to_string(),
            })?;
        Ok(EdgeConnection::start(
            self.quic,
            self.send,
            self.recv,
            self.reader,
            self.remote,
        ))
    }

    /// Sends the edge away, saying why.
    pub async fn refuse(mut self, refused: HelloRefused) {
        say_and_close(&self.quic, &mut self.send, Frame::HelloRefused(refused)).await;
    }
}

/// A client with a token.
pub struct EnrolHandshake {
    quic: quinn::Connection,
    send: quinn::SendStream,
    pub request: EnrolRequest,
    pub remote: SocketAddr,
}

impl EnrolHandshake {
    pub async fn grant(mut self, grant: EnrolGrant) {
        say_and_close(&self.quic, &mut self.send, Frame::EnrolGrant(grant)).await;
    }

    pub async fn refuse(mut self, code: EnrolRefusal, reason: &str) {
        let frame = Frame::EnrolRefused {
            code,
            reason: reason.to_owned(),
        };
        say_and_close(&self.quic, &mut self.send, frame).await;
    }
}

/// A close discards what is not delivered yet, so it waits until the peer has the last frame, within reason.
pub(crate) async fn say_and_close(
    quic: &quinn::Connection,
    send: &mut quinn::SendStream,
    frame: Frame,
) {
    if write_frame(send, &frame).await.is_ok() && send.finish().is_ok() {
        // Any of: delivered, stopped by the peer, connection gone, too late. The close is right after all of them.
        let _ = tokio::time::timeout(LINGER, send.stopped()).await;
    }
    quic.close(CloseCode::Refused.to_wire().into(), b"");
}
