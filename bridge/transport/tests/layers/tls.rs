use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rcgen::SanType;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use transport::{Clients, HandshakeError, Layers, NamedCertificate, Peer, Tls, TlsError, TlsFiles};

use crate::certificates::{Authority, Signed, dns, files};

/// One connection, from both ends: what the server knows of the client, and the certificate that the client saw.
async fn meet(
    tls: &Arc<Tls>,
    authority: &Authority,
    host: &str,
    shows: Option<&Signed>,
) -> (Result<Peer, HandshakeError>, Option<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layers = Layers {
        tls: Some(tls.clone()),
        ..Layers::default()
    };
    let server = tokio::spawn(async move {
        let (stream, from) = listener.accept().await.unwrap();
        let accepted = layers
            .accept(stream, from, address, Duration::from_secs(10))
            .await
            .map_err(|failed| failed.error)?;
        let mut stream = accepted.stream;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        stream.write_all(&byte).await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(accepted.peer)
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let seen = async {
        let mut stream = authority.connect(stream, host, shows).await.ok()?;
        stream.write_all(b"x").await.ok()?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.ok()?;
        let (_, session) = stream.get_ref();
        (back == b"x").then(|| session.peer_certificates().unwrap()[0].to_vec())
    }
    .await;
    (server.await.unwrap(), seen)
}

fn hangup() -> Signal {
    signal(SignalKind::hangup()).unwrap()
}

fn der(signed: &Signed) -> Option<Vec<u8>> {
    Some(
        CertificateDer::from_pem_file(&signed.certificate)
            .unwrap()
            .to_vec(),
    )
}

#[tokio::test]
async fn each_name_has_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ca = Authority::new(dir, "ca");
    let default = ca.sign(
        dir,
        "default",
        "default",
        vec![dns("one.example"), dns("deep.wild.example")],
    );
    let two = ca.server(dir, "two", "two.example");
    let wild = ca.server(dir, "wild", "*.wild.example");
    let tls = Tls::open(TlsFiles {
        names: vec![named("Two.Example", &two), named("*.wild.example", &wild)],
        ..files(&default, Clients::Unasked)
    })
    .unwrap();
    for (host, certificate) in [
        ("one.example", &default),
        ("two.example", &two),
        ("TWO.example", &two),
        ("a.wild.example", &wild),
    ] {
        let (peer, seen) = meet(&tls, &ca, host, None).await;
        assert_eq!(seen, der(certificate), "{host}");
        let asked = peer.unwrap().server_name.unwrap();
        assert!(asked.eq_ignore_ascii_case(host), "{asked}");
    }
}

fn named(name: &str, signed: &Signed) -> NamedCertificate {
    NamedCertificate {
        name: name.to_owned(),
        certificate: signed.certificate.clone(),
        key: signed.key.clone(),
    }
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (ca, other) = (Authority::new(dir, "ca"), Authority::new(dir, "other"));
    let server = ca.server(dir, "server", "core.example");
    let press = ca.sign(
        dir,
        "press",
        "press-7",
        vec![
            dns("press-7.works.example"),
            SanType::Rfc822Name("press@works.example".try_into().unwrap()),
            SanType::URI("spiffe://works/press-7".try_into().unwrap()),
            SanType::IpAddress("10.1.2.3".parse().unwrap()),
        ],
    );
    let stranger = other.server(dir, "stranger", "press-7");

    let required = Tls::open(files(&server, Clients::Required(ca.path.clone()))).unwrap();
    let (peer, seen) = meet(&required, &ca, "core.example", Some(&press)).await;
    assert_eq!(seen, der(&server));
    let peer = peer.unwrap();
    assert_eq!(peer.common_name().map(|name| &**name), Some("press-7"));
    let certificate = peer.certificate.unwrap();
    assert_eq!(&*certificate.subject, "CN=press-7, O=Works");
    assert_eq!(certificate.dns_names, ["press-7.works.example".into()]);
    assert_eq!(certificate.email_addresses, ["press@works.example".into()]);
    assert_eq!(certificate.uris, ["spiffe://works/press-7".into()]);
    assert_eq!(
        certificate.ip_addresses,
        ["10.1.2.3".parse::<std::net::IpAddr>().unwrap()]
    );
    for shows in [None, Some(&stranger)] {
        let (peer, seen) = meet(&required, &ca, "core.example", shows).await;
        let error = peer.unwrap_err();
        assert!(matches!(error, HandshakeError::Tls(_)), "{error}");
        assert_eq!((error.layer(), seen), ("tls", None));
    }

    let optional = Tls::open(files(&server, Clients::Optional(ca.path.clone()))).unwrap();
    let (peer, _) = meet(&optional, &ca, "core.example", None).await;
    assert!(peer.unwrap().certificate.is_none());
    let (peer, _) = meet(&optional, &ca, "core.example", Some(&press)).await;
    assert!(peer.unwrap().certificate.is_some());
    let (peer, _) = meet(&optional, &ca, "core.example", Some(&stranger)).await;
    assert!(peer.is_err(), "a bad certificate is worse than none");
}

#[tokio::test]
async fn new_files_are_for_new_connections_and_broken_ones_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ca = Authority::new(dir, "ca");
    let server = ca.server(dir, "server", "core.example");
    let tls = Tls::open(files(&server, Clients::Unasked)).unwrap();
    let first = der(&server);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layers = Layers {
        tls: Some(tls.clone()),
        ..Layers::default()
    };
    let client = TcpStream::connect(address).await.unwrap();
    let (stream, from) = listener.accept().await.unwrap();
    let (standing, client) = tokio::join!(
        layers.accept(stream, from, address, Duration::from_secs(10)),
        ca.connect(client, "core.example", None)
    );
    let (mut standing, mut client) = (standing.unwrap().stream, client.unwrap());

    ca.server(dir, "server", "core.example");
    let second = der(&server);
    assert_ne!(first, second);
    tls.reload();
    assert_eq!(meet(&tls, &ca, "core.example", None).await.1, second);

    for broken in [
        "",
        "no certificate at all",
        "-----BEGIN CERTIFICATE-----\nx\n",
    ] {
        std::fs::write(&server.certificate, broken).unwrap();
        tls.reload();
        assert_eq!(
            meet(&tls, &ca, "core.example", None).await.1,
            second,
            "{broken:?}"
        );
    }
    std::fs::remove_file(&server.certificate).unwrap();
    tls.reload();
    assert_eq!(meet(&tls, &ca, "core.example", None).await.1, second);

    client.write_all(b"still here").await.unwrap();
    let mut said = [0; 10];
    standing.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"still here");
}

/// Time is simulated: half a minute passes at once.
#[tokio::test(start_paused = true)]
async fn files_that_change_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path(), "ca");
    let server = ca.server(dir.path(), "server", "core.example");
    let tls = Tls::open(files(&server, Clients::Unasked)).unwrap();
    let mut changes = tls.changes();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(tls.clone().watch(hangup(), stop.clone()));
    // A certificate that does not fit its key comes first, as when somebody replaces one file after the other.
    let spare = tempfile::tempdir().unwrap();
    let next = ca.server(spare.path(), "next", "core.example");
    std::fs::copy(&next.certificate, &server.certificate).unwrap();
    tokio::time::sleep(2 * transport::limits::TLS_LOOK).await;
    assert!(!changes.has_changed().unwrap());
    std::fs::copy(&next.key, &server.key).unwrap();
    changes.changed().await.unwrap();
    stop.cancel();
    watching.await.unwrap().unwrap();
}

/// What was wrong may be put right in a way that no time of change shows: a mode, an owner, or a copy that keeps the time.
#[tokio::test(start_paused = true)]
async fn files_that_could_not_be_read_are_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path(), "ca");
    let server = ca.server(dir.path(), "server", "core.example");
    let tls = Tls::open(files(&server, Clients::Unasked)).unwrap();
    let mut changes = tls.changes();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(tls.clone().watch(hangup(), stop.clone()));
    let good = std::fs::read_to_string(&server.certificate).unwrap();
    std::fs::write(&server.certificate, good.replace('-', "+")).unwrap();
    let file = File::options().write(true).open(&server.certificate);
    let file = file.unwrap();
    let when = file.metadata().unwrap().modified().unwrap();
    tokio::time::sleep(2 * transport::limits::TLS_LOOK).await;
    assert!(!changes.has_changed().unwrap());
    std::fs::write(&server.certificate, good).unwrap();
    file.set_modified(when).unwrap();
    let looked = tokio::time::timeout(10 * transport::limits::TLS_LOOK, changes.changed());
    looked.await.unwrap().unwrap();
    stop.cancel();
    watching.await.unwrap().unwrap();
}

#[test]
fn what_can_not_be_used_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ca = Authority::new(dir, "ca");
    let (one, two) = (
        ca.server(dir, "one", "one.example"),
        ca.server(dir, "two", "two.example"),
    );
    let empty = dir.join("empty");
    std::fs::write(&empty, "").unwrap();
    let good = || files(&one, Clients::Unasked);
    let with = |names: Vec<NamedCertificate>| TlsFiles { names, ..good() };
    let cases: Vec<(TlsFiles, &str)> = vec![
        (
            TlsFiles {
                key: two.key.clone(),
                ..good()
            },
            "can not be used together",
        ),
        (
            TlsFiles {
                certificate: empty.clone(),
                ..good()
            },
            "empty has no certificate in PEM form",
        ),
        (
            TlsFiles {
                certificate: dir.join("gone"),
                ..good()
            },
            "cannot read the certificates in",
        ),
        (
            TlsFiles {
                key: one.certificate.clone(),
                ..good()
            },
            "one.crt has no private key in PEM form",
        ),
        (
            TlsFiles {
                clients: Clients::Required(empty),
                ..good()
            },
            "empty has no certificate",
        ),
        (
            with(vec![named("two.example", &one)]),
            "is not for two.example",
        ),
        (
            with(vec![named("two.example", &two), named("TWO.example", &two)]),
            "two certificates are for TWO.example",
        ),
        (
            with(vec![named("10.0.0.1", &one)]),
            "'10.0.0.1' is no host name",
        ),
        (with(vec![named("a..b", &one)]), "'a..b' is no host name"),
        (with(vec![named("", &one)]), "'' is no host name"),
    ];
    for (files, says) in cases {
        let error: TlsError = Tls::open(files).err().expect(says);
        assert!(error.to_string().contains(says), "{error}");
    }
}
