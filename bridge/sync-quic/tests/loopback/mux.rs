//! What a client over TLS may not do.

use rustls::pki_types::{CertificateDer, ServerName};
use sync_quic::CORE_NAME;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::core::*;

async fn raw_client(core: &Core, alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(core.ca.clone())).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(&core.address).await.unwrap();
    TlsConnector::from(std::sync::Arc::new(config))
        .connect(ServerName::try_from(CORE_NAME).unwrap(), stream)
        .await
        .unwrap()
}

/// The code of the close that the core says last.
async fn close_code(client: &mut TlsStream<TcpStream>) -> u32 {
    let mut heard = Vec::new();
    // A reset instead of a proper end would be an error here.
    client.read_to_end(&mut heard).await.unwrap();
    let mut rest = &heard[..];
    loop {
        let [a, b, c, d, tail @ ..] = rest else {
            panic!("no close in {heard:?}")
        };
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        if [*a, *b] == [0xff, 0xff] && tail[0] == 3 {
            return u32::from_be_bytes(tail[1..5].try_into().unwrap());
        }
        rest = &tail[length..];
    }
}

#[tokio::test]
async fn sync_over_tls_without_a_certificate_is_closed() {
    let core = core();
    let (mut client, accepted) = tokio::join!(raw_client(&core, sync::ALPN_SYNC), core.accept());
    assert!(accepted.err().unwrap().contains("no client certificate"));
    assert_eq!(
        close_code(&mut client).await,
        sync::CloseCode::NoCertificate.to_wire()
    );
}

#[tokio::test]
async fn garbage_over_tls_is_closed() {
    let chunk = |channel: u16, bytes: &[u8]| {
        let mut chunk = channel.to_be_bytes().to_vec();
        chunk.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        chunk.extend(bytes);
        chunk
    };
    let many: Vec<u8> = (1..=200).flat_map(|channel| chunk(channel, b"x")).collect();
    for garbage in [
        // Larger than a chunk may be.
        b"\0\0\xff\xff".to_vec(),
        // A frame that claims four gigabytes, and one of an unknown type.
        chunk(0, &u32::MAX.to_be_bytes()),
        chunk(0, b"\0\0\0\x05\xffello"),
        // The control channel may not end before anything was said.
        chunk(0, b""),
        // About the connection, and no sense in it.
        chunk(u16::MAX, b"\x09"),
        chunk(u16::MAX, b""),
        many,
    ] {
        let core = core();
        let client = async {
            let mut client = raw_client(&core, sync::ALPN_ENROL).await;
            client.write_all(&garbage).await.unwrap();
            client.flush().await.unwrap();
            close_code(&mut client).await
        };
        let (code, accepted) = tokio::join!(client, core.accept());
        assert!(accepted.is_err());
        assert_eq!(code, sync::CloseCode::Protocol.to_wire(), "{garbage:?}");
    }
}
