use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use transport::websocket::accept;
use transport::{Offer, WebSocket, limits};

static OFFER: Offer = Offer {
    path: "/mqtt",
    protocol: "mqtt",
    origins: Vec::new(),
};
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

const FIN: u8 = 0x80;
const CONTINUED: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A frame of a client. The mask differs from frame to frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [payload.len() as u8 ^ 0x5a, 0x12, first, 0xff];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// The server's end, and the client's, behind the answer to its request.
async fn connected(room: usize) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (near, mut far) = duplex(room);
    let client = async {
        far.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(far.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
    };
    let (server, ()) = tokio::join!(accept(near, &OFFER), client);
    (server.unwrap(), far)
}

/// The next frame of the server: first byte, and payload.
async fn answer(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let first = client.read_u8().await.unwrap();
    let length = match client.read_u8().await.unwrap() {
        126 => u64::from(client.read_u16().await.unwrap()),
        127 => client.read_u64().await.unwrap(),
        short => u64::from(short),
    };
    let mut payload = vec![0; length as usize];
    client.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

/// Three packets of a protocol, with everything in them.
fn packets() -> Vec<u8> {
    (0..=255).chain(0..44).collect()
}

#[tokio::test]
async fn frames_may_end_anywhere() {
    let bytes = packets();
    for cut in 0..=bytes.len() {
        let (mut server, mut client) = connected(4096).await;
        let (one, two) = bytes.split_at(cut);
        // Two messages; then one message in three frames with a ping and an empty frame between.
        let sent = [
            frame(FIN | BINARY, one),
            frame(FIN | BINARY, two),
            frame(BINARY, one),
            frame(FIN | PING, b"there?"),
            frame(CONTINUED, &[]),
            frame(FIN | PONG, b"unasked"),
            frame(FIN | CONTINUED, two),
            frame(FIN | CLOSE, &1000u16.to_be_bytes()),
        ]
        .concat();
        client.write_all(&sent).await.unwrap();
        let mut read: Vec<u8> = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [&bytes[..], &bytes[..]].concat(), "cut at {cut}");
        assert_eq!(answer(&mut client).await, (FIN | PONG, b"there?".to_vec()));
        assert_eq!(
            answer(&mut client).await,
            (FIN | CLOSE, 1000u16.to_be_bytes().to_vec())
        );
        server.shutdown().await.unwrap();
        assert_eq!(
            client.read(&mut [0]).await.unwrap(),
            0,
            "one close frame is enough"
        );
    }
}

#[tokio::test]
async fn bytes_may_arrive_one_by_one_and_be_read_so() {
    let (one, long) = (packets(), vec![7; 70_000]);
    for (room, taken) in [(1, 1), (1, 64), (3, 2), (64, 1), (4096, 13)] {
        let (mut server, mut client) = connected(room).await;
        let sent = [
            frame(BINARY, &one),
            frame(FIN | PING, &[9; 125]),
            frame(FIN | CONTINUED, &long),
        ]
        .concat();
        let sending = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            let pong = answer(&mut client).await;
            client.shutdown().await.unwrap();
            pong
        });
        let mut read: Vec<u8> = Vec::new();
        let mut part = vec![0; taken];
        loop {
            match server.read(&mut part).await.unwrap() {
                0 => break,
                length => read.extend(&part[..length]),
            }
        }
        assert!(
            read == [&one[..], &long[..]].concat(),
            "room {room}, {taken} at a time"
        );
        assert_eq!(sending.await.unwrap(), (FIN | PONG, vec![9; 125]));
    }
}

/// A client says its last word and is gone: there is nobody to take the answer to the close or the ping behind it.
#[tokio::test]
async fn what_has_come_is_read_although_no_answer_can_be_written() {
    let close = frame(FIN | CLOSE, &1000u16.to_be_bytes());
    let ping = frame(FIN | PING, b"there?");
    for sent in [
        vec![frame(FIN | BINARY, b"last word"), close.clone()],
        vec![frame(FIN | BINARY, b"last word"), ping.clone()],
        vec![ping.clone(), frame(FIN | BINARY, b"last word"), close],
        vec![
            frame(BINARY, b"last"),
            ping,
            frame(FIN | CONTINUED, b" word"),
        ],
    ] {
        for taken in [4, 16, 4096] {
            let (mut server, mut client) = connected(4096).await;
            client.write_all(&sent.concat()).await.unwrap();
            drop(client);
            let (mut read, mut part): (Vec<u8>, _) = (Vec::new(), vec![0; taken]);
            loop {
                match server.read(&mut part).await.unwrap() {
                    0 => break,
                    length => read.extend(&part[..length]),
                }
            }
            assert_eq!(read, b"last word", "{sent:02x?}, {taken} at a time");
            let late = server.write_all(b"more").await;
            assert_eq!(late.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }
}

#[tokio::test]
async fn what_comes_with_the_request_counts() {
    let (near, mut far) = duplex(4096);
    let early = [REQUEST.as_bytes(), &frame(FIN | BINARY, b"early")].concat();
    far.write_all(&early).await.unwrap();
    far.shutdown().await.unwrap();
    let mut server = accept(near, &OFFER).await.unwrap();
    let mut read = [0; 3];
    server.read_exact(&mut read).await.unwrap();
    let mut rest = String::new();
    server.read_to_string(&mut rest).await.unwrap();
    assert_eq!((&read, rest.as_str()), (b"ear", "ly"));
}

#[tokio::test]
async fn who_breaks_the_rules_is_told_and_closed() {
    let mut unmasked = frame(FIN | BINARY, b"x");
    unmasked[1] &= 0x7f;
    let mut endless = frame(FIN | BINARY, &[0; 70_000])[..14].to_vec();
    endless[2] |= 0x80;
    let half = frame(BINARY, b"half");
    for (sent, code) in [
        // [MQTT-6.0.0-1]
        (frame(FIN | TEXT, b"text"), 1003),
        (frame(TEXT, b"te"), 1003),
        (unmasked, 1002),
        (endless, 1002),
        (frame(FIN | 0x40 | BINARY, b"compressed"), 1002),
        (frame(FIN | 3, b"x"), 1002),
        (frame(FIN | 11, b"x"), 1002),
        (frame(FIN | CONTINUED, b"of nothing"), 1002),
        ([half.clone(), frame(FIN | BINARY, b"new")].concat(), 1002),
        (frame(PING, b"x"), 1002),
        (frame(FIN | PING, &[0; 126]), 1002),
        (frame(FIN | CLOSE, b"x"), 1002),
        (frame(FIN | CLOSE, &1005u16.to_be_bytes()), 1002),
        (frame(FIN | CLOSE, &999u16.to_be_bytes()), 1002),
    ] {
        let (mut server, mut client) = connected(4096).await;
        client
            .write_all(&frame(FIN | BINARY, b"before"))
            .await
            .unwrap();
        client.write_all(&sent).await.unwrap();
        let mut read: Vec<u8> = Vec::new();
        let error = server.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(read.starts_with(b"before"), "{sent:02x?}");
        assert_eq!(
            answer(&mut client).await,
            (FIN | CLOSE, u16::to_be_bytes(code).to_vec()),
            "{sent:02x?}: {error}"
        );
        let late = server.write_all(b"more").await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn a_frame_of_any_length_costs_no_memory() {
    // It claims four exabytes; what is there of them is read.
    let (mut server, mut client) = connected(4096).await;
    let mut claims = frame(FIN | BINARY, &[0; 70_000])[..14].to_vec();
    claims[2] = 0x40;
    let mask = claims[10..14].to_vec();
    client.write_all(&claims).await.unwrap();
    let part: Vec<u8> = b"begun"
        .iter()
        .zip(mask.iter().cycle())
        .map(|(b, k)| b ^ k)
        .collect();
    client.write_all(&part).await.unwrap();
    let mut read = [0; 5];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"begun");
}

#[tokio::test]
async fn what_is_written_arrives_in_frames_of_a_bounded_size() {
    let (mut server, mut client) = connected(1000).await;
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let expected = bytes.clone();
    let writing = tokio::spawn(async move {
        server.write_all(b"a").await.unwrap();
        server.write_all(&bytes[..200]).await.unwrap();
        server.write_all(&bytes).await.unwrap();
        server.shutdown().await.unwrap();
    });
    let mut frames = Vec::new();
    loop {
        let (first, payload) = answer(&mut client).await;
        if first == FIN | CLOSE {
            assert_eq!(payload, 1000u16.to_be_bytes());
            break;
        }
        assert_eq!(first, FIN | BINARY);
        frames.push(payload);
    }
    writing.await.unwrap();
    assert_eq!((frames[0].len(), frames[1].len()), (1, 200));
    assert!(frames.iter().all(|frame| frame.len() <= limits::FRAME_OUT));
    assert!(frames[2..].concat() == expected);
}

/// A client that asks and takes no answer, while we write to it as well: nothing piles up, and all is well when it reads again.
#[tokio::test]
async fn pings_of_a_client_that_does_not_read_do_not_pile_up() {
    let (server, mut client) = connected(512).await;
    let (mut reader, mut writer) = tokio::io::split(server);
    let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 253) as u8).collect();
    let expected = bytes.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&bytes).await.unwrap();
        writer.flush().await.unwrap();
    });
    let reading = tokio::spawn(async move {
        let mut read: Vec<u8> = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        read
    });
    for number in 0..2000u16 {
        client
            .write_all(&frame(FIN | PING, &number.to_be_bytes()))
            .await
            .unwrap();
    }
    client
        .write_all(&frame(FIN | BINARY, b"done"))
        .await
        .unwrap();
    let (mut got, mut pongs) = (Vec::new(), Vec::new());
    while got.len() < expected.len() || pongs.last() != Some(&1999) {
        match answer(&mut client).await {
            (opcode, payload) if opcode == FIN | PONG => {
                pongs.push(u16::from_be_bytes(payload.try_into().unwrap()));
            }
            (_, payload) => got.extend(payload),
        }
    }
    assert!(got == expected);
    assert!(pongs.len() < 1000, "{} pongs", pongs.len());
    assert!(pongs.is_sorted());
    writing.await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(reading.await.unwrap(), b"done");
}
