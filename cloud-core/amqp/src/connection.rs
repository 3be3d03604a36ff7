//! One connection: one task that reads frames, hands published messages to the kernel, sends what its consumers get, and
//! never waits for a peer that does not read.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{FuturesOrdered, FuturesUnordered},
};
use kernel::{DeliveryId, QueueError, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    broker::Broker,
    channel::Channel,
    deliver::Event,
    error::{Exception, Scope, code},
    frame::{self, Frame},
    handshake::{self, HandshakeError, Negotiated},
    limits,
    method::{Method, MethodId},
    publisher::{Committed, Publisher},
    queue::QueueState,
    reply,
    vhost::VirtualHost,
};

/// Deliveries settled since the last flush, by queue.
type Settling = HashMap<(u64, Ending), (Arc<QueueState>, Vec<DeliveryId>)>;

/// [`Verdict`] as a key: the kernel's is no hash key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    Accept,
    Release,
    Reject,
}

pub struct Session {
    pub broker: Arc<Broker>,
    pub vhost: Arc<VirtualHost>,
    pub agreed: Negotiated,
    pub id: u64,
    pub out: BytesMut,
    pub channels: BTreeMap<u16, Channel>,
    pub publisher: Publisher,
    /// Flushed, not yet durable; in order, so that confirms go out in order.
    pub uncommitted: FuturesOrdered<BoxFuture<'static, Committed>>,
    pub uncommitted_bytes: usize,
    settling: Settling,
    pub settles: FuturesUnordered<BoxFuture<'static, Result<usize, QueueError>>>,
    pub events: FuturesUnordered<BoxFuture<'static, Event>>,
    /// Acquisitions under way, each up to [`limits::ACQUIRE_BYTES`].
    pub acquiring: usize,
    pub next_consumer: u64,
    /// We have sent `connection.close`.
    pub closing: Option<Instant>,
    pub ended: bool,
}

/// Serves one accepted connection to its end.
pub async fn serve(broker: Arc<Broker>, mut connection: frontend::Connection) {
    let mut input = BytesMut::with_capacity(4096);
    let peer = connection.peer.clone();
    let limit = Duration::from_secs(limits::HANDSHAKE_SECONDS);
    let agreed = match timeout(
        limit,
        handshake::negotiate(&broker, &peer, &mut connection.stream, &mut input),
    )
    .await
    {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(HandshakeError::Closed | HandshakeError::Io(_))) => return,
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "AMQP connection refused");
            return;
        }
        Err(_) => {
            tracing::info!(%peer, "AMQP connection closed: not opened within {limit:?}");
            return;
        }
    };
    tracing::debug!(%peer, user = %agreed.principal.name, product = agreed.product, "AMQP connection open");
    let mut session = Session {
        vhost: agreed.vhost.clone(),
        agreed,
        // Holders are unique in the process and so are owners of exclusive queues.
        id: broker.new_holder(),
        broker,
        out: BytesMut::new(),
        channels: BTreeMap::new(),
        publisher: Publisher::default(),
        uncommitted: FuturesOrdered::new(),
        uncommitted_bytes: 0,
        settling: HashMap::new(),
        settles: FuturesUnordered::new(),
        events: FuturesUnordered::new(),
        acquiring: 0,
        next_consumer: 0,
        closing: None,
        ended: false,
    };
    session.run(connection, input).await;
    session.clean_up().await;
}

/// Writes a part of `out`, and flushes behind the last of it: TLS may hold it back. Nothing is lost when it is cancelled.
async fn write_some<W: AsyncWrite + Unpin>(
    writer: &mut W,
    out: &mut BytesMut,
    unflushed: &mut bool,
) -> std::io::Result<()> {
    if !out.is_empty() {
        *unflushed = true;
        if writer.write_buf(out).await? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    if out.is_empty() {
        writer.flush().await?;
        *unflushed = false;
    }
    Ok(())
}

impl Session {
    async fn run(&mut self, connection: frontend::Connection, mut input: BytesMut) {
        let shutdown = connection.shutdown.clone();
        let (mut reader, mut writer) = connection.stream.into_split();
        let beat =
            (self.agreed.heartbeat > 0).then(|| Duration::from_secs(self.agreed.heartbeat.into()));
        let (mut last_read, mut last_write) = (Instant::now(), Instant::now());
        let mut unflushed = false;
        loop {
            if let Err(exception) = self.take_input(&mut input).await {
                self.close_connection(&exception, (0, 0));
            }
            self.flush();
            self.pump();
            if self.ended && self.out.is_empty() {
                let _ = writer.shutdown().await;
                return;
            }
            // Half a heartbeat without a word from us, two without one from the peer (clause 4.2.7); a close is answered in time.
            let now = Instant::now();
            let deadline = match (self.closing, beat) {
                (Some(until), _) => until,
                (None, Some(beat)) => (last_write + beat / 2).min(last_read + beat * 2),
                (None, None) => now + Duration::from_secs(3600),
            };
            let held = self.held_until(now);
            let deadline = held.map_or(deadline, |held| held.min(deadline));
            let may_read = !self.ended
                && held.is_none()
                && self.out.len() < limits::OUTPUT_MAX
                && self.uncommitted_bytes < limits::UNCOMMITTED_BYTES
                && self.uncommitted.len() < limits::UNCOMMITTED_WRITES
                && self.settles.len() < limits::UNCOMMITTED_WRITES;
            input.reserve(if may_read { 16 * 1024 } else { 0 });
            tokio::select! {
                () = self.agreed.principal.revoked(), if self.closing.is_none() && !self.ended => {
                    self.close_connection(&Exception::connection(code::CONNECTION_FORCED, "the user may not be connected any more"), (0, 0));
                }
                () = shutdown.cancelled(), if self.closing.is_none() && !self.ended => {
                    self.close_connection(&Exception::connection(code::CONNECTION_FORCED, "the broker is shutting down"), (0, 0));
                }
                read = reader.read_buf(&mut input), if may_read => match read {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        last_read = Instant::now();
                        self.agreed.share.take(0, read as u64, last_read);
                    }
                },
                written = write_some(&mut writer, &mut self.out, &mut unflushed), if unflushed || !self.out.is_empty() => match written {
                    Err(_) => return,
                    Ok(()) => last_write = Instant::now(),
                },
                Some(committed) = self.uncommitted.next(), if !self.uncommitted.is_empty() => self.confirm(committed),
                Some(settled) = self.settles.next(), if !self.settles.is_empty() => self.settled(settled),
                Some(event) = self.events.next(), if !self.events.is_empty() => self.handle_event(event),
                () = sleep_until(deadline) => {
                    if self.closing.is_some() {
                        return;
                    }
                    if let Some(beat) = beat {
                        // Not reading, because of what the peer has not taken or the disk not done yet, is no silence of the peer's.
                        if may_read && last_read + beat * 2 <= Instant::now() {
                            tracing::info!("AMQP connection closed: no heartbeat from the client for {:?}", beat * 2);
                            return;
                        }
                        if !may_read {
                            last_read = Instant::now();
                        }
                        if last_write + beat / 2 <= Instant::now() {
                            frame::put_heartbeat(&mut self.out);
                            last_write = Instant::now();
                        }
                    }
                }
            }
        }
    }

    /// When the client is heard again; its answer to our close is heard at once.
    fn held_until(&mut self, now: Instant) -> Option<Instant> {
        let until = self.agreed.share.until(now);
        until.filter(|_| self.closing.is_none())
    }

    /// Handles every whole frame there is, as long as its consequences stay within bounds.
    async fn take_input(&mut self, input: &mut BytesMut) -> Result<(), Exception> {
        while !self.ended
            && self.held_until(Instant::now()).is_none()
            && self.out.len() < limits::OUTPUT_MAX
            && self.uncommitted_bytes < limits::UNCOMMITTED_BYTES
        {
            let Some(frame) = frame::split(input, self.agreed.frame_max)? else {
                break;
            };
            let cause = if frame.kind == frame::METHOD {
                Method::id_of(&frame.payload).unwrap_or_default()
            } else {
                (60, 40)
            };
            let number = frame.channel;
            match self.handle_frame(frame).await {
                Ok(()) => {}
                Err(exception) if exception.scope == Scope::Channel && number != 0 => {
                    self.close_channel(number, &exception, cause)
                }
                Err(exception) => self.close_connection(&exception, cause),
            }
            if self.publisher.is_full() {
                self.flush();
            }
        }
        Ok(())
    }

    async fn handle_frame(&mut self, frame: Frame) -> Result<(), Exception> {
        if self.closing.is_some() {
            // Everything but the answer to our close is discarded.
            if frame.kind == frame::METHOD && frame.channel == 0 {
                match Method::parse(frame.payload) {
                    Ok(Method::ConnectionCloseOk) => self.ended = true,
                    Ok(Method::ConnectionClose { .. }) => {
                        reply::plain(&mut self.out, 0, reply::CONNECTION_CLOSE_OK)
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        match frame.kind {
            frame::HEARTBEAT if frame.channel == 0 => Ok(()),
            frame::HEARTBEAT => Err(Exception::connection(
                code::FRAME_ERROR,
                "a heartbeat must be on channel 0",
            )),
            frame::METHOD if frame.channel == 0 => {
                self.handle_connection_method(Method::parse(frame.payload)?)
            }
            _ if frame.channel == 0 => Err(Exception::connection(
                code::CHANNEL_ERROR,
                "content on channel 0",
            )),
            frame::METHOD => {
                if self.channels.get(&frame.channel).is_some_and(|c| c.closing) {
                    // Also what we could not read any more is discarded, up to the answer to our close.
                    return match Method::parse(frame.payload) {
                        Ok(method) => self.handle_closing_channel(frame.channel, &method),
                        Err(_) => Ok(()),
                    };
                }
                let method = Method::parse(frame.payload)?;
                self.handle_channel_method(frame.channel, method).await
            }
            kind => {
                self.handle_content(frame.channel, kind, frame.payload)
                    .await
            }
        }
    }

    pub fn channel(&mut self, number: u16) -> Result<&mut Channel, Exception> {
        self.channels.get_mut(&number).ok_or_else(|| {
            Exception::connection(
                code::CHANNEL_ERROR,
                format_args!("channel {number} is not open"),
            )
        })
    }

    pub fn close_channel(&mut self, number: u16, exception: &Exception, cause: MethodId) {
        tracing::debug!(channel = number, error = %exception, "channel closed");
        self.end_channel(number);
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.closing = true;
            channel.content = None;
            reply::channel_close(
                &mut self.out,
                number,
                exception.code,
                &exception.text,
                cause,
            );
        }
    }

    pub fn close_connection(&mut self, exception: &Exception, cause: MethodId) {
        if self.closing.is_some() {
            // The peer answers our close with nonsense: then it has heard it.
            self.ended = true;
            return;
        }
        tracing::debug!(error = %exception, "connection closed");
        reply::connection_close(&mut self.out, exception.code, &exception.text, cause);
        self.closing = Some(Instant::now() + Duration::from_secs(limits::CLOSE_SECONDS));
    }

    /// Ends a delivery at the next flush.
    pub fn settle(&mut self, queue: &Arc<QueueState>, id: DeliveryId, verdict: Verdict) {
        let key = match verdict {
            Verdict::Accept => Ending::Accept,
            Verdict::Release => Ending::Release,
            Verdict::Reject => Ending::Reject,
        };
        self.settling
            .entry((queue.definition.incarnation, key))
            .or_insert_with(|| (queue.clone(), Vec::new()))
            .1
            .push(id);
    }

    pub fn flush(&mut self) {
        let bytes = self.publisher.bytes();
        if let Some(committed) = self.publisher.flush(&self.broker.context.kernel) {
            self.uncommitted_bytes += bytes;
            self.uncommitted.push_back(committed);
        }
        for ((_, verdict), (state, ids)) in self.settling.drain() {
            let verdict = match verdict {
                Ending::Accept => Verdict::Accept,
                Ending::Release => Verdict::Release,
                Ending::Reject => Verdict::Reject,
            };
            self.settles.push(Box::pin(
                async move { state.queue.settle(&ids, verdict).await },
            ));
        }
    }

    /// Waits until all this client has published and settled is done: what it asks next must see it.
    pub async fn drain(&mut self) {
        self.flush();
        while let Some(committed) = self.uncommitted.next().await {
            self.confirm(committed);
        }
        while let Some(settled) = self.settles.next().await {
            self.settled(settled);
        }
    }

    fn settled(&mut self, settled: Result<usize, QueueError>) {
        match settled {
            Ok(_) | Err(QueueError::Deleted) => {}
            Err(error) => self.close_connection(
                &Exception::internal("acknowledgements could not be stored", error),
                (60, 80),
            ),
        }
    }

    /// However the connection ended: what it published and acknowledged counts, what it held goes back.
    async fn clean_up(&mut self) {
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            self.end_channel(number);
        }
        self.drain().await;
        // Acquisitions under way are waited for, so that what they took is put back; waits are dropped.
        while self.acquiring > 0 {
            match self.events.next().await {
                Some(event) => self.handle_event(event),
                None => break,
            }
        }
        self.drain().await;
        self.vhost.delete_exclusive_queues(self.id).await;
    }
}
