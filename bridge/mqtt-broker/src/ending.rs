//! The end of a connection: what was taken from the client is stored, the client is told, the session is settled.

use crate::aside;
use crate::backend::{Backend, StorageError};
use crate::clock::{self, put_right};
use crate::connection::{Connection, End};
use crate::input::poll_read;
use crate::limits;
use crate::lingering::linger;
use crate::metrics::Metrics;
use crate::output::write_some;
use crate::passing::Passing;
use crate::unsettled::settle;
use mqtt_codec::{Disconnect, Packet, ReasonCode, Version};
use mqtt_session::Close;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    /// Lets everything that was taken from the client be stored, says goodbye, and settles the session.
    pub(crate) async fn finish(mut self: Box<Self>, end: End) {
        let client = self.session.client_id().clone();
        tracing::debug!(%client, ?end, "connection ends");
        self.shared.stop();
        let lost = self.delivery.settle(&mut self.session);
        self.lost(lost);
        self.give_back();
        if let Some(mut passing) = self.passing.take() {
            passing.settle(&self.broker.metrics).await;
        }
        self.give_gathered();
        while let Some(done) = self.publishing.next().await {
            // A failure has nobody to be told to any more. What comes after it is waited for: until then its numbers are with the backend.
            let _ = self.published(done);
        }
        let listens = !matches!(end, End::Lost);
        // An id that the server made comes once, and who was ended by hand is not to blame, whatever it said last.
        let by_hand = |close: &Close| close.reason_code == ReasonCode::ADMINISTRATIVE_ACTION;
        let may_flap = !self.id_is_made && !matches!(&end, End::Close(close) if by_hand(close));
        // Where the client is at fault what comes next is not looked at, and where a packet was not understood it would not be either.
        let may_have_more = match &end {
            End::Lost => true,
            End::Disconnected => false,
            End::Close(close) => matches!(
                close.reason_code,
                ReasonCode::SESSION_TAKEN_OVER
                    | ReasonCode::SERVER_SHUTTING_DOWN
                    | ReasonCode::ADMINISTRATIVE_ACTION
            ),
        };
        let said = self.last_word(may_have_more).await;
        let end = match said.map(|said| self.session.handle_disconnect(&said)) {
            None => end,
            Some(Ok(())) => End::Disconnected,
            Some(Err(close)) => close.into(),
        };
        self.put_replies();
        if let End::Close(close) = &end {
            if matches!(
                close.reason_code,
                ReasonCode::MALFORMED_PACKET
                    | ReasonCode::PROTOCOL_ERROR
                    | ReasonCode::PACKET_TOO_LARGE
            ) {
                Metrics::add(&self.broker.metrics.protocol_errors, 1);
            }
            if self.session.version() == Version::V5 {
                self.write(&Packet::Disconnect(aside::goodbye(close)));
            }
        }
        if listens {
            let _ = tokio::time::timeout(limits::LAST_WORDS, async {
                while !self.output.is_empty() {
                    write_some(&mut self.writer, &mut self.output, false, &self.mailbox).await?;
                }
                std::io::Result::Ok(())
            })
            .await;
        }
        if let Err(error) = self.settle().await {
            tracing::error!(%client, %error, "the session could not be saved at the end of its connection");
        }
        let until = Instant::now() + limits::LAST_WORDS;
        let mut is_shut = false;
        if listens {
            // Not before: who has said DISCONNECT and sees the connection closed knows that its will is gone, whatever becomes of this process.
            let shut = tokio::time::timeout_at(until, self.writer.shutdown()).await;
            is_shut = matches!(shut, Ok(Ok(())));
        }
        self.broker.backend.progress(&client, &[]);
        self.note_waiting(false, false);
        if may_flap {
            self.broker.note_end(&client);
        }
        Metrics::sub(&self.broker.metrics.connections, 1);
        if is_shut && matches!(end, End::Close(_)) {
            let shutdown = self.broker.shutdown.clone();
            // The session is free from here on: who takes over does not wait for the rest.
            let (mut reader, _writer) = self.into_stream();
            linger(&mut reader, until, &shutdown).await;
        }
    }

    /// A DISCONNECT that has come and was not looked at yet, because what came before it was with storage or the client was ahead of its rate; with `reads`
    /// also one that is still in the socket, because the client did not take what waited for it, or the end was sooner (it is back by another connection).
    /// What it says of the will and the session counts, whatever else has ended the connection [MQTT-3.14.4-3]. Other packets are passed over: no answer has
    /// said that they were taken. Waits for nothing, and takes as much from the socket as could be in the input otherwise.
    async fn last_word(&mut self, reads: bool) -> Option<Disconnect> {
        let mut left = self.broker.limits.maximum_packet_size as usize;
        left = left.saturating_add(limits::READ_CHUNK);
        let mut next = self.deferred.take().map(|packet| *packet);
        loop {
            if let Some(Packet::Disconnect(disconnect)) = next {
                return Some(disconnect);
            }
            next = self.decoder.decode(&mut self.input).ok()?;
            if next.is_none() {
                let room = &self.broker.unfinished;
                self.unfinished
                    .note(room, &self.decoder, &self.input)
                    .ok()?;
                if !reads || left == 0 {
                    return None;
                }
                left = left.saturating_sub(self.read_now().await?);
            }
        }
    }

    /// What is in the socket, if anything is.
    async fn read_now(&mut self) -> Option<usize> {
        // A stream says that nothing is there, too, when the task has done much already.
        let reading = tokio::task::coop::unconstrained(poll_fn(|cx| {
            let reader = Pin::new(&mut self.reader);
            Poll::Ready(poll_read(reader, &mut self.input, &mut self.expected, cx))
        }));
        match reading.await {
            Poll::Ready(Ok(read)) if read > 0 => Some(read),
            _ => None,
        }
    }

    /// What is stored nowhere and the client did not get: what a group gave goes to its other members, and everything else is lost. So nobody
    /// waits for the session to end: that a message goes to another at once is allowed (section 4.8.2).
    fn give_back(&mut self) {
        let metrics = &self.broker.metrics;
        let ends = self.broker.shutdown.is_cancelled();
        let groups = &self.broker.hub.unstored.groups;
        let new_passing = || Box::new(Passing::new(None));
        let left = self.delivery.leave();
        for (share, message) in self.session.take_unstored_shared() {
            // It may have got it: where nobody else is there, nothing is known to be lost.
            if let Some(group) = groups.get(&share).filter(|_| !ends) {
                let passing = self.passing.get_or_insert_with(new_passing);
                passing.give_back(&group, &[message], metrics);
            }
        }
        for batch in left {
            match batch.group() {
                Some(group) if !ends => {
                    let passing = self.passing.get_or_insert_with(new_passing);
                    passing.give_back(group, batch.rest(), metrics);
                }
                _ => Metrics::add(&metrics.unstored_dropped, batch.len() as u64),
            }
        }
    }

    /// What groups gave to this client that it left, and that was not sent, goes to their other members.
    pub(crate) fn give_on(&mut self) {
        let left = self.delivery.take_left();
        if left.is_empty() {
            return;
        }
        let own = self.delivery.mailbox().id();
        let passing = self
            .passing
            .get_or_insert_with(|| Box::new(Passing::new(Some(own))));
        for batch in left {
            if let Some(group) = batch.group() {
                passing.give_back(group, batch.rest(), &self.broker.metrics);
            }
        }
    }

    async fn settle(&mut self) -> Result<(), StorageError> {
        // Neither of them may keep the session from being settled: what they did not write is in it.
        let mut written = self.shared.finish(&mut self.session).await;
        if let Some(saving) = self.saving.take() {
            written = written.and(saving.await.1);
        }
        let broker = self.broker.clone();
        let (now_ms, set) = clock::now(&*broker.backend);
        let ended = self.session.handle_connection_end(now_ms);
        let keep = ended.keep;
        if keep && set.is_some() {
            broker.by_new_clock.add(self.session.client_id());
        }
        let gauge = &broker.metrics.persistent_sessions;
        match (keep, self.stored) {
            (true, false) => Metrics::add(gauge, 1),
            (false, true) => Metrics::sub(gauge, 1),
            _ => {}
        }
        if keep {
            let ids = std::mem::take(&mut self.unstored_ids);
            let unstored = &broker.hub.unstored;
            unstored.keep_unreleased(self.session.client_id(), ids);
        }
        let stored = self.stored || self.session.has_unreleased();
        settle(&broker, &mut self.session, ended, stored).await?;
        if keep {
            // The clock may have been set while this was written.
            put_right(&broker, &mut self.session);
            broker.deadlines.add(&self.session);
        }
        written
    }
}
