//! What a listener's connections go through before their protocol begins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::proxy::{self, ProxyError};
use crate::websocket::{self, UpgradeError};
use crate::{Certificate, Offer, Peer, Stream, Tls, WebSocket};

/// In their order on the wire. None of them: plain TCP.
#[derive(Clone, Default)]
pub struct Layers {
    /// A balancer in front says who the client is. Who reaches such a listener can say to be anybody: only the balancer may.
    pub proxy: bool,
    pub tls: Option<Arc<Tls>>,
    pub websocket: Option<Offer>,
}

/// A connection whose protocol can begin.
pub struct Accepted {
    pub stream: Stream,
    pub peer: Peer,
    /// The address that the client connected to: the balancer's, where one says it.
    pub local: SocketAddr,
}

/// A connection that came to nothing, and whose it was to be: as far as a balancer had said it.
#[derive(Debug)]
pub struct Failed {
    pub peer: Peer,
    pub error: HandshakeError,
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("{0}")]
    Proxy(#[from] ProxyError),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    WebSocket(#[from] UpgradeError),
    #[error("QUIC: {0}")]
    Quic(io::Error),
    #[error("no connection was made within {0:?}")]
    Late(Duration),
}

impl HandshakeError {
    /// Where it failed: `proxy`, `tls`, `websocket`, `quic`, `late`.
    pub fn layer(&self) -> &'static str {
        match self {
            HandshakeError::Proxy(_) => "proxy",
            HandshakeError::Tls(_) => "tls",
            HandshakeError::WebSocket(_) => "websocket",
            HandshakeError::Quic(_) => "quic",
            HandshakeError::Late(_) => "late",
        }
    }

    /// The client went away before it was through, as one does that only looks whether somebody listens.
    pub fn is_departure(&self) -> bool {
        let error = match self {
            HandshakeError::Proxy(ProxyError::Io(error))
            | HandshakeError::Tls(error)
            | HandshakeError::WebSocket(UpgradeError::Io(error)) => error,
            _ => return false,
        };
        matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        )
    }
}

impl Layers {
    /// Whether [`Layers::accept`] would neither wait nor change anything.
    pub fn is_plain(&self) -> bool {
        !self.proxy && self.tls.is_none() && self.websocket.is_none()
    }

    /// Goes through all layers with a connection from `from` to `local`. To be called off the loop that accepts; may be dropped at any
    /// time. `within` is for all of it together.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
        mut local: SocketAddr,
        within: Duration,
    ) -> Result<Accepted, Failed> {
        let mut peer = Peer::at(from);
        match self.pass(tcp, &mut peer, &mut local, within).await {
            Ok(stream) => Ok(Accepted {
                stream,
                peer,
                local,
            }),
            Err(error) => Err(Failed { peer, error }),
        }
    }

    async fn pass(
        &self,
        mut tcp: TcpStream,
        peer: &mut Peer,
        local: &mut SocketAddr,
        within: Duration,
    ) -> Result<Stream, HandshakeError> {
        let until = Instant::now() + within;
        let late = |_| HandshakeError::Late(within);
        if self.proxy {
            let said = timeout_at(until, proxy::read(&mut tcp)).await;
            if let Some(way) = said.map_err(late)?? {
                *peer = Peer::at(way.client);
                *local = way.local;
            }
        }
        Ok(match (&self.tls, &self.websocket) {
            (None, None) => Stream::Tcp(tcp),
            (None, Some(offer)) => Stream::WebSocket(upgrade(tcp, offer, until, within).await?),
            (Some(tls), over) => {
                let accepting = TlsAcceptor::from(tls.config()).accept(tcp);
                let stream = timeout_at(until, accepting).await.map_err(late)?;
                let stream = stream.map_err(HandshakeError::Tls)?;
                (peer.certificate, peer.server_name) = shown(&stream);
                match over {
                    None => Stream::Tls(Box::new(stream)),
                    Some(offer) => {
                        Stream::WebSocketTls(upgrade(stream, offer, until, within).await?)
                    }
                }
            }
        })
    }
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    offer: &Offer,
    until: Instant,
    within: Duration,
) -> Result<Box<WebSocket<S>>, HandshakeError> {
    let upgraded = timeout_at(until, websocket::accept(stream, offer)).await;
    Ok(Box::new(
        upgraded.map_err(|_| HandshakeError::Late(within))??,
    ))
}

/// The client's certificate, and the name it asked for.
fn shown(stream: &TlsStream<TcpStream>) -> (Option<Arc<Certificate>>, Option<Arc<str>>) {
    let (_, session) = stream.get_ref();
    let first = session.peer_certificates().and_then(<[_]>::first);
    (
        first.and_then(Certificate::read).map(Arc::new),
        session.server_name().map(Arc::from),
    )
}
