//! From the protocol header to `connection.open-ok` (clause 2.2.4).

use bytes::BytesMut;
use frontend::{Peer, Principal};
use quota::Share;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::{
    broker::Broker,
    error::{Exception, code},
    frame, limits, login,
    method::Method,
    reply,
    vhost::VirtualHost,
    wire::{Table, Value},
};

/// What was agreed.
pub struct Negotiated {
    pub principal: Principal,
    pub share: Share,
    pub vhost: std::sync::Arc<VirtualHost>,
    pub channel_max: u16,
    pub frame_max: u32,
    /// Seconds; 0 = none.
    pub heartbeat: u16,
    /// The client understands `basic.cancel` from us.
    pub cancel_notify: bool,
    /// What the client calls its connection; may be empty. Rules can name it.
    pub client: String,
    /// What the client calls itself, for logs.
    pub product: String,
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    #[error("the client does not speak AMQP 0-9-1")]
    NotAmqp,
    #[error("refused: {0}")]
    Refused(#[from] Exception),
    /// Of a client that is not told in words.
    #[error("refused: {0}")]
    Login(Exception),
    #[error("the client closed the connection")]
    Closed,
}

pub async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
    broker: &Broker,
    peer: &Peer,
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<Negotiated, HandshakeError> {
    while input.len() < frame::PROTOCOL_HEADER.len() {
        if stream.read_buf(input).await? == 0 {
            return Err(HandshakeError::Closed);
        }
        // What cannot become the header is answered before all of it is there.
        if !frame::PROTOCOL_HEADER.starts_with(input.get(..input.len().min(8)).unwrap_or_default())
        {
            break;
        }
    }
    if input.get(..8) != Some(&frame::PROTOCOL_HEADER[..]) {
        stream.write_all(&frame::PROTOCOL_HEADER).await?;
        let _ = stream.shutdown().await;
        return Err(HandshakeError::NotAmqp);
    }
    let _ = input.split_to(8);

    let mut out = BytesMut::new();
    let mechanisms = match peer.certificate {
        Some(_) => "EXTERNAL PLAIN AMQPLAIN",
        None => "PLAIN AMQPLAIN",
    };
    reply::connection_start(&mut out, &server_properties(), mechanisms);
    stream.write_all_buf(&mut out).await?;
    stream.flush().await?;
    let result = agree(broker, peer, stream, input).await;
    if let Err(HandshakeError::Refused(exception)) = &result {
        reply::connection_close(&mut out, exception.code, &exception.text, (10, 40));
        stream.write_all_buf(&mut out).await?;
        stream.flush().await?;
        // The reason must arrive: wait for close-ok, or for the end, within the time of the handshake.
        while let Ok(method) = next_method(stream, input, limits::FRAME_MAX_BEFORE_TUNE).await {
            if method == Method::ConnectionCloseOk {
                break;
            }
        }
        let _ = stream.shutdown().await;
    }
    result
}

async fn agree<S: AsyncRead + AsyncWrite + Unpin>(
    broker: &Broker,
    peer: &Peer,
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<Negotiated, HandshakeError> {
    let max = limits::FRAME_MAX_BEFORE_TUNE;
    let Method::ConnectionStartOk(start) = next_method(stream, input, max).await? else {
        return Err(out_of_order("connection.start-ok").into());
    };
    let capability = |name: &str| match start.client_properties.get("capabilities") {
        Some(Value::Table(t)) => t.get(name) == Some(&Value::Bool(true)),
        _ => false,
    };
    let principal = match login::login(broker, peer, &start).await {
        Ok(principal) => principal,
        Err(refused) if capability("authentication_failure_close") => return Err(refused.into()),
        // What is not told of it would take a close for a failure of ours: the specification has it that the socket is closed.
        Err(refused) => return Err(HandshakeError::Login(refused)),
    };
    let cancel_notify = capability("consumer_cancel_notify");
    let client = login::client_name(&start);
    let product = start
        .client_properties
        .get("product")
        .and_then(Value::as_text)
        .unwrap_or_default()
        .chars()
        .take(64)
        .collect();

    let mut out = BytesMut::new();
    reply::connection_tune(
        &mut out,
        limits::CHANNEL_MAX,
        limits::FRAME_MAX,
        limits::HEARTBEAT_SECONDS,
    );
    stream.write_all_buf(&mut out).await?;
    stream.flush().await?;
    let Method::ConnectionTuneOk {
        channel_max,
        frame_max,
        heartbeat,
    } = next_method(stream, input, max).await?
    else {
        return Err(out_of_order("connection.tune-ok").into());
    };
    // Zero is "no limit of mine": then ours holds.
    let channel_max = if channel_max == 0 {
        limits::CHANNEL_MAX
    } else {
        channel_max
    };
    let frame_max = if frame_max == 0 {
        limits::FRAME_MAX
    } else {
        frame_max
    };
    if channel_max > limits::CHANNEL_MAX
        || !(limits::FRAME_MIN..=limits::FRAME_MAX).contains(&frame_max)
    {
        return Err(Exception::connection(
            code::NOT_ALLOWED,
            format_args!(
                "negotiation failed: channel_max {channel_max} (at most {}), frame_max {frame_max} ({} to {})",
                limits::CHANNEL_MAX,
                limits::FRAME_MIN,
                limits::FRAME_MAX
            ),
        )
        .into());
    }
    let Method::ConnectionOpen { vhost } = next_method(stream, input, frame_max).await? else {
        return Err(out_of_order("connection.open").into());
    };
    let Some(found) = broker.vhost(&vhost) else {
        return Err(Exception::connection(
            code::NOT_ALLOWED,
            format_args!("vhost '{vhost}' not found: use '/'"),
        )
        .into());
    };
    let mut share = broker
        .context
        .enter(&principal.asker(&client))
        .map_err(|error| Exception::connection(code::NOT_ALLOWED, error))?;
    // Who comes back is held for what he owes; so is what a client sends behind connection.open without waiting.
    share.begin(Instant::now());
    share.take(0, input.len() as u64, Instant::now());
    reply::connection_open_ok(&mut out);
    stream.write_all_buf(&mut out).await?;
    stream.flush().await?;
    Ok(Negotiated {
        principal,
        share,
        vhost: found,
        channel_max,
        frame_max,
        heartbeat,
        cancel_notify,
        client,
        product,
    })
}

fn out_of_order(expected: &str) -> Exception {
    Exception::connection(code::COMMAND_INVALID, format_args!("expected {expected}"))
}

async fn next_method<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
    frame_max: u32,
) -> Result<Method, HandshakeError> {
    loop {
        if let Some(frame) = frame::split(input, frame_max).map_err(Exception::from)? {
            match frame.kind {
                frame::HEARTBEAT => continue,
                frame::METHOD if frame.channel == 0 => {
                    return match Method::parse(frame.payload)? {
                        Method::ConnectionClose { .. } => Err(HandshakeError::Closed),
                        method => Ok(method),
                    };
                }
                _ => {
                    return Err(Exception::connection(
                        code::UNEXPECTED_FRAME,
                        "only methods on channel 0 before connection.open",
                    )
                    .into());
                }
            }
        }
        if stream.read_buf(input).await? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
}

fn server_properties() -> Table {
    let capabilities = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "per_consumer_qos",
        "authentication_failure_close",
    ]
    .iter()
    .fold(Table::default(), |t, name| t.with(name, Value::Bool(true)));
    Table::default()
        .with("product", Value::text("Towline"))
        .with("version", Value::text(env!("CARGO_PKG_VERSION")))
        .with("platform", Value::text("Rust"))
        .with(
            "information",
            Value::text("Licensed under the Apache License 2.0"),
        )
        .with("capabilities", Value::Table(capabilities))
}
