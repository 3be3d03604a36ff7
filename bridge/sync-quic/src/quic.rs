//! QUIC's side: settings, endpoints, and its errors in this crate's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};
use sync::CloseCode;

use crate::Timing;
use crate::carrier::Closed;
use crate::congestion::{ByDelivery, Memory};
use crate::signs::{Listening, Sign};

/// Most bytes taken from a QUIC stream at once.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Unread bytes that one stream may hold at the receiver. Above the default so that long links fill: 8 MiB are 250 Mbit/s at
/// 250 ms.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// Unread bytes that one connection may hold at the receiver. Above one stream's, so that a lane that is not read (its batches
/// wait for their commit) never holds up the others.
const CONNECTION_WINDOW: u32 = 24 * 1024 * 1024;
/// Bytes handed to QUIC and not yet acknowledged by the peer's QUIC. Above the window of the lanes: an alarm must never
/// wait here for bulk that was handed over before it; the order on the wire is by stream priority.
const SEND_WINDOW: u64 = 40 * 1024 * 1024;
/// Taken for the round-trip time before it is known: a lost first packet is sent again after three times this. By the edge.
const INITIAL_RTT: Duration = Duration::from_millis(200);
/// By the core, which knows nothing of the link: where a round trip takes longer than three times this, its part of a handshake goes out twice;
/// where it is lost, nothing else brings it back sooner.
const CORE_INITIAL_RTT: Duration = Duration::from_millis(100);
/// Of the round trip that the last connection began with, an edge takes so much where it may be heard, so that it asks again after one and a
/// half of them; and these at the least and at the most. Not in a silence: each packet that is lost there doubles the time to the next, also
/// for what is lost when the link is back.
const OF_KNOWN_RTT: f64 = 0.5;
const LEAST_INITIAL_RTT: Duration = Duration::from_millis(70);
const MOST_INITIAL_RTT: Duration = Duration::from_secs(1);

/// Bytes of a connection id of the core.
const ID_LENGTH: usize = 8;

/// What the core says to whom it has no time for (RFC 9000, 20.1).
const CONNECTION_REFUSED: u64 = 2;
/// TLS alerts are carried as transport errors 0x100 to 0x1ff (RFC 9001, 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// Every way that a QUIC connection ends, in the words of this crate.
pub(crate) fn closed(error: quinn::ConnectionError) -> Closed {
    let code = match &error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            return Closed::ByPeer {
                code: CloseCode::from_wire(code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            };
        }
        quinn::ConnectionError::LocallyClosed => return Closed::ByUs,
        quinn::ConnectionError::TransportError(error) => Some(u64::from(error.code)),
        quinn::ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        _ => None,
    };
    match code {
        Some(CONNECTION_REFUSED) => Closed::Busy(error.to_string()),
        Some(code) if CRYPTO_ERRORS.contains(&code) => Closed::Untrusted(error.to_string()),
        _ => Closed::Link(error.to_string()),
    }
}

/// Settings of both sides. `bidi` and `uni`: streams that the peer may have open.
fn transport(timing: &Timing, bidi: u32, uni: u32, congestion: ByDelivery) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(timing.idle_timeout)
        .unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
    config
        .max_concurrent_bidi_streams(bidi.into())
        .max_concurrent_uni_streams(uni.into())
        .max_idle_timeout(Some(idle))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .congestion_controller_factory(Arc::new(congestion))
        .datagram_receive_buffer_size(None);
    config
}

/// The edge's settings: it keeps the connection alive, since it knows what that costs on its link.
pub(crate) fn edge_transport(
    timing: &Timing,
    core_streams: u32,
    memory: Memory,
    may_be_heard: bool,
) -> Arc<TransportConfig> {
    let known = memory.rtt().filter(|_| may_be_heard);
    let initial_rtt = known.map_or(INITIAL_RTT, |rtt| {
        rtt.mul_f64(OF_KNOWN_RTT)
            .clamp(LEAST_INITIAL_RTT, MOST_INITIAL_RTT)
    });
    let mut config = transport(timing, 0, core_streams, ByDelivery(Some(memory)));
    config.keep_alive_interval(Some(timing.keep_alive));
    config.initial_rtt(initial_rtt);
    Arc::new(config)
}

/// The core's settings. The shorter of both idle timeouts counts (RFC 9000, 10.1), which is the edge's.
pub(crate) fn core_transport(timing: &Timing, edge_streams: u32) -> Arc<TransportConfig> {
    let mut config = transport(timing, 1, edge_streams, ByDelivery(None));
    config.initial_rtt(CORE_INITIAL_RTT);
    Arc::new(config)
}

pub(crate) fn any_port(like: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if like.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    (ip, 0).into()
}

/// Random connection ids. quinn's own carry a check whose key dies with the process, and packets with ids of the process before are
/// dropped without the stateless reset that their senders need.
pub(crate) struct PlainIds;

impl quinn::ConnectionIdGenerator for PlainIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&rand::random::<[u8; ID_LENGTH]>())
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

type Socket = Arc<dyn quinn::AsyncUdpSocket>;

fn socket(remote: SocketAddr) -> std::io::Result<Socket> {
    quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, UdpSocket::bind(any_port(remote))?)
}

/// What a client's connection is sent from.
pub(crate) struct Client {
    pub(crate) endpoint: quinn::Endpoint,
    socket: Mutex<Socket>,
}

impl Client {
    /// One that can reach `remote`; `sign` learns what comes from there.
    pub(crate) fn new(remote: SocketAddr, sign: &Arc<Sign>) -> std::io::Result<Client> {
        let socket: Socket = Arc::new(Listening::new(socket(remote)?, remote, sign));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            None,
            socket.clone(),
            Arc::new(quinn::TokioRuntime),
        )?;
        Ok(Client {
            endpoint,
            socket: Mutex::new(socket),
        })
    }

    /// Sends a packet at once that the peer acknowledges, without waiting for a timer that may have backed off during a silence.
    /// quinn asks for one only where it goes on from a socket: from the one in use nothing else changes.
    pub(crate) fn ask(&self) -> std::io::Result<()> {
        self.endpoint.rebind_abstract(self.socket().clone())
    }

    /// The same from a new socket: the peer sees another address and the connection moves there (RFC 9000, 9).
    pub(crate) fn ask_from_new_socket(&self, remote: SocketAddr) -> std::io::Result<()> {
        let socket = socket(remote)?;
        *self.socket() = socket.clone();
        self.endpoint.rebind_abstract(socket)
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address from which this machine would send to `remote` now. Nothing is sent. An error = there is no way to it.
pub(crate) fn local_address(remote: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind(any_port(remote))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}
