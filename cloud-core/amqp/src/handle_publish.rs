//! `basic.publish` and its content.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::{
    channel::Content,
    connection::Session,
    error::{Exception, code},
    frame, limits, message,
    method::Publish,
    properties::Properties,
    publisher::{Committed, Waiting},
    reply,
    wire::Reader,
};

impl Session {
    pub fn basic_publish(&mut self, number: u16, publish: Publish) -> Result<(), Exception> {
        if publish.immediate {
            return Err(Exception::connection(
                code::NOT_IMPLEMENTED,
                "immediate=true",
            ));
        }
        self.may_publish(&publish.exchange, &publish.routing_key)?;
        self.agreed.share.take(1, 0, Instant::now());
        if !publish.exchange.is_empty() {
            let exchange = self.vhost.exchange(&publish.exchange).ok_or_else(|| {
                Exception::not_found("exchange", &publish.exchange, self.vhost.name())
            })?;
            if exchange.internal {
                return Err(Exception::channel(
                    code::ACCESS_REFUSED,
                    format_args!("cannot publish to internal exchange '{}'", exchange.name),
                ));
            }
        }
        self.channel(number)?.content = Some(Content {
            publish,
            header: None,
            body: BytesMut::new(),
        });
        Ok(())
    }

    /// A content header or body frame (clause 4.2.6).
    pub async fn handle_content(
        &mut self,
        number: u16,
        kind: u8,
        payload: Bytes,
    ) -> Result<(), Exception> {
        let channel = self.channel(number)?;
        if channel.closing {
            return Ok(());
        }
        let unexpected = |what| Exception::connection(code::UNEXPECTED_FRAME, what);
        let Some(content) = channel.content.as_mut() else {
            return Err(unexpected("content without basic.publish"));
        };
        let body = if kind == frame::HEADER {
            if content.header.is_some() {
                return Err(unexpected("a second content header"));
            }
            let mut r = Reader::new(payload);
            let (class, _weight, size) = (r.u16()?, r.u16()?, r.u64()?);
            if class != 60 {
                return Err(unexpected("a content header of another class than basic"));
            }
            if size > limits::BODY_MAX {
                return Err(Exception::channel(
                    code::PRECONDITION_FAILED,
                    format_args!(
                        "message size {size} is larger than the limit of {} bytes",
                        limits::BODY_MAX
                    ),
                ));
            }
            content.header = Some((size, r.rest()));
            if size > 0 {
                return Ok(());
            }
            Bytes::new()
        } else {
            let Some((size, _)) = content.header else {
                return Err(unexpected("a body before its content header"));
            };
            let have = content.body.len() as u64 + payload.len() as u64;
            if have > size {
                return Err(unexpected("more body than the content header announced"));
            }
            if have == size && content.body.is_empty() {
                // The whole body in one frame: not copied.
                payload
            } else {
                if content.body.is_empty() {
                    content
                        .body
                        .reserve((size as usize).min(limits::BODY_RESERVE));
                }
                content.body.extend_from_slice(&payload);
                if have < size {
                    return Ok(());
                }
                std::mem::take(&mut content.body).freeze()
            }
        };
        let Some(Content {
            publish,
            header: Some((_, block)),
            ..
        }) = channel.content.take()
        else {
            return Ok(());
        };
        if let Some(transaction) = &mut channel.transaction {
            Properties::parse(block.clone())?;
            transaction.bytes += body.len() + block.len();
            transaction.messages.push((publish, block, body));
            if transaction.bytes > limits::TRANSACTION_BYTES {
                return Err(Exception::channel(
                    code::RESOURCE_ERROR,
                    format_args!(
                        "the transaction is larger than {} bytes: commit earlier",
                        limits::TRANSACTION_BYTES
                    ),
                ));
            }
            return Ok(());
        }
        self.publish(number, &publish, block, body).await
    }

    pub async fn publish(
        &mut self,
        number: u16,
        publish: &Publish,
        block: Bytes,
        body: Bytes,
    ) -> Result<(), Exception> {
        let properties = Properties::parse(block.clone())?;
        if let Some(user) = &properties.user_id
            && user.as_ref() != self.agreed.principal.name.as_bytes()
        {
            return Err(Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!(
                    "user_id property set to '{}' but authenticated user was '{}'",
                    String::from_utf8_lossy(user),
                    self.agreed.principal.name
                ),
            ));
        }
        if properties.expiration.is_some() && message::expiration(&properties).is_none() {
            return Err(Exception::channel(
                code::PRECONDITION_FAILED,
                "invalid expiration: expected milliseconds as decimal text",
            ));
        }
        let channel = self.channel(number)?;
        let sequence = channel.confirm.as_mut().map(|last| {
            *last += 1;
            *last
        });
        let waiting = Waiting {
            holder: channel.holder.0,
            channel: number,
            sequence,
        };
        self.broker.metrics.published.inc();

        let (exchange, key) = (publish.exchange.as_str(), publish.routing_key.as_str());
        if publish.mandatory {
            let routed = if exchange.is_empty() {
                self.vhost.queue(key).is_some()
            } else {
                let none = Default::default();
                self.vhost.routes.read().reaches_any(
                    &exchange.into(),
                    key,
                    properties.headers.as_ref().unwrap_or(&none),
                )
            };
            if !routed {
                self.broker.metrics.returned.inc();
                reply::basic_return(&mut self.out, number, exchange, key);
                frame::put_content(&mut self.out, number, self.agreed.frame_max, &block, &body);
            }
        }
        let name = if exchange.is_empty() { key } else { exchange };
        if exchange.is_empty()
            && self.vhost.queue(key).is_none()
            && (key.is_empty() || key.starts_with("amq."))
        {
            // An answer to a client that has gone: no queue has this name any more, and a stream for it would stay for ever.
            self.publisher.push_dropped(waiting);
            return Ok(());
        }
        let stream = match self.broker.context.kernel.stream(&self.vhost.address(name)) {
            Some(stream) => stream,
            None => self.vhost.stream_for_write(name).await?,
        };
        let record = message::to_record(
            exchange,
            key,
            &block,
            &properties,
            body,
            self.broker.now_ms(),
        );
        let partition = kernel::PartitionId {
            stream: stream.id,
            partition: record::partition_for_key(Some(key.as_bytes()), stream.partitions),
        };
        self.publisher.push(partition, &record, waiting)
    }

    /// Tells publishers what became of their messages: one acknowledgement for all of a channel where all are durable.
    pub fn confirm(&mut self, committed: Committed) {
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(committed.bytes);
        let Session { channels, out, .. } = self;
        let live = |w: &Waiting| {
            channels
                .get(&w.channel)
                .is_some_and(|c| c.holder.0 == w.holder && !c.closing)
        };
        if committed.refused.is_empty() {
            let mut last: std::collections::BTreeMap<u16, (u64, usize)> =
                std::collections::BTreeMap::new();
            for waiting in committed.stored.iter().filter(|w| live(w)) {
                if let Some(sequence) = waiting.sequence {
                    let entry = last.entry(waiting.channel).or_default();
                    *entry = (entry.0.max(sequence), entry.1 + 1);
                }
            }
            for (channel, (sequence, n)) in last {
                reply::confirm(out, channel, sequence, n > 1, true);
            }
            return;
        }
        let mut lost = std::collections::BTreeMap::new();
        for (waiting, stored) in committed
            .stored
            .iter()
            .map(|w| (w, true))
            .chain(committed.refused.iter().map(|(w, _)| (w, false)))
        {
            if live(waiting) {
                match waiting.sequence {
                    Some(sequence) => reply::confirm(out, waiting.channel, sequence, false, stored),
                    None if !stored => {
                        lost.insert(waiting.channel, ());
                    }
                    None => {}
                }
            }
        }
        let reason = committed
            .refused
            .first()
            .map(|(_, reason)| reason.clone())
            .unwrap_or_default();
        // Without confirms the loss of the channel is the only way to learn it.
        for channel in lost.into_keys() {
            self.close_channel(
                channel,
                &Exception::channel(
                    code::RESOURCE_ERROR,
                    format_args!("published messages could not be stored: {reason}"),
                ),
                (60, 40),
            );
        }
    }
}
