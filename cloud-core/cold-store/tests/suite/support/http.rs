//! As much HTTP/1.1 as a proxy needs that wants to know where a message ends.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// One message: its head, and its body as it was on the wire.
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    /// The first line.
    pub fn start(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn wire(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }
}

/// Reads a message; `None` at the end of the connection.
pub async fn read<R: AsyncRead + Unpin>(
    from: &mut R,
    answer_to_head: bool,
) -> io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match from.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) if bytes.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
        assert!(bytes.len() < 64 * 1024, "a head without end");
    }
    let mut message = Message {
        head: String::from_utf8_lossy(&bytes).into_owned(),
        body: Vec::new(),
    };
    let bodiless = ["HTTP/1.1 204", "HTTP/1.1 304"];
    if answer_to_head || bodiless.iter().any(|s| message.start().starts_with(s)) {
        return Ok(Some(message));
    }
    if let Some(length) = message.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        message.body.resize(length, 0);
        from.read_exact(&mut message.body).await?;
    } else if message.header("transfer-encoding").is_some() {
        while !message.body.ends_with(b"\r\n0\r\n\r\n") && message.body != b"0\r\n\r\n" {
            message.body.push(from.read_u8().await?);
        }
    }
    Ok(Some(message))
}
