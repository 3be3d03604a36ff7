//! From an HTTP request to a WebSocket (RFC 6455, section 4.2).

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use memchr::memmem;
use ring::digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::WebSocket;
use crate::limits;

/// What a listener offers.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The only path there is; a query behind it is passed over.
    pub path: &'static str,
    /// The sub-protocol that clients must ask for.
    pub protocol: &'static str,
    /// Whose pages may connect: a browser says in the request where the page is from (section 10.2). None: any. Who sends no `Origin` is no
    /// browser, and could send any.
    pub origins: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("no WebSocket: {0}")]
    Io(#[from] io::Error),
    #[error("no WebSocket: what came is no HTTP request: {0}")]
    NotHttp(httparse::Error),
    /// The client was told, with this status of HTTP.
    #[error("no WebSocket: refused with {status}: {reason}")]
    Refused { status: u16, reason: String },
}

/// Section 1.3: whoever answers with this has read the request as one for a WebSocket.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Takes a client's request and answers it. The caller bounds the time.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    offer: &Offer,
) -> Result<WebSocket<S>, UpgradeError> {
    let mut input = BytesMut::new();
    let read = match read_head(&mut stream, &mut input).await {
        Ok(length) => {
            let head = input.split_to(length);
            judge(&head, offer)
        }
        Err(error) => Err(error),
    };
    let key = match read {
        Ok(key) => key,
        Err(error) => {
            if let Some(answer) = refusal(&error, offer) {
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await?;
            }
            return Err(error);
        }
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        offer.protocol
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    Ok(WebSocket::new(stream, input))
}

/// The length of the request up to the empty line.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<usize, UpgradeError> {
    const END: &[u8] = b"\r\n\r\n";
    let mut looked = 0;
    loop {
        let from = looked.min(input.len());
        if let Some(end) = memmem::find(input.get(from..).unwrap_or_default(), END) {
            return Ok(from + end + END.len());
        }
        looked = input.len().saturating_sub(END.len() - 1);
        if input.len() >= limits::HTTP_HEAD {
            return Err(refused(431, "the request is too long"));
        }
        // Something else than HTTP is not waited out.
        if looked == 0 || input.len() < limits::HTTP_READ {
            let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS];
            httparse::Request::new(&mut headers)
                .parse(input)
                .map_err(not_http)?;
        }
        input.reserve(limits::HTTP_READ);
        if stream.read_buf(input).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// The answer to the client's key.
fn judge(head: &[u8], offer: &Offer) -> Result<String, UpgradeError> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).map_err(not_http)?;
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some(offer.path) {
        return Err(refused(404, format!("the path is {}", offer.path)));
    }
    if request.method != Some("GET") {
        return Err(refused(405, "a WebSocket begins with GET"));
    }
    let has = |name: &str, word: &str| {
        values(&request, name).any(|value| value.eq_ignore_ascii_case(word))
    };
    if !has("upgrade", "websocket") || !has("connection", "upgrade") || request.version != Some(1) {
        return Err(refused(426, "this is for WebSockets"));
    }
    if !has("sec-websocket-version", "13") {
        return Err(refused(426, "the version of WebSocket is 13"));
    }
    if let Some(origin) = stranger(&request, offer) {
        return Err(refused(403, format!("pages of {origin:?} may not connect")));
    }
    // Names of sub-protocols are case-sensitive (section 4.2.2).
    if !values(&request, "sec-websocket-protocol").any(|value| value == offer.protocol) {
        return Err(refused(
            400,
            format!(
                "the sub-protocol (Sec-WebSocket-Protocol) is {}",
                offer.protocol
            ),
        ));
    }
    let key = values(&request, "sec-websocket-key").next();
    let nonce = key.and_then(|key| Some((key, STANDARD.decode(key).ok()?)));
    let Some((key, _)) = nonce.filter(|(_, nonce)| nonce.len() == 16) else {
        return Err(refused(400, "Sec-WebSocket-Key is not 16 bytes in base64"));
    };
    Ok(accept_key(key))
}

fn accept_key(key: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finish())
}

/// Where the client's page is from, if that is nowhere it may be from.
fn stranger<'a>(request: &'a httparse::Request<'_, '_>, offer: &Offer) -> Option<&'a str> {
    let allowed = |origin: &str| {
        let mut origins = offer.origins.iter();
        offer.origins.is_empty() || origins.any(|allowed| allowed.eq_ignore_ascii_case(origin))
    };
    values(request, "origin").find(|origin| !allowed(origin))
}

/// The values of all headers of that name, which may be lists.
fn values<'a>(
    request: &'a httparse::Request<'_, '_>,
    name: &'a str,
) -> impl Iterator<Item = &'a str> {
    request
        .headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn refused(status: u16, reason: impl Into<String>) -> UpgradeError {
    UpgradeError::Refused {
        status,
        reason: reason.into(),
    }
}

fn not_http(error: httparse::Error) -> UpgradeError {
    match error {
        httparse::Error::TooManyHeaders => refused(431, "the request has too many headers"),
        error => UpgradeError::NotHttp(error),
    }
}

fn refusal(error: &UpgradeError, offer: &Offer) -> Option<String> {
    let (status, reason) = match error {
        UpgradeError::Io(_) => return None,
        UpgradeError::NotHttp(_) => (400, "this is no HTTP request"),
        UpgradeError::Refused { status, reason } => (*status, reason.as_str()),
    };
    let (phrase, more) = match status {
        403 => ("Forbidden", ""),
        404 => ("Not Found", ""),
        405 => ("Method Not Allowed", "Allow: GET\r\n"),
        426 => (
            "Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        ),
        431 => ("Request Header Fields Too Large", ""),
        _ => ("Bad Request", ""),
    };
    let connection = if status == 426 {
        "close, Upgrade"
    } else {
        "close"
    };
    let body = format!(
        "{reason} (path {}, sub-protocol {})\n",
        offer.path, offer.protocol
    );
    Some(format!(
        "HTTP/1.1 {status} {phrase}\r\n{more}Connection: {connection}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        path: "/mqtt",
        protocol: "mqtt",
        origins: Vec::new(),
    };

    #[test]
    fn the_key_of_the_specification_has_its_answer() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    /// The request of section 1.2, with lines replaced or taken away.
    fn request(line: &str, without: &str, with: &str) -> String {
        let headers = [
            "Host: server.example.com",
            "Upgrade: websocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: chat, mqtt",
            "Sec-WebSocket-Version: 13",
        ];
        let kept = headers
            .iter()
            .filter(|header| without.is_empty() || !header.starts_with(without));
        let kept: Vec<&str> = kept.copied().collect();
        format!("{line}\r\n{}\r\n{with}\r\n", kept.join("\r\n"))
    }

    #[tokio::test]
    async fn what_is_no_request_for_this_websocket_is_told_why() {
        let get = "GET /mqtt HTTP/1.1";
        let long = format!("X-Long: {}\r\n", "x".repeat(limits::HTTP_HEAD));
        let many = "X: y\r\n".repeat(limits::HTTP_HEADERS);
        for (head, status) in [
            (request(get, "", ""), 101),
            (request("GET /mqtt?token=1 HTTP/1.1", "", ""), 101),
            (
                request(
                    get,
                    "Sec-WebSocket-Protocol",
                    "Sec-WebSocket-Protocol: mqtt\r\n",
                ),
                101,
            ),
            (request("GET / HTTP/1.1", "", ""), 404),
            (request("GET /mqtt/ HTTP/1.1", "", ""), 404),
            (request("GET /other HTTP/1.1", "Upgrade", ""), 404),
            (request("POST /mqtt HTTP/1.1", "", ""), 405),
            (request("GET /mqtt HTTP/1.0", "", ""), 426),
            (request(get, "Upgrade", ""), 426),
            (request(get, "Connection", ""), 426),
            (
                request(get, "Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n"),
                426,
            ),
            (request(get, "Sec-WebSocket-Protocol", ""), 400),
            (
                request(
                    get,
                    "Sec-WebSocket-Protocol",
                    "Sec-WebSocket-Protocol: MQTT\r\n",
                ),
                400,
            ),
            (request(get, "Sec-WebSocket-Key", ""), 400),
            (
                request(get, "Sec-WebSocket-Key", "Sec-WebSocket-Key: c2hvcnQ=\r\n"),
                400,
            ),
            (request(get, "", &long), 431),
            (request(get, "", &many), 431),
            ("\x10\x0c\0\x04MQTT".to_owned(), 400),
        ] {
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            far.write_all(head.as_bytes()).await.unwrap();
            let made = accept(near, &OFFER).await;
            assert_eq!(made.is_ok(), status == 101, "{head}");
            drop(made);
            let mut answer = String::new();
            far.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{status}: {answer}\n{head}"
            );
            if status == 101 {
                assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
                assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
            }
        }
    }

    #[tokio::test]
    async fn pages_from_elsewhere_are_refused_where_it_is_said_whose_may_connect() {
        let only = ["https://a.example", "http://localhost:3000", "null"];
        for (origin, allowed) in [
            ("", true),
            ("Origin: https://a.example\r\n", true),
            ("origin: HTTPS://A.example\r\n", true),
            ("Origin: http://localhost:3000\r\n", true),
            ("Origin: null\r\n", true),
            ("Origin: http://a.example\r\n", false),
            ("Origin: https://a.example:8443\r\n", false),
            ("Origin: https://a.example.evil.example\r\n", false),
            ("Origin: http://localhost\r\n", false),
            (
                "Origin: https://a.example\r\nOrigin: https://b.example\r\n",
                false,
            ),
            ("Origin: \r\n", false),
        ] {
            for origins in [only.map(str::to_owned).to_vec(), Vec::new()] {
                let expected = if allowed || origins.is_empty() {
                    101
                } else {
                    403
                };
                let offer = Offer { origins, ..OFFER };
                let (near, mut far) = tokio::io::duplex(64 * 1024);
                let head = request("GET /mqtt HTTP/1.1", "", origin);
                far.write_all(head.as_bytes()).await.unwrap();
                drop(accept(near, &offer).await);
                let mut answer = String::new();
                far.read_to_string(&mut answer).await.unwrap();
                let status = format!("HTTP/1.1 {expected} ");
                assert!(answer.starts_with(&status), "{origin}: {answer}");
            }
        }
    }
}
