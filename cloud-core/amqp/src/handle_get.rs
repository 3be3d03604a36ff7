//! `basic.get`.

use crate::{
    channel::Unacked,
    connection::Session,
    error::{Exception, code},
    frame, limits, message,
    reply::{self, Delivery},
};
use access_rules::Verb;
use kernel::Verdict;

impl Session {
    pub async fn basic_get(
        &mut self,
        number: u16,
        queue: &str,
        no_ack: bool,
    ) -> Result<(), Exception> {
        let state = self.queue_for(number, queue, Verb::Subscribe)?;
        // What this client published or put back before must be seen.
        self.drain().await;
        let channel = self.channel(number)?;
        let holder = channel.holder;
        if !no_ack && channel.unacked.len() >= limits::UNACKED_PER_CHANNEL {
            return Err(Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!(
                    "{} messages are unacknowledged on this channel, the limit",
                    limits::UNACKED_PER_CHANNEL
                ),
            ));
        }
        loop {
            let Some(acquired) = state
                .queue
                .acquire(holder, 1, limits::ACQUIRE_BYTES)
                .await
                .into_iter()
                .next()
            else {
                reply::basic_get_empty(&mut self.out, number);
                return Ok(());
            };
            let message = message::from_record(&acquired.record);
            if message
                .expires_at
                .is_some_and(|at| at <= self.broker.now_ms())
            {
                self.settle(&state, acquired.id, Verdict::Reject);
                self.drain().await;
                continue;
            }
            // The count a client is told is exact.
            state.queue.catch_up().await;
            let exchange = self.exchange_shown(&state, &acquired, &message);
            let channel = self.channel(number)?;
            let tag = channel.next_delivery_tag();
            if !no_ack {
                channel.unacked.insert(
                    tag,
                    Unacked {
                        queue: state.clone(),
                        id: acquired.id,
                        consumer: None,
                    },
                );
            }
            self.broker.metrics.delivered.inc();
            let delivery = Delivery {
                delivery_tag: tag,
                redelivered: acquired.redelivered,
                exchange: &exchange,
                routing_key: &message.routing_key,
            };
            reply::basic_get_ok(
                &mut self.out,
                number,
                &delivery,
                crate::handle_queue::count(state.queue.ready()),
            );
            frame::put_content(
                &mut self.out,
                number,
                self.agreed.frame_max,
                &message.properties,
                &message.body,
            );
            if no_ack {
                self.settle(&state, acquired.id, Verdict::Accept);
            }
            return Ok(());
        }
    }
}
