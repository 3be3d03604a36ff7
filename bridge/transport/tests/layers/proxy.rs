use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transport::limits::PROXY_HEADER;
use transport::proxy::{Parsed, SIGNATURE, Way, parse, read};
use transport::{Clients, Failed, HandshakeError, Layers, Offer, Tls};

use crate::certificates::{Authority, files};

fn header(version_command: u8, family: u8, length: usize, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(length).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[version_command, family], &length, body].concat()
}

const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x30, 0x39, 0x07, 0x5b];

fn v4() -> Way {
    Way {
        client: "203.0.113.9:12345".parse().unwrap(),
        local: "10.0.0.1:1883".parse().unwrap(),
    }
}

fn v6_body() -> Vec<u8> {
    let mut body = vec![0; 32];
    body[..2].copy_from_slice(&[0x20, 0x01]);
    body[15] = 7;
    body[31] = 1;
    body.extend([0x30, 0x39, 0x07, 0x5b]);
    body
}

#[test]
fn headers_are_read_however_they_are_cut() {
    let v6 = Way {
        client: "[2001::7]:12345".parse().unwrap(),
        local: "[::1]:1883".parse().unwrap(),
    };
    let with_tlv = [&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let largest = [&V4[..], &vec![0xff; PROXY_HEADER - 12]].concat();
    for (bytes, way) in [
        (header(0x21, 0x11, 12, &V4), Some(v4())),
        (header(0x21, 0x21, 36, &v6_body()), Some(v6)),
        (header(0x21, 0x11, with_tlv.len(), &with_tlv), Some(v4())),
        (header(0x21, 0x11, largest.len(), &largest), Some(v4())),
        // The balancer for itself, whatever it says beside that.
        (header(0x20, 0x00, 0, &[]), None),
        (header(0x20, 0x11, 12, &V4), None),
        (header(0x20, 0x42, 2, &[1, 2]), None),
        // Unspecified, and a Unix socket.
        (header(0x21, 0x00, 4, &[1, 2, 3, 4]), None),
        (header(0x21, 0x31, 216, &[0; 216]), None),
    ] {
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]).unwrap() {
                Parsed::Incomplete { missing } => {
                    assert!(missing > 0 && cut + missing <= bytes.len());
                }
                parsed => panic!("{cut} of {}: {parsed:?}", bytes.len()),
            }
        }
        let length = bytes.len();
        let more = [&bytes[..], b"\x10\x0c\0\x04MQTT"].concat();
        for bytes in [&bytes, &more] {
            assert_eq!(parse(bytes).unwrap(), Parsed::Header { way, length });
        }
    }
}

#[test]
fn hostile_headers_are_refused() {
    let mut late = header(0x21, 0x11, 12, &V4);
    late[11] = b'\r';
    for (bytes, says) in [
        (
            b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0".to_vec(),
            "no PROXY header",
        ),
        (b"\x16\x03\x01\x02\0\x01".to_vec(), "no PROXY header"),
        (b"\0".to_vec(), "no PROXY header"),
        (b"GET /mqtt HTTP/1.1\r\n".to_vec(), "no PROXY header"),
        (b"PROXX".to_vec(), "no PROXY header"),
        (b"\r\n\r\n\r".to_vec(), "no PROXY header"),
        (late, "no PROXY header"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), "version 1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "version 1"),
        (header(0x11, 0x11, 12, &V4), "of version 1"),
        (header(0x31, 0x11, 12, &V4), "of version 3"),
        (header(0x22, 0x11, 12, &V4), "unknown command 2"),
        (header(0x2f, 0x11, 12, &V4), "unknown command 15"),
        (header(0x21, 0x12, 12, &V4), "0x12"),
        (header(0x21, 0x22, 36, &[]), "0x22"),
        (header(0x21, 0x41, 12, &V4), "0x41"),
        // Before a byte of the claimed length is there.
        (header(0x21, 0x11, 0xffff, &[]), "the limit is 4096"),
        (
            header(0x20, 0x00, PROXY_HEADER + 1, &[]),
            "the limit is 4096",
        ),
        (header(0x21, 0x11, 11, &V4), "do not hold the addresses"),
        (header(0x21, 0x21, 12, &V4), "do not hold the addresses"),
        (header(0x21, 0x11, 0, &[]), "do not hold the addresses"),
    ] {
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{bytes:02x?}: {error}");
    }
}

#[tokio::test]
async fn not_a_byte_of_the_protocol_is_taken() {
    for part in 1..=40 {
        let bytes = [&header(0x21, 0x11, 15, &V4)[..], &[4, 0, 0], b"protocol"].concat();
        let (mut near, mut far) = tokio::io::duplex(part);
        let sending = tokio::spawn(async move { far.write_all(&bytes).await });
        assert_eq!(read(&mut near).await.unwrap(), Some(v4()));
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"protocol");
        sending.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_client_behind_the_balancer_is_the_peer_and_nobody_waits_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layers = Layers {
        proxy: true,
        ..Layers::default()
    };
    let accept = async |within: Duration, bytes: &[u8]| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let (stream, from) = listener.accept().await.unwrap();
        let accepted = layers.accept(stream, from, address, within).await;
        (accepted, client.local_addr().unwrap())
    };
    let long = Duration::from_secs(10);
    let (accepted, _) = accept(long, &header(0x21, 0x11, 12, &V4)).await;
    let accepted = accepted.unwrap();
    assert_eq!(accepted.peer.address, Some(v4().client));
    assert_eq!(accepted.local, v4().local);
    // An IPv4 address, said as one of IPv6.
    let mut mapped = v6_body();
    mapped[..16].copy_from_slice(&"::ffff:203.0.113.9".parse::<Ipv6Addr>().unwrap().octets());
    let (accepted, _) = accept(long, &header(0x21, 0x21, 36, &mapped)).await;
    assert_eq!(accepted.unwrap().peer.address, Some(v4().client));
    let (accepted, balancer) = accept(long, &header(0x20, 0, 0, &[])).await;
    let accepted = accepted.unwrap();
    assert_eq!(
        (accepted.peer.address, accepted.local),
        (Some(balancer), address)
    );
    let (accepted, balancer) = accept(Duration::from_millis(20), b"\r\n\r\n").await;
    let Failed { peer, error } = accepted.err().unwrap();
    assert!(matches!(error, HandshakeError::Late(_)), "{error}");
    assert_eq!(peer.address, Some(balancer), "it has said nothing else");
    let (accepted, _): (_, SocketAddr) = accept(long, b"\x10\x0c\0\x04MQTT").await;
    assert_eq!(accepted.err().unwrap().error.layer(), "proxy");
}

#[tokio::test]
async fn who_fails_behind_the_balancer_is_told_by_its_own_address() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path(), "ca");
    let server = ca.server(dir.path(), "server", "core.example");
    let tls = Tls::open(files(&server, Clients::Unasked)).unwrap();
    let offer = Offer {
        path: "/mqtt",
        protocol: "mqtt",
        origins: Vec::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (tls, websocket) in [(Some(tls), None), (None, Some(offer))] {
        let layers = Layers {
            proxy: true,
            tls,
            websocket,
        };
        // It says what is of neither, or leaves, or says nothing.
        for (said, leaves) in [(&b"neither\r\n\r\n"[..], false), (b"", true), (b"", false)] {
            let mut client = TcpStream::connect(address).await.unwrap();
            let bytes = [&header(0x21, 0x11, 12, &V4)[..], said].concat();
            client.write_all(&bytes).await.unwrap();
            if leaves {
                client.shutdown().await.unwrap();
            }
            let (stream, from) = listener.accept().await.unwrap();
            let within = Duration::from_millis(200);
            let accepted = layers.accept(stream, from, address, within).await;
            let Failed { peer, error } = accepted.err().unwrap();
            assert_eq!(peer.address, Some(v4().client), "{error}");
        }
    }
}
