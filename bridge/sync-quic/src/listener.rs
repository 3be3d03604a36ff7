//! The core's side: from bound sockets to an edge that has said hello, or that wants to be enrolled.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sync::{
    CloseCode, EnrolGrant, EnrolRefusal, EnrolRequest, Frame, FrameReader, Hello, HelloRefused,
    Welcome, limits,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::Timing;
use crate::away::Away;
use crate::carrier::{Carrier, CloseOnDrop, Closed, RecvPipe, SendPipe};
use crate::dial::tune;
use crate::door::{AtTheDoor, Door, Handshakes, Inside};
use crate::edge::{EdgeConnection, WelcomeEdge};
use crate::mux::{Mux, Peer};
use crate::quic;
use crate::tls::core_config;
use crate::wire::{read_frame, say_and_close, write_frame};

/// Handshakes in progress and clients that wait for theirs above which a client must prove its address first (RFC 9000, 8.1.2). Where it has to
/// wait, always: it hears at once that somebody is there, and does not ask again from another socket.
const UNVALIDATED_HANDSHAKES: usize = 64;
/// Clients that QUIC knows besides those that wait: between their first datagram and their answer.
const ARRIVING: usize = 1024;
/// Bytes of datagrams held for connections that are not accepted yet.
const INCOMING_BUFFER: u64 = 8 * 1024 * 1024;
/// Connections that the kernel holds before they are accepted.
const BACKLOG: u32 = 1024;
/// Tries to find a port that is free for UDP and TCP, where the system chooses it.
const PORT_TRIES: usize = 16;
/// Time for what is said at the end of connections to leave. QUIC itself would keep each closed connection for three times its probe timeout
/// (RFC 9000, 10.2), which is many seconds where the edge is far away or its handshake was not over, only to answer what comes late with the
/// same words again. After a restart a stateless reset does that.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(1);
/// Pause after an error of `accept` (no file descriptors left): the next one would fail as well.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a core proves itself with.
pub struct CoreIdentity {
    /// The core's certificate (for [`crate::CORE_NAME`]), then the authority: enrolling edges look for it in the chain.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key: Vec<u8>,
    /// The authority that signs the edges' certificates.
    pub ca: Vec<u8>,
    /// Known to nobody else, and the same after a restart: with it the core tells edges at once that their connection to the process
    /// before is gone (a stateless reset, RFC 9000, 10.3), where they would wait for their idle timeout.
    pub reset_secret: [u8; 32],
}

/// Where TLS over TCP is served, beside QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsListen {
    Off,
    /// The address and port of QUIC.
    Same,
    On(SocketAddr),
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("the core's certificate cannot be used: {0}")]
    Identity(#[from] rustls::Error),
    #[error("cannot listen on {protocol} {address}: {error}")]
    Socket {
        protocol: &'static str,
        address: SocketAddr,
        error: std::io::Error,
    },
}

/// Bound sockets. Cheap to clone.
#[derive(Clone)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    tcp: Option<Arc<TcpListener>>,
    acceptor: TlsAcceptor,
    timing: Timing,
    door: Arc<Door<Client>>,
    away: Away,
    closing: Arc<watch::Sender<bool>>,
}

impl Listener {
    /// Binds inside a tokio runtime.
    pub fn bind(
        address: SocketAddr,
        tls: TlsListen,
        identity: CoreIdentity,
        timing: Timing,
        handshakes: Handshakes,
    ) -> Result<Listener, BindError> {
        let chain = identity
            .chain
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key));
        let settings = core_config(chain, key, CertificateDer::from(identity.ca))?;
        let mut config = quinn::ServerConfig::with_crypto(settings.quic);
        config
            .transport_config(quic::core_transport(
                &timing,
                (limits::MAX_LANES + limits::MAX_QUERIES) as u32,
            ))
            .migration(true)
            .max_incoming(handshakes.waiting + ARRIVING)
            .incoming_buffer_size_total(INCOMING_BUFFER);
        let (udp, tcp) = bind_both(address, tls)?;
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.reset_secret);
        let mut endpoint = quinn::EndpointConfig::new(Arc::new(reset_key));
        endpoint.cid_generator(|| Box::new(quic::PlainIds));
        let endpoint =
            quinn::Endpoint::new(endpoint, Some(config), udp, Arc::new(quinn::TokioRuntime))
                .map_err(|error| BindError::Socket {
                    protocol: "udp",
                    address,
                    error,
                })?;
        Ok(Listener {
            endpoint,
            tcp: tcp.map(Arc::new),
            acceptor: TlsAcceptor::from(settings.tls),
            timing,
            door: Door::new(handshakes),
            away: Away::default(),
            closing: Arc::new(watch::Sender::new(false)),
        })
    }

    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Where TLS is served; `None` = it is off.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Who is being let in, and who waits for that.
    pub fn at_the_door(&self) -> AtTheDoor {
        self.door.seen()
    }

    /// The next client, before any cryptography, as soon as it may begin; `None` after [`Listener::close`]. Cancel-safe.
    pub async fn accept(&self) -> Option<Pending> {
        loop {
            tokio::select! {
                arrived = self.arrive() => self.receive(arrived?),
                (client, inside) = self.door.next(|client| self.refuse(client)) => {
                    return Some(Pending {
                        client,
                        acceptor: self.acceptor.clone(),
                        closing: self.closing.subscribe(),
                        timing: self.timing,
                        _inside: inside,
                    });
                }
            }
        }
    }

    /// Whoever comes next.
    async fn arrive(&self) -> Option<Client> {
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => return incoming.map(|one| Client::Quic(Box::new(one))),
                accepted = accept_tcp(self.tcp.as_deref()) => match accepted {
                    Ok((stream, remote)) => return Some(Client::Tls(stream, remote)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Has a client wait for its turn, or prove first that its address is its own, or sends it away. None of that costs much.
    fn receive(&self, client: Client) {
        let seen = self.door.seen();
        let is_busy = seen.in_progress + seen.waiting >= UNVALIDATED_HANDSHAKES;
        let client = match client {
            Client::Quic(incoming)
                if (is_busy || self.door.is_to_wait())
                    && !self.door.is_full()
                    && !incoming.remote_address_validated()
                    && incoming.may_retry() =>
            {
                if incoming.retry().is_err() {
                    tracing::debug!("a client could not be asked to prove its address");
                }
                return;
            }
            client => client,
        };
        if let Err(client) = self.door.wait(client) {
            self.refuse(client);
        }
    }

    /// Sends a client away, which says so over QUIC and over TLS.
    fn refuse(&self, client: Client) {
        match client {
            Client::Quic(incoming) => incoming.refuse(),
            Client::Tls(stream, _) => self.away.send(stream),
        }
    }

    /// Closes every connection and takes no more; returns when the peers over QUIC have been told.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        self.endpoint
            .close(CloseCode::ShuttingDown.to_wire().into(), b"");
        // An error: some connections are still kept, though nobody needs them.
        let _ = tokio::time::timeout(CLOSING, self.endpoint.wait_idle()).await;
    }
}

/// UDP, and TCP where it is wanted. Where the system chooses the port, both get the same.
fn bind_both(
    address: SocketAddr,
    tls: TlsListen,
) -> Result<(std::net::UdpSocket, Option<TcpListener>), BindError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let udp = std::net::UdpSocket::bind(address).and_then(|udp| Ok((udp.local_addr()?, udp)));
        let (bound, udp) = udp.map_err(|error| BindError::Socket {
            protocol: "udp",
            address,
            error,
        })?;
        let tcp = match tls {
            TlsListen::Off => return Ok((udp, None)),
            TlsListen::Same => bound,
            TlsListen::On(address) => address,
        };
        let chosen = tls == TlsListen::Same && address.port() == 0;
        match bind_tcp(tcp) {
            Ok(listener) => return Ok((udp, Some(listener))),
            Err(_) if chosen && tries < PORT_TRIES => {}
            Err(error) => {
                return Err(BindError::Socket {
                    protocol: "tcp",
                    address: tcp,
                    error,
                });
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept_tcp(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

enum Client {
    /// In a box since it is much larger than the other.
    Quic(Box<quinn::Incoming>),
    Tls(TcpStream, SocketAddr),
}

/// A client that has sent its first datagram, or opened a TCP connection.
pub struct Pending {
    client: Client,
    acceptor: TlsAcceptor,
    closing: watch::Receiver<bool>,
    timing: Timing,
    _inside: Inside<Client>,
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
        match &self.client {
            Client::Quic(incoming) => incoming.remote_address(),
            Client::Tls(_, remote) => *remote,
        }
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
        let handshake = |closed: Closed| AcceptError::Handshake {
            remote,
            reason: closed.to_string(),
        };
        let (guard, alpn, early) = match self.client {
            Client::Quic(incoming) => accept_quic(*incoming).await.map_err(handshake)?,
            Client::Tls(stream, remote) => {
                let (guard, alpn) =
                    accept_tls(stream, remote, &self.acceptor, &self.timing, self.closing)
                        .await
                        .map_err(handshake)?;
                (guard, alpn, None)
            }
        };
        let carrier = guard.0.clone();
        let protocol = |reason: String| {
            carrier.close(CloseCode::Protocol, &reason);
            AcceptError::Protocol { remote, reason }
        };
        let enrol = alpn == sync::ALPN_ENROL;
        if !enrol && alpn != sync::ALPN_SYNC {
            return Err(protocol("an application protocol is missing".to_owned()));
        }
        let certificate = carrier.peer_certificate();
        if !enrol && certificate.is_none() {
            carrier.close(
                CloseCode::NoCertificate,
                "show the certificate of an enrolment",
            );
            return Err(AcceptError::NoCertificate { remote });
        }
        let (send, mut recv) = match early {
            Some(control) => control,
            None => carrier.accept_control().await.map_err(handshake)?,
        };
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
                    guard,
                    send,
                    request,
                    remote,
                }))
            }
            (Some(Frame::Hello(hello)), Some(certificate)) if !enrol => {
                Ok(Accepted::Edge(EdgeHandshake {
                    guard,
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

type Control = (SendPipe, RecvPipe);

/// Until the client's certificate is known: that is after the handshake, or with the first datagram where a session is resumed. There
/// the client's first stream may be here before the handshake is over.
async fn accept_quic(
    incoming: quinn::Incoming,
) -> Result<(CloseOnDrop, Vec<u8>, Option<Control>), Closed> {
    let connecting = incoming.accept().map_err(quic::closed)?;
    // Always given to a server.
    let (connection, accepted) = match connecting.into_0rtt() {
        Ok((connection, accepted)) => (connection, Some(accepted)),
        Err(connecting) => (connecting.await.map_err(quic::closed)?, None),
    };
    let guard = CloseOnDrop(Carrier::Quic(connection.clone()));
    let early = match accepted {
        Some(mut accepted) => {
            let early = tokio::select! {
                biased;
                control = guard.0.accept_control() => Some(control?),
                _ = &mut accepted => None,
            };
            if early.is_some() && connection.peer_identity().is_none() {
                accepted.await;
            }
            early
        }
        None => None,
    };
    if let Some(reason) = connection.close_reason() {
        return Err(quic::closed(reason));
    }
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .unwrap_or_default();
    Ok((guard, alpn, early))
}

async fn accept_tls(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: &TlsAcceptor,
    timing: &Timing,
    closing: watch::Receiver<bool>,
) -> Result<(CloseOnDrop, Vec<u8>), Closed> {
    tune(&stream);
    let stream = acceptor
        .accept(stream)
        .await
        .map_err(|error| Closed::Link(error.to_string()))?;
    let (_, session) = stream.get_ref();
    let alpn = session.alpn_protocol().unwrap_or_default().to_vec();
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|leaf| leaf.to_vec());
    let peer = Peer {
        remote,
        certificate,
    };
    let mux = Mux::start(stream, peer, None, timing.idle_timeout, Some(closing));
    Ok((CloseOnDrop(Carrier::Tls(mux)), alpn))
}

/// An edge whose certificate is signed by the authority, and that has said hello. Whether it may stay is the caller's to say.
pub struct EdgeHandshake {
    guard: CloseOnDrop,
    send: SendPipe,
    recv: RecvPipe,
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
            self.guard,
            self.send,
            self.recv,
            self.reader,
            self.remote,
        ))
    }

    /// Sends the edge away, saying why.
    pub async fn refuse(mut self, refused: HelloRefused) {
        say_and_close(&self.guard.0, &mut self.send, Frame::HelloRefused(refused)).await;
    }
}

/// A client with a token.
pub struct EnrolHandshake {
    guard: CloseOnDrop,
    send: SendPipe,
    pub request: EnrolRequest,
    pub remote: SocketAddr,
}

impl EnrolHandshake {
    pub async fn grant(mut self, grant: EnrolGrant) {
        say_and_close(&self.guard.0, &mut self.send, Frame::EnrolGrant(grant)).await;
    }

    pub async fn refuse(mut self, code: EnrolRefusal, reason: &str) {
        let frame = Frame::EnrolRefused {
            code,
            reason: reason.to_owned(),
        };
        say_and_close(&self.guard.0, &mut self.send, frame).await;
    }
}
