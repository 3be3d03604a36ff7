//! The packets that have come, one after the other, as far as there is room for what they make.

use crate::backend::Backend;
use crate::connection::{Connection, End};
use crate::inbound::Alone;
use crate::metrics::Metrics;
use bytes::BytesMut;
use mqtt_codec::{Auth, Packet, Subscribe, Unsubscribe};
use mqtt_session::Close;
use tokio::io::{AsyncRead, AsyncWrite};

/// How far the packets that have come were handled.
pub(crate) enum Taken {
    /// As far as there is room for them.
    All,
    /// Up to this one.
    Request(Box<Request>),
    Disconnect,
}

/// The packets whose handling waits for the backend. In a box: the future of an idle connection has no room for a packet.
pub(crate) enum Request {
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Auth(Auth),
    Retain(Alone),
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    /// Handles what has come in, as far as there is room. `true` = DISCONNECT.
    pub(crate) async fn take_packets(&mut self) -> Result<bool, End> {
        let mut packets = 0;
        let taken = loop {
            match self.take_each(&mut packets) {
                Ok(Taken::Request(request)) => {
                    match Box::pin(self.handle_request(*request)).await {
                        Ok(()) => self.put_replies(),
                        Err(end) => break Err(end),
                    }
                }
                Ok(Taken::All) => break Ok(false),
                Ok(Taken::Disconnect) => break Ok(true),
                Err(end) => break Err(end),
            }
        };
        self.give_all();
        if packets > 0 {
            let by_qos = std::mem::take(&mut self.messages_in);
            Metrics::add(&self.broker.metrics.packets_in, packets);
            Metrics::add_by_qos(&self.broker.metrics.messages_in, by_qos);
        }
        // Behind a packet that ends the connection nothing counts.
        if self.input.is_empty() || !matches!(taken, Ok(false)) {
            self.input = BytesMut::new();
        }
        self.session.trim();
        self.unfinished
            .note(&self.broker.unfinished, &self.decoder, &self.input)?;
        taken
    }

    /// What was gathered, and what is not stored: with the routes that there are now.
    fn give_all(&mut self) {
        self.give_gathered();
        if let Some(passing) = &mut self.passing {
            passing.flush(&self.broker.metrics);
        }
    }

    /// Up to one that asks the backend for something.
    fn take_each(&mut self, packets: &mut u64) -> Result<Taken, End> {
        let now_ms = self.broker.backend.now_ms();
        while !self.is_full() && self.heard_at().is_none() {
            let packet = match self.deferred.take() {
                Some(packet) => *packet,
                None => match self.decoder.decode(&mut self.input).map_err(Close::from)? {
                    Some(packet) => packet,
                    None => break,
                },
            };
            let waits = match &packet {
                Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Disconnect(_) => true,
                Packet::PubRel(ack) => self.session.is_storing(ack.packet_id),
                _ => false,
            };
            if waits {
                self.give_all();
                // Until it is done with nothing is read.
                self.can_read = false;
            }
            if waits && !self.publishing.is_empty() {
                self.deferred = Some(Box::new(packet));
                break;
            }
            *packets += 1;
            match self.handle(packet, now_ms)? {
                Taken::All => self.put_replies(),
                other => return Ok(other),
            }
        }
        Ok(Taken::All)
    }
}
