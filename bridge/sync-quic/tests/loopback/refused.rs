//! Who is not let in, and what does no harm.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use sync_quic::{
    Accepted, CORE_NAME, CloseCode, ConnectError, EnrolError, EnrolRefusal, HelloRefusal,
    HelloRefused, Retry, Timing, Token, Window,
};

use crate::core::*;

#[tokio::test]
async fn a_wrong_secret_and_a_wrong_core() {
    let core = core();
    let wrong = Token {
        secret: "AAAA".to_owned(),
        ..core.token.clone()
    };
    let (result, ()) = tokio::join!(enrol(&core.address, &wrong, "e1"), core.grant());
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
    let (result, accepted) = tokio::join!(enrol(&core.address, &other, "e1"), core.accept());
    assert!(
        matches!(result, Err(EnrolError::WrongCore { .. })),
        "{result:?}"
    );
    assert!(accepted.is_err());

    let identity = core.enrol("e1").await.unwrap();
    let stranger = core_on("127.0.0.1:0".parse().unwrap());
    let (result, accepted) = tokio::join!(
        connect(&stranger.address, &identity, Window::default(), TIMING),
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
        connect(&core.address, &foreign, Window::default(), TIMING),
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
    let said = HelloRefused {
        code: HelloRefusal::CertificateReplaced,
        retry: Retry {
            floor_ms: 1_000,
            spread_ms: 60_000,
        },
        reason: "enrol again".to_owned(),
    };
    let refuse = async {
        let Ok(Accepted::Edge(handshake)) = core.accept().await else {
            panic!("not an edge")
        };
        handshake.refuse(said.clone()).await;
    };
    let (result, ()) = tokio::join!(
        connect(&core.address, &identity, Window::default(), TIMING),
        refuse
    );
    let Err(ConnectError::Refused(heard)) = result else {
        panic!("let in")
    };
    assert_eq!(heard, said);
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
    let result = enrol(&core.address, &core.token, "e1").await;
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
    let result = connect(&address, &identity, Window::default(), timing).await;
    assert!(
        matches!(result, Err(ConnectError::Unreachable { .. })),
        "{:?}",
        result.err()
    );
    let result = connect(
        "no-such-host.invalid:1",
        &identity,
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
