//! `basic.consume` and `basic.cancel`.

use std::sync::Arc;

use access_rules::Verb;
use tokio_util::sync::CancellationToken;

use crate::{
    channel::Consumer,
    connection::Session,
    error::{Exception, code},
    limits,
    method::Consume,
    queue::QueueState,
    reply,
};

impl Session {
    pub fn basic_consume(&mut self, number: u16, consume: Consume) -> Result<(), Exception> {
        let state = self.queue_for(number, &consume.queue, Verb::Subscribe)?;
        if consume.no_local {
            return Err(Exception::connection(
                code::NOT_IMPLEMENTED,
                "no_local=true is not implemented",
            ));
        }
        if let Some((name, _)) = consume.arguments.0.first() {
            return Err(Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!(
                    "argument '{}' is not supported: consume without it",
                    String::from_utf8_lossy(name)
                ),
            ));
        }
        self.next_consumer += 1;
        let id = self.next_consumer;
        let tag: Arc<str> = if consume.consumer_tag.is_empty() {
            format!("amq.ctag-{}", uuid::Uuid::new_v4().simple()).into()
        } else {
            consume.consumer_tag.into()
        };
        let channel = self.channel(number)?;
        if channel.consumers.contains_key(&tag) {
            return Err(Exception::connection(
                code::NOT_ALLOWED,
                format_args!("attempt to reuse consumer tag '{tag}'"),
            ));
        }
        if channel.consumers.len() >= limits::CONSUMERS_PER_CHANNEL {
            return Err(Exception::channel(
                code::RESOURCE_ERROR,
                format_args!(
                    "this channel has {} consumers, the limit",
                    limits::CONSUMERS_PER_CHANNEL
                ),
            ));
        }
        state.add_consumer(consume.exclusive)?;
        let prefetch = channel.prefetch_consumer;
        let gone = CancellationToken::new();
        let consumer = Consumer {
            id,
            queue: state,
            no_ack: consume.no_ack,
            prefetch,
            unacked: 0,
            reserved: 0,
            busy: false,
            gone: gone.drop_guard(),
        };
        self.watch_deletion(number, tag.clone(), &consumer);
        self.channel(number)?
            .consumers
            .insert(tag.clone(), consumer);
        if !consume.nowait {
            reply::consumer_tag(&mut self.out, number, (60, 21), &tag);
        }
        Ok(())
    }

    /// What was delivered stays out until it is acknowledged; what is on its way from the queue goes back when it arrives.
    pub async fn basic_cancel(
        &mut self,
        number: u16,
        tag: &str,
        nowait: bool,
    ) -> Result<(), Exception> {
        if let Some(consumer) = self.channel(number)?.consumers.remove(tag)
            && consumer.queue.remove_consumer()
        {
            self.drain().await;
            self.vhost.delete_queue(&consumer.queue).await?;
        }
        if !nowait {
            reply::consumer_tag(&mut self.out, number, (60, 31), tag);
        }
        Ok(())
    }

    /// A consumer that ended without asking to: an auto-delete queue goes in the background, since nobody waits for it.
    pub fn consumer_gone(&self, queue: Arc<QueueState>) {
        if queue.remove_consumer() {
            let vhost = self.vhost.clone();
            tokio::spawn(async move {
                if let Err(error) = vhost.delete_queue(&queue).await {
                    tracing::warn!(queue = %queue.name(), %error, "an auto-delete queue could not be deleted");
                }
            });
        }
    }
}
