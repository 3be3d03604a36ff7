//! One connection: requests in, answers out in the same order.
//!
//! As in Kafka, a request is answered before the next is looked at, with one exception: Produce requests enter the log
//! in their order as they arrive, and only their answers wait for the disk.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use frontend::{Connection, Peer, Principal};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use quota::{Exceeded, Share};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::broker::{Broker, Call};
use crate::dispatch::{self, Answer};
use crate::limits;
use crate::receive::{ReceiveError, Receiver};
use crate::sasl::Sasl;
use crate::transmit::transmit;
use crate::wire::sasl_authenticate::SaslAuthenticateRequest;
use crate::wire::sasl_handshake::SaslHandshakeRequest;
use crate::wire::{Api, Reader, RequestHeader, WireError};

/// Why a connection ends before the client ends it.
#[derive(Debug, thiserror::Error)]
pub enum Close {
    #[error("cannot receive: {0}")]
    Receive(#[from] ReceiveError),
    #[error("a client that has to say who it is first asked for something else")]
    Stranger,
    #[error("a quota is used up: {0}")]
    Quota(#[from] Exceeded),
    #[error("cannot send: {0}")]
    Send(#[from] std::io::Error),
    #[error("bad request: {0}")]
    Wire(#[from] WireError),
    #[error("a produce request with acks=0 failed with error {0}; closing is the only way to tell")]
    UnacknowledgedFailure(i16),
}

/// Serves one client until it leaves, breaks the protocol, or the process is asked to stop.
pub async fn serve(broker: Arc<Broker>, connection: Connection) {
    let Connection {
        stream,
        peer,
        local,
        shutdown,
        ..
    } = connection;
    let (reader, mut writer) = stream.into_split();
    let mut receiver = Receiver::new(reader);
    let mut produces = Produces::default();
    let mut sasl = Sasl::new(broker.ctx.identity.clone(), &peer);
    if sasl.principal().is_none() {
        receiver.limit(limits::MAX_STRANGERS_REQUEST);
    }
    let mut known_by = Instant::now() + broker.ctx.limits.handshake;
    let mut share: Option<Share> = None;
    // With this share.
    let mut has_produced = false;
    let ended: Result<(), Close> = async {
        loop {
            let principal = sasl.principal().cloned();
            let held = share.as_mut().and_then(|share| share.until(Instant::now()));
            let frame = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = no_longer_welcome(principal.as_deref(), known_by) => break,
                Some(answer) = produces.answers.next() => {
                    produces.send(answer, &mut writer).await?;
                    continue;
                }
                () = sleep_until(held.unwrap_or(known_by)), if held.is_some() => continue,
                frame = receiver.next(), if produces.may_receive() && held.is_none() => frame?,
            };
            let Some(frame) = frame else { break };
            let length = frame.len();
            let mut reader = Reader::new(frame, false);
            let (header, api) = RequestHeader::read(&mut reader)?;
            match api {
                Ok(Api::SaslHandshake) => {
                    produces.finish(&mut writer).await?;
                    let request = dispatch::read(&header, reader)?;
                    let response = sasl.handshake(header.version, &request);
                    transmit(
                        &mut writer,
                        dispatch::frame::<SaslHandshakeRequest>(&header, &response),
                    )
                    .await?;
                    if principal.is_some() && sasl.principal().is_none() {
                        // It was welcome as it was, and is nobody now: who it turns out to be has a share of his own, and as much time to say it.
                        share = None;
                        known_by = Instant::now() + broker.ctx.limits.handshake;
                        receiver.limit(limits::MAX_STRANGERS_REQUEST);
                    }
                    continue;
                }
                Ok(Api::SaslAuthenticate) => {
                    produces.finish(&mut writer).await?;
                    let request = dispatch::read(&header, reader)?;
                    let response = sasl.authenticate(request).await;
                    transmit(
                        &mut writer,
                        dispatch::frame::<SaslAuthenticateRequest>(&header, &response),
                    )
                    .await?;
                    if sasl.has_failed() {
                        break;
                    }
                    if sasl.principal().is_some() {
                        receiver.limit(usize::MAX);
                    }
                    continue;
                }
                _ => {}
            }
            let asks_versions = header.key == Api::ApiVersions.key();
            // As soon as a client of whom it is known who it is says what it calls itself; before it says who it is, it asks for versions.
            if let Some(principal) = &principal
                && share.is_none()
                && !asks_versions
            {
                let client = header.client_id.as_deref().unwrap_or_default();
                share = Some(broker.ctx.enter(&principal.asker(client))?);
                has_produced = false;
            }
            let asker = match &principal {
                Some(principal) => principal.clone(),
                // What can be asked of whom is asked by everybody.
                None if asks_versions => Arc::new(Principal::anonymous()),
                None => return Err(Close::Stranger),
            };
            let call = call(&broker, &header, asker, &peer, local);
            if let Ok(Api::Produce) = api {
                let mut of_nothing = Share::default();
                let share = share.as_mut().unwrap_or(&mut of_nothing);
                // What earlier connections have produced is made up for first. It is here already, and waits as if it had not been heard yet.
                if !std::mem::replace(&mut has_produced, true)
                    && let Some(until) = share.begin(Instant::now())
                {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => break,
                        () = no_longer_welcome(principal.as_deref(), known_by) => break,
                        () = sleep_until(until) => {}
                    }
                }
                produces.push(length, dispatch::produce(call, header, reader, share)?);
                continue;
            }
            produces.finish(&mut writer).await?;
            let answer = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // A Fetch can wait for minutes, a JoinGroup for longer.
                () = no_longer_welcome(principal.as_deref(), known_by) => break,
                answer = dispatch::answer(call, header, api, reader) => answer?,
                closed = receiver.closed() => {
                    closed?;
                    break;
                }
            };
            transmit(&mut writer, answer).await?;
        }
        // What was taken into the log is acknowledged even if the process stops now.
        produces.finish(&mut writer).await
    }
    .await;
    match ended {
        // The protocol has no word for it: Kafka closes, too.
        Err(Close::Quota(error)) => {
            info!(%peer, %error, "a client may not connect: a quota is used up")
        }
        Err(close) => debug!(%peer, %close, "connection closed"),
        Ok(()) => {}
    }
    // TLS says that this is the end; a client that is gone needs not hear it.
    let _ = tokio::time::timeout(limits::LAST_WORDS, writer.shutdown()).await;
}

/// Resolves when a client may not be connected any more, or has not said in time who it is.
async fn no_longer_welcome(principal: Option<&Principal>, known_by: Instant) {
    match principal {
        Some(principal) => principal.revoked().await,
        None => sleep_until(known_by).await,
    }
}

fn call(
    broker: &Arc<Broker>,
    header: &RequestHeader,
    principal: Arc<Principal>,
    peer: &Peer,
    local: SocketAddr,
) -> Arc<Call> {
    Arc::new(Call {
        broker: broker.clone(),
        version: header.version,
        principal,
        client_id: header.client_id.clone().unwrap_or_default(),
        peer: peer.clone(),
        local,
    })
}

/// Produce requests whose records are on their way into the log.
#[derive(Default)]
struct Produces {
    answers: FuturesOrdered<BoxFuture<'static, (usize, Answer)>>,
    bytes: usize,
}

impl Produces {
    fn may_receive(&self) -> bool {
        self.answers.len() < limits::MAX_PIPELINED_REQUESTS
            && self.bytes < limits::MAX_PIPELINED_BYTES
    }

    fn push(&mut self, length: usize, answer: impl Future<Output = Answer> + Send + 'static) {
        self.bytes += length;
        self.answers
            .push_back(Box::pin(async move { (length, answer.await) }));
    }

    async fn send<W: AsyncWrite + Unpin>(
        &mut self,
        answer: (usize, Answer),
        writer: &mut W,
    ) -> Result<(), Close> {
        self.bytes = self.bytes.saturating_sub(answer.0);
        let chunks: Option<Vec<Bytes>> = answer.1?;
        if let Some(chunks) = chunks {
            transmit(writer, chunks).await?;
        }
        Ok(())
    }

    async fn finish<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> Result<(), Close> {
        while let Some(answer) = self.answers.next().await {
            self.send(answer, writer).await?;
        }
        Ok(())
    }
}
