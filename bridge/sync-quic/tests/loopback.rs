//! A real edge and a real core over QUIC on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sync_quic::{
    Accepted, BatchFlags, BatchFrame, Batches, CORE_NAME, CloseCode, ConnectError, CoreIdentity,
    DownAcks, DownFrame, DownPosition, EdgeConnection, EnrolError, EnrolGrant, EnrolRefusal, Event,
    Hello, HelloRefusal, Identity, Listener, Lost, RefuseCode, SendError, Timing, Token, Welcome,
    Window,
};

struct Core {
    listener: Listener,
    address: String,
    token: Token,
    ca: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

const TIMING: Timing = Timing {
    keep_alive: Duration::from_millis(200),
    idle_timeout: Duration::from_secs(2),
    handshake: Duration::from_secs(5),
};

fn core() -> Core {
    core_on("127.0.0.1:0".parse().unwrap())
}

fn core_on(address: SocketAddr) -> Core {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.not_before = date_time_ymd(1970, 1, 1);
    let ca = ca.self_signed(&ca_key).unwrap().der().to_vec();
    let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(ca.clone()), ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![CORE_NAME.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let identity = CoreIdentity {
        chain: vec![certificate.der().to_vec(), ca.clone()],
        key: key.serialize_der(),
        ca: ca.clone(),
    };
    let listener = Listener::bind(address, identity, TIMING).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Core {
        listener,
        address,
        token: Token::new([1; 9], [2; 24], &ca),
        ca,
        issuer,
    }
}

impl Core {
    async fn accept(&self) -> Result<Accepted, String> {
        self.listener
            .accept()
            .await
            .unwrap()
            .establish()
            .await
            .map_err(|error| error.to_string())
    }

    /// Grants one enrolment, as a core does whose token it is.
    async fn grant(&self) {
        let Ok(Accepted::Enrol(handshake)) = self.accept().await else {
            panic!("not an enrolment")
        };
        if handshake.request.secret != self.token.secret {
            return handshake
                .refuse(EnrolRefusal::InvalidToken, "make a new one")
                .await;
        }
        let request = handshake.request.request.clone();
        let request = CertificateSigningRequestParams::from_der(
            &CertificateSigningRequestDer::from(&request[..]),
        )
        .unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, &handshake.request.name);
        let certificate = params.signed_by(&request.public_key, &self.issuer).unwrap();
        let name = handshake.request.name.clone();
        let grant = EnrolGrant {
            name,
            certificate: certificate.der().to_vec().into(),
            ca: self.ca.clone().into(),
        };
        handshake.grant(grant).await;
    }

    async fn enrol(&self, name: &str) -> Result<Identity, EnrolError> {
        tokio::join!(
            sync_quic::enrol(&self.address, &self.token, name, TIMING),
            self.grant()
        )
        .0
    }

    async fn let_in(&self) -> (EdgeConnection, Batches, DownAcks) {
        let Ok(Accepted::Edge(handshake)) = self.accept().await else {
            panic!("not an edge")
        };
        handshake
            .welcome(Welcome {
                version: sync::VERSION,
                time_ms: 42,
                max_batch: 1 << 20,
            })
            .await
            .unwrap()
    }
}

fn hello(edge: &str) -> Hello {
    Hello {
        version: sync::VERSION,
        edge: edge.to_owned(),
        producer_id: 1 << 62,
        epoch: 0,
        software: "test".to_owned(),
    }
}

fn batch(frame: u64, size: usize) -> BatchFrame {
    BatchFrame {
        lane: 0,
        frame,
        stream: "s".to_owned(),
        flags: BatchFlags::empty(),
        batch: Bytes::from(vec![frame as u8; size]),
    }
}

async fn connected(
    core: &Core,
    window: Window,
) -> (
    sync_quic::Connection,
    sync_quic::Events,
    EdgeConnection,
    Batches,
    DownAcks,
) {
    let identity = core.enrol("e1").await.unwrap();
    let (edge, (connection, batches, acks)) = tokio::join!(
        sync_quic::connect(&core.address, &identity, hello("e1"), window, TIMING),
        core.let_in()
    );
    let (sending, events) = edge.unwrap();
    (sending, events, connection, batches, acks)
}

#[tokio::test]
async fn an_edge_enrols_connects_and_sends() {
    let core = core();
    let (edge, mut events, connection, mut batches, mut acks) =
        connected(&core, Window::default()).await;
    assert_eq!(edge.welcome().time_ms, 42);
    for frame in 1..=100 {
        edge.send_batch(batch(frame, 10_000)).await.unwrap();
    }
    for frame in 1..=100 {
        let received = batches.next().await.unwrap();
        assert_eq!(received.frame, batch(frame, 10_000));
        connection.settle(0, frame);
    }
    let mut acked = 0;
    while acked < 100 {
        let Event::Ack { lane: 0, frame } = events.next().await else {
            panic!("not an acknowledgement")
        };
        assert!(frame > acked);
        acked = frame;
    }

    let down = DownFrame {
        position: DownPosition {
            stream: 1,
            partition: 0,
            next: 9,
        },
        batch: Bytes::from_static(b"do"),
    };
    connection.send_down(down.clone()).await.unwrap();
    assert_eq!(events.next().await, Event::Down(down.clone()));
    edge.send_down_ack(down.position).await.unwrap();
    assert_eq!(acks.next().await, Some(down.position));

    connection.close(CloseCode::TakenOver, "newer");
    let lost = Lost::ByCore {
        code: CloseCode::TakenOver,
        reason: "newer".to_owned(),
    };
    assert_eq!(events.next().await, Event::Closed(lost.clone()));
    assert_eq!(
        events.next().await,
        Event::Closed(lost.clone()),
        "the last event stays"
    );
    assert_eq!(
        edge.send_batch(batch(101, 1)).await,
        Err(SendError::Lost(lost))
    );
}

#[tokio::test]
async fn the_window_holds_the_sender_back_until_the_commit() {
    let core = core();
    let (edge, mut events, connection, mut batches, _acks) = connected(
        &core,
        Window {
            bytes: 25_000,
            frames: 100,
        },
    )
    .await;
    edge.send_batch(batch(1, 10_000)).await.unwrap();
    edge.send_batch(batch(2, 10_000)).await.unwrap();
    let third = tokio::spawn({
        let edge = edge.clone();
        async move { edge.send_batch(batch(3, 10_000)).await }
    });
    assert_eq!(batches.next().await.unwrap().frame.frame, 1);
    assert_eq!(batches.next().await.unwrap().frame.frame, 2);
    assert!(!third.is_finished(), "the window is full");
    connection.settle(0, 2);
    // Frame 1 is not committed: nothing may be acknowledged. The refusal of frame 1 settles both.
    connection.refuse(0, 1, RefuseCode::Malformed, "bad");
    let Event::Refused(refused) = events.next().await else {
        panic!("a refusal comes before the acknowledgement")
    };
    assert_eq!((refused.frame, refused.code), (1, RefuseCode::Malformed));
    assert_eq!(events.next().await, Event::Ack { lane: 0, frame: 2 });
    third.await.unwrap().unwrap();
    assert_eq!(batches.next().await.unwrap().frame.frame, 3);

    connection.refuse(0, 3, RefuseCode::Unavailable, "disk full");
    let Event::Refused(refused) = events.next().await else {
        panic!("said before the close")
    };
    assert!(refused.code.is_retryable());
    let Event::Closed(Lost::ByCore {
        code: CloseCode::Refused,
        ..
    }) = events.next().await
    else {
        panic!("closed after it")
    };
}

#[tokio::test]
async fn what_the_sender_itself_refuses() {
    let core = core();
    let (edge, _events, _connection, mut batches, _acks) =
        connected(&core, Window::default()).await;
    let large = edge.send_batch(batch(1, (1 << 20) + 1)).await;
    assert_eq!(
        large,
        Err(SendError::TooLarge {
            size: (1 << 20) + 1,
            limit: 1 << 20
        })
    );
    edge.send_batch(batch(1, 10)).await.unwrap();
    assert!(matches!(
        edge.send_batch(batch(1, 10)).await,
        Err(SendError::Lanes(_))
    ));
    edge.send_batch(batch(2, 10)).await.unwrap();
    assert_eq!(batches.next().await.unwrap().frame.frame, 1);
    assert_eq!(batches.next().await.unwrap().frame.frame, 2);
}

#[tokio::test]
async fn a_wrong_secret_and_a_wrong_core() {
    let core = core();
    let wrong = Token {
        secret: "AAAA".to_owned(),
        ..core.token.clone()
    };
    let (result, ()) = tokio::join!(
        sync_quic::enrol(&core.address, &wrong, "e1", TIMING),
        core.grant()
    );
    assert!(
        matches!(
            result,
            Err(EnrolError::Refused {
                code: EnrolRefusal::InvalidToken,
                ..
            })
        ),
        "{result:?}"
    );

    // Another core answers: the handshake fails before the secret is sent.
    let other = Token::new([1; 9], [2; 24], b"another authority");
    let (result, accepted) = tokio::join!(
        sync_quic::enrol(&core.address, &other, "e1", TIMING),
        core.accept()
    );
    assert!(
        matches!(result, Err(EnrolError::WrongCore { .. })),
        "{result:?}"
    );
    assert!(accepted.is_err());

    let identity = core.enrol("e1").await.unwrap();
    let stranger = core_on("127.0.0.1:0".parse().unwrap());
    let (result, accepted) = tokio::join!(
        sync_quic::connect(
            &stranger.address,
            &identity,
            hello("e1"),
            Window::default(),
            TIMING
        ),
        stranger.accept()
    );
    assert!(
        matches!(result, Err(ConnectError::Untrusted { .. })),
        "{:?}",
        result.err()
    );
    assert!(accepted.is_err());

    // The other way round: an edge of another authority that knows this core's certificate.
    let mut foreign = stranger.enrol("e1").await.unwrap();
    foreign.ca_pem = identity.ca_pem;
    let (result, accepted) = tokio::join!(
        sync_quic::connect(
            &core.address,
            &foreign,
            hello("e1"),
            Window::default(),
            TIMING
        ),
        core.accept()
    );
    assert!(
        matches!(result, Err(ConnectError::Untrusted { .. })),
        "{:?}",
        result.err()
    );
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_refused_hello_says_why() {
    let core = core();
    let identity = core.enrol("e1").await.unwrap();
    let refuse = async {
        let Ok(Accepted::Edge(handshake)) = core.accept().await else {
            panic!("not an edge")
        };
        handshake
            .refuse(HelloRefusal::CertificateReplaced, "enrol again")
            .await;
    };
    let (result, ()) = tokio::join!(
        sync_quic::connect(
            &core.address,
            &identity,
            hello("e1"),
            Window::default(),
            TIMING
        ),
        refuse
    );
    let Err(ConnectError::Refused { code, reason }) = result else {
        panic!("let in")
    };
    assert_eq!(
        (code, reason.as_str()),
        (HelloRefusal::CertificateReplaced, "enrol again")
    );
}

/// A client that speaks QUIC and TLS but has its own idea of the rest.
async fn raw_client(core: &Core, alpn: &[u8]) -> (quinn::Endpoint, quinn::Connection) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(core.ca.clone())).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    let connection = endpoint
        .connect_with(config, core.address.parse().unwrap(), CORE_NAME)
        .unwrap()
        .await
        .unwrap();
    (endpoint, connection)
}

fn close_code(error: &quinn::ConnectionError) -> Option<CloseCode> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Some(CloseCode::from_wire(
            u32::try_from(close.error_code.into_inner()).unwrap(),
        )),
        _ => None,
    }
}

#[tokio::test]
async fn sync_without_a_certificate_is_closed() {
    let core = core();
    let ((_endpoint, client), accepted) =
        tokio::join!(raw_client(&core, sync::ALPN_SYNC), core.accept());
    assert!(accepted.err().unwrap().contains("no client certificate"));
    assert_eq!(
        close_code(&client.closed().await),
        Some(CloseCode::NoCertificate)
    );
}

#[tokio::test]
async fn claims_and_garbage_before_enrolment_are_closed() {
    for first in [
        &u32::MAX.to_be_bytes()[..],
        b"\0\0\0\x05hello",
        b"\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let core = core();
        let client = async {
            let (endpoint, client) = raw_client(&core, sync::ALPN_ENROL).await;
            let (mut send, _recv) = client.open_bi().await.unwrap();
            send.write_all(first).await.unwrap();
            (client.closed().await, endpoint)
        };
        let ((error, _endpoint), accepted) = tokio::join!(client, core.accept());
        assert!(accepted.is_err());
        assert_eq!(
            close_code(&error),
            Some(CloseCode::Protocol),
            "{first:?}: {error}"
        );
    }
}

#[tokio::test]
async fn garbage_datagrams_do_not_disturb() {
    let core = core();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for size in [1_usize, 20, 600, 1200, 1400] {
        for fill in [0_u8, 0x40, 0xc0, 0xff] {
            socket
                .send_to(&vec![fill; size], &core.address)
                .await
                .unwrap();
        }
    }
    // Long-header garbage may look like a first datagram; it fails like any handshake that goes nowhere.
    let serving = tokio::spawn({
        let listener = core.listener.clone();
        async move {
            loop {
                let pending = listener.accept().await.unwrap();
                if let Ok(Accepted::Enrol(handshake)) = pending.establish().await {
                    return handshake
                        .refuse(EnrolRefusal::ExpiredToken, "too late")
                        .await;
                }
            }
        }
    });
    let result = sync_quic::enrol(&core.address, &core.token, "e1", TIMING).await;
    assert!(
        matches!(
            result,
            Err(EnrolError::Refused {
                code: EnrolRefusal::ExpiredToken,
                ..
            })
        ),
        "{result:?}"
    );
    serving.await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let core = core();
    let identity = core.enrol("e1").await.unwrap();
    // Bound, and silent.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let timing = Timing {
        handshake: Duration::from_millis(300),
        ..TIMING
    };
    let address = silent.local_addr().unwrap().to_string();
    let result =
        sync_quic::connect(&address, &identity, hello("e1"), Window::default(), timing).await;
    assert!(
        matches!(result, Err(ConnectError::Unreachable { .. })),
        "{:?}",
        result.err()
    );
    let result = sync_quic::connect(
        "no-such-host.invalid:1",
        &identity,
        hello("e1"),
        Window::default(),
        TIMING,
    )
    .await;
    assert!(
        matches!(result, Err(ConnectError::Resolve { .. })),
        "{:?}",
        result.err()
    );
}

/// Carries datagrams between an edge and the core until it is aborted: then the link is cut, and nobody is told.
async fn relay(core: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut edge, mut buffer) = (None, vec![0; 65_536]);
        loop {
            let (size, from) = socket.recv_from(&mut buffer).await.unwrap();
            let to = if from == core {
                edge
            } else {
                edge = Some(from);
                Some(core)
            };
            if let Some(to) = to {
                socket.send_to(&buffer[..size], to).await.unwrap();
            }
        }
    });
    (address, task)
}

#[tokio::test]
async fn both_ends_notice_a_cut_link() {
    let core = core();
    let identity = core.enrol("e1").await.unwrap();
    let (address, link) = relay(core.address.parse().unwrap()).await;
    let address = address.to_string();
    let timing = Timing {
        keep_alive: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(600),
        ..TIMING
    };
    let (edge, (connection, mut batches, _acks)) = tokio::join!(
        sync_quic::connect(&address, &identity, hello("e1"), Window::default(), timing),
        core.let_in()
    );
    let (edge, mut events) = edge.unwrap();
    edge.send_batch(batch(1, 100)).await.unwrap();
    connection.settle(0, batches.next().await.unwrap().frame.frame);
    assert_eq!(events.next().await, Event::Ack { lane: 0, frame: 1 });

    // Longer than the idle timeout with nothing to say: the keep-alive carries the connection over it.
    let silence = tokio::time::timeout(timing.idle_timeout * 2, events.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    link.abort();
    let Event::Closed(Lost::Link(_)) = events.next().await else {
        panic!("not a lost link")
    };
    assert!(matches!(
        edge.send_batch(batch(2, 100)).await,
        Err(SendError::Lost(Lost::Link(_)))
    ));
    assert!(batches.next().await.is_none());
}

#[tokio::test]
async fn tokens_as_text() {
    let core = core();
    let text = core.token.to_string();
    assert!(text.starts_with("tl1."));
    assert_eq!(Token::parse(&format!("  {text}\n")).unwrap(), core.token);
    assert!(!format!("{:?}", core.token).contains(&core.token.secret));
    let short = text[..text.len() - 4].to_owned();
    for wrong in [
        "",
        "tl1",
        "tl2.a.b.c",
        "tl1.a.b",
        "tl1...",
        "tl1.a b.c.d",
        &short,
        &format!("{text}.x"),
    ] {
        assert!(Token::parse(wrong).is_err(), "{wrong}");
    }
}
