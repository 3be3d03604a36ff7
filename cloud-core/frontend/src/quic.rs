//! QUIC under a front end: the first bidirectional stream that a client opens carries the bytes that a TCP connection would carry. The
//! only place of the core's clients that names quinn (edges come by `sync-quic`).

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, TransportConfig, VarInt};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use transport::{Accepted, Certificate, Failed, HandshakeError, Peer, Stream, Tls};

use crate::limits;
use crate::serve::Service;

/// Says on a stream that it is one too many: a connection of ours is one stream.
const ONE_STREAM_ONLY: VarInt = VarInt::from_u32(1);

/// A bound UDP socket that takes QUIC connections.
pub struct QuicListener {
    endpoint: Endpoint,
    tls: Arc<Tls>,
    /// From the configuration on that the endpoint was bound with.
    changes: watch::Receiver<Arc<ServerConfig>>,
    alpn: &'static [u8],
}

/// Why QUIC is not listened for.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("the certificate cannot be used with QUIC: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

impl QuicListener {
    /// Binds inside a tokio runtime. `alpn` names the protocol that clients must ask for.
    pub fn bind(
        address: SocketAddr,
        tls: Arc<Tls>,
        alpn: &'static [u8],
    ) -> Result<QuicListener, QuicError> {
        let mut changes = tls.changes();
        let config = server_config(&changes.borrow_and_update().clone(), alpn)?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config),
            bind_udp(address)?,
            Arc::new(quinn::TokioRuntime),
        )?;
        Ok(QuicListener {
            endpoint,
            tls,
            changes,
            alpn,
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn server_config(
    tls: &ServerConfig,
    alpn: &[u8],
) -> Result<quinn::ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut transport = TransportConfig::default();
    let idle =
        IdleTimeout::try_from(limits::QUIC_IDLE).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
    transport
        .max_concurrent_bidi_streams(limits::QUIC_STREAMS.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits::QUIC_KEEP_ALIVE))
        .stream_receive_window(limits::QUIC_WINDOW.into())
        .receive_window(limits::QUIC_WINDOW.into())
        .send_window(u64::from(limits::QUIC_WINDOW))
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(limits::QUIC_HANDSHAKES)
        .incoming_buffer_size_total(limits::QUIC_INCOMING_BYTES);
    Ok(config)
}

/// The accept loop of one listener: see [`crate::serve`].
pub(crate) async fn accept<F, Fut>(service: Arc<Service<F>>, listener: QuicListener)
where
    F: Fn(crate::Connection) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let QuicListener {
        endpoint,
        // Held: so there is always somebody who could change it.
        tls: _tls,
        mut changes,
        alpn,
    } = listener;
    let slots = Arc::new(Semaphore::new(service.ctx.limits.connections_per_listener));
    let handshakes = Arc::new(Semaphore::new(limits::QUIC_HANDSHAKES));
    let unasked = limits::QUIC_HANDSHAKES - limits::QUIC_UNVALIDATED;
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            () = service.ctx.shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                service.reap(ended);
                continue;
            }
            Ok(()) = changes.changed() => {
                let config = changes.borrow_and_update().clone();
                match server_config(&config, alpn) {
                    Ok(config) => endpoint.set_server_config(Some(config)),
                    Err(error) => tracing::error!(%error, "QUIC goes on with the certificate from before"),
                }
                continue;
            }
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let from = incoming.remote_address();
        // Under load a client has to show first that it is where it says (RFC 9000, 8.1.2).
        if handshakes.available_permits() < unasked && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(peer = %from, %error, "no retry");
            }
            continue;
        }
        let Ok(handshake) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let Some(open) = service.admit(&slots, from) else {
            incoming.refuse();
            continue;
        };
        let (service, port) = (
            service.clone(),
            endpoint.local_addr().map_or(0, |a| a.port()),
        );
        connections.spawn(async move {
            let _open = open;
            let limit = service.ctx.limits.handshake;
            let making = timeout(limit, establish(incoming, handshake, port));
            let made = match service.ctx.shutdown.run_until_cancelled(making).await {
                None => return,
                Some(Ok(made)) => made.map_err(|error| HandshakeError::Quic(error.into())),
                Some(Err(_)) => Err(HandshakeError::Late(limit)),
            };
            match made {
                Ok((connection, accepted)) => {
                    tokio::select! {
                        () = service.serve(accepted) => {}
                        () = refuse_more(&connection) => {}
                    }
                    // The client closes when it has read the end; what was said last would be lost if we did.
                    let _ = timeout(limits::QUIC_LAST_WORDS, connection.closed()).await;
                    connection.close(VarInt::from_u32(0), b"");
                }
                Err(error) => {
                    let peer = Peer::at(from);
                    service.handshake_failed(&Failed { peer, error });
                }
            }
        });
    }
    service.drain(connections).await;
    endpoint.close(VarInt::from_u32(0), b"shutting down");
    // Who does not hear it finds out by its idle timeout.
    let _ = timeout(limits::QUIC_LAST_WORDS, endpoint.wait_idle()).await;
}

async fn establish(
    incoming: Incoming,
    handshake: OwnedSemaphorePermit,
    port: u16,
) -> Result<(Connection, Accepted), quinn::ConnectionError> {
    let local = incoming.local_ip();
    let connection = incoming.accept()?.await?;
    drop(handshake);
    let (send, receive) = connection.accept_bi().await?;
    let from = connection.remote_address();
    let local = local.unwrap_or(match from {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    });
    let shown = connection
        .peer_identity()
        .and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let asked = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok());
    let peer = Peer {
        certificate: shown
            .and_then(|chain| Certificate::read(chain.first()?))
            .map(Arc::new),
        server_name: asked.and_then(|data| data.server_name).map(Arc::from),
        ..Peer::at(from)
    };
    let stream = Stream::Other(Box::new(tokio::io::join(receive, send)));
    let local = SocketAddr::new(local, port);
    Ok((
        connection,
        Accepted {
            stream,
            peer,
            local,
        },
    ))
}

/// Resets every further stream, for as long as there is a connection; never ends.
async fn refuse_more(connection: &Connection) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        // The client may have reset it before.
        let _ = send.reset(ONE_STREAM_ONLY);
        let _ = receive.stop(ONE_STREAM_ONLY);
    }
    std::future::pending().await
}
