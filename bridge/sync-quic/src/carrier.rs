//! What carries the frames: the streams of a QUIC connection, or the channels of a TLS connection over TCP. Everything above
//! sees only this.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use sync::CloseCode;

use crate::mux::{ChannelReader, ChannelWriter, Mux};
use crate::quic;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closed {
    ByPeer {
        code: CloseCode,
        reason: String,
    },
    ByUs,
    /// Nothing was heard for too long, or the network said no.
    Link(String),
    /// One of the two does not accept the other's certificate.
    Untrusted(String),
    /// The core is there and has no time for a handshake now.
    Busy(String),
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Closed::ByPeer { code, reason } => write!(f, "closed by the peer: {code}: {reason}"),
            Closed::ByUs => f.write_str("closed"),
            Closed::Link(reason) | Closed::Untrusted(reason) | Closed::Busy(reason) => {
                f.write_str(reason)
            }
        }
    }
}

/// Which of the two carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Quic,
    Tls,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Transport::Quic => "quic",
            Transport::Tls => "tls",
        })
    }
}

#[derive(Clone)]
pub(crate) enum Carrier {
    Quic(quinn::Connection),
    Tls(Mux),
}

pub(crate) enum SendPipe {
    Quic(quinn::SendStream),
    Tls(ChannelWriter),
}

pub(crate) enum RecvPipe {
    Quic(quinn::RecvStream),
    Tls(ChannelReader),
}

/// Why a pipe gives no more.
pub(crate) enum PipeError {
    Closed(Closed),
    /// This one stream was reset, or is no longer read by the peer.
    Reset,
}

impl Carrier {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Carrier::Quic(_) => Transport::Quic,
            Carrier::Tls(_) => Transport::Tls,
        }
    }

    /// The edge's side of the control stream.
    pub(crate) async fn open_control(&self) -> Result<(SendPipe, RecvPipe), Closed> {
        match self {
            Carrier::Quic(quic) => {
                let (send, recv) = quic.open_bi().await.map_err(quic::closed)?;
                Ok(control(send, recv))
            }
            Carrier::Tls(mux) => {
                let (send, recv) = mux.control()?;
                Ok((SendPipe::Tls(send), RecvPipe::Tls(recv)))
            }
        }
    }

    /// The core's side of the control stream.
    pub(crate) async fn accept_control(&self) -> Result<(SendPipe, RecvPipe), Closed> {
        match self {
            Carrier::Quic(quic) => {
                let (send, recv) = quic.accept_bi().await.map_err(quic::closed)?;
                Ok(control(send, recv))
            }
            Carrier::Tls(mux) => {
                let (send, recv) = mux.control()?;
                Ok((SendPipe::Tls(send), RecvPipe::Tls(recv)))
            }
        }
    }

    /// A stream in one direction. What is of a higher priority goes first onto the wire, whatever was written before it.
    pub(crate) async fn open_uni(&self, priority: i32) -> Result<SendPipe, Closed> {
        match self {
            Carrier::Quic(quic) => {
                let send = quic.open_uni().await.map_err(quic::closed)?;
                // An error = the stream is closed already, which the first write says better.
                let _ = send.set_priority(priority);
                Ok(SendPipe::Quic(send))
            }
            Carrier::Tls(mux) => Ok(SendPipe::Tls(mux.open(priority)?)),
        }
    }

    /// Cancel-safe.
    pub(crate) async fn accept_uni(&self) -> Result<RecvPipe, Closed> {
        match self {
            Carrier::Quic(quic) => {
                let recv = quic.accept_uni().await.map_err(quic::closed)?;
                Ok(RecvPipe::Quic(recv))
            }
            Carrier::Tls(mux) => Ok(RecvPipe::Tls(mux.accept().await?)),
        }
    }

    /// Closes at once; on TLS what was written to the control stream still goes first.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        match self {
            Carrier::Quic(quic) => quic.close(code.to_wire().into(), reason.as_bytes()),
            Carrier::Tls(mux) => mux.close(code, reason),
        }
    }

    /// Cancel-safe.
    pub(crate) async fn closed(&self) -> Closed {
        match self {
            Carrier::Quic(quic) => quic::closed(quic.closed().await),
            Carrier::Tls(mux) => mux.closed().await,
        }
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        match self {
            // The edge may have moved to another network since the handshake.
            Carrier::Quic(quic) => quic.remote_address(),
            Carrier::Tls(mux) => mux.remote(),
        }
    }

    /// The first certificate that the peer showed, DER.
    pub(crate) fn peer_certificate(&self) -> Option<Vec<u8>> {
        match self {
            Carrier::Quic(quic) => quic
                .peer_identity()
                .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
                .and_then(|chain| chain.first().map(|leaf| leaf.to_vec())),
            Carrier::Tls(mux) => mux.peer_certificate(),
        }
    }

    /// A number that changes whenever something is heard from the peer.
    pub(crate) fn heard(&self) -> u64 {
        match self {
            Carrier::Quic(quic) => quic.stats().udp_rx.datagrams,
            Carrier::Tls(mux) => mux.heard(),
        }
    }

    /// The smoothed round-trip time, where it is known.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        match self {
            Carrier::Quic(quic) => Some(quic.rtt()),
            Carrier::Tls(mux) => mux.rtt(),
        }
    }
}

pub(crate) fn control(send: quinn::SendStream, recv: quinn::RecvStream) -> (SendPipe, RecvPipe) {
    // Above every lane: acknowledgements and answers are small and somebody waits for them.
    let _ = send.set_priority(CONTROL_PRIORITY);
    (SendPipe::Quic(send), RecvPipe::Quic(recv))
}

/// The control stream's priority among the streams of a connection.
pub(crate) const CONTROL_PRIORITY: i32 = i32::MAX;

impl SendPipe {
    /// Writes the pieces one after the other, without copying them. Not cancel-safe.
    pub(crate) async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(), PipeError> {
        match self {
            SendPipe::Quic(stream) => {
                stream
                    .write_all_chunks(pieces)
                    .await
                    .map_err(|error| match error {
                        quinn::WriteError::ConnectionLost(lost) => {
                            PipeError::Closed(quic::closed(lost))
                        }
                        _ => PipeError::Reset,
                    })
            }
            SendPipe::Tls(channel) => channel.write(pieces).await.map_err(PipeError::Closed),
        }
    }

    /// Says that nothing follows, and waits until the peer has everything, as far as the transport knows.
    pub(crate) async fn finish(&mut self) {
        match self {
            SendPipe::Quic(stream) => {
                if stream.finish().is_ok() {
                    // Any of: delivered, stopped by the peer, connection gone. Nothing is left to do after all of them.
                    let _ = stream.stopped().await;
                }
            }
            SendPipe::Tls(channel) => channel.finish(),
        }
    }
}

impl RecvPipe {
    /// The next bytes, or `None` at the stream's end. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, PipeError> {
        match self {
            RecvPipe::Quic(stream) => match stream.read_chunk(quic::CHUNK, true).await {
                Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
                Err(quinn::ReadError::ConnectionLost(lost)) => {
                    Err(PipeError::Closed(quic::closed(lost)))
                }
                Err(_) => Err(PipeError::Reset),
            },
            RecvPipe::Tls(channel) => channel.read().await.map_err(PipeError::Closed),
        }
    }
}

/// Closes when it is dropped: a TLS connection does not do that by itself.
pub(crate) struct CloseOnDrop(pub(crate) Carrier);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(CloseCode::Normal, "");
    }
}
