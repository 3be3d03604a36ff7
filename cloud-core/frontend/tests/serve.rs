//! The accept loop with real sockets.

use std::sync::Arc;

use frontend::{Connection, Context, Listeners, QuicListener, bind_tcp, serve};
use kernel::{Kernel, KernelConfig, Ports};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use transport::{Clients, Tls, TlsFiles};

fn context(dir: &std::path::Path) -> Context {
    let kernel = Kernel::open(
        Ports::system(dir, Arc::new(kernel::ports::MemoryColdStore::default())).unwrap(),
        KernelConfig::default(),
    )
    .unwrap();
    Context::new(kernel, dir).unwrap()
}

/// Echoes one byte at a time; panics at `!`; says `bye` at shutdown.
async fn echo(mut connection: Connection) {
    let mut byte = [0];
    loop {
        tokio::select! {
            () = connection.shutdown.cancelled() => {
                let _ = connection.stream.write_all(b"bye").await;
                return;
            }
            read = connection.stream.read(&mut byte) => match read {
                Ok(1) => {
                    assert_ne!(&byte, b"!", "a bug");
                    connection.stream.write_all(&byte).await.unwrap();
                }
                _ => return,
            },
        }
    }
}

async fn says(stream: &mut TcpStream, byte: u8) -> bool {
    let mut back = [0];
    stream.write_all(&[byte]).await.is_ok()
        && matches!(stream.read(&mut back).await, Ok(1))
        && back == [byte]
}

#[tokio::test]
async fn a_panic_and_a_full_listener_concern_nobody_else_and_shutdown_drains() {
    let dir = tempfile::tempdir().unwrap();
    let mut ctx = context(dir.path());
    Arc::make_mut(&mut ctx.limits).connections_per_listener = 2;
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(ctx.clone(), "test", listener, echo));
    let metrics = ctx.metrics.protocol("test");

    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert!(says(&mut first, b'a').await && says(&mut second, b'b').await);
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(!says(&mut third, b'c').await, "over the limit");
    assert_eq!((metrics.open.get(), metrics.refused.get()), (2, 1));

    assert!(!says(&mut second, b'!').await);
    assert!(says(&mut first, b'a').await, "the other connection goes on");
    // The slot of the connection that ended is free again; when exactly is up to the scheduler.
    let mut fourth = loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if says(&mut stream, b'd').await {
            break stream;
        }
    };
    assert!(metrics.received.get() >= 5 && metrics.sent.get() >= 4);

    ctx.shutdown.cancel();
    serving.await.unwrap();
    for stream in [&mut first, &mut fourth] {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "bye");
    }
    assert_eq!((metrics.open.get(), metrics.panics.get()), (0, 1));
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

/// A client of QUIC that trusts who has this certificate.
fn quic_client(trusted: CertificateDer<'static>) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"test".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    client
}

#[tokio::test]
async fn a_certificate_that_changes_before_quic_takes_connections_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        certificate: dir.path().join("server.crt"),
        key: dir.path().join("server.key"),
        names: Vec::new(),
        clients: Clients::Unasked,
    };
    let renew = || {
        let new = rcgen::generate_simple_self_signed(["core.example".to_owned()]).unwrap();
        std::fs::write(&files.certificate, new.cert.pem()).unwrap();
        std::fs::write(&files.key, new.signing_key.serialize_pem()).unwrap();
        new.cert.der().clone()
    };
    renew();
    let tls = Tls::open(files.clone()).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = QuicListener::bind(any, tls.clone(), b"test").unwrap();
    let address = listener.local_addr().unwrap();
    let renewed = renew();
    tls.reload();

    let ctx = context(dir.path());
    let listeners = Listeners {
        quic: vec![listener],
        ..Listeners::default()
    };
    let serving = tokio::spawn(serve(ctx.clone(), "test", listeners, echo));
    let client = quic_client(renewed);
    let connecting = client.connect(address, "core.example").unwrap();
    let connection = connecting.await.expect("the renewed certificate");
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"a").await.unwrap();
    let mut back = [0];
    receive.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"a");
    connection.close(0u32.into(), b"");
    ctx.shutdown.cancel();
    serving.await.unwrap();
}
