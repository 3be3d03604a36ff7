//! Delivery to consumers: wait for the queue, take as much as the consumer has room for, write it out.

use std::sync::Arc;

use access_rules::{Resource, Verb};
use kernel::{Acquired, Verdict};

use crate::{
    channel::{Consumer, Unacked},
    connection::Session,
    frame, limits,
    message::{self, Message},
    queue::QueueState,
    reply::{self, Delivery},
    routes::{Entrance, Node},
};

/// Whose wait or acquisition it was.
#[derive(Debug, Clone)]
pub struct To {
    channel: u16,
    consumer: Arc<str>,
    id: u64,
}

pub enum Event {
    Ready(To),
    /// The queue was deleted.
    Deleted(To),
    Acquired {
        to: To,
        queue: Arc<QueueState>,
        reserved: usize,
        messages: Vec<Acquired>,
    },
}

impl Session {
    /// Starts what consumers with room are waiting for. Nothing is taken while the peer is behind with reading.
    pub fn pump(&mut self) {
        if self.closing.is_some() || self.ended {
            return;
        }
        let Session {
            channels,
            events,
            out,
            acquiring,
            ..
        } = self;
        for (&number, channel) in channels.iter_mut() {
            if channel.closing || !channel.flowing {
                continue;
            }
            let idle: Vec<Arc<str>> = channel
                .consumers
                .iter()
                .filter(|(_, c)| !c.busy)
                .map(|(tag, _)| tag.clone())
                .collect();
            for tag in idle {
                let Some(consumer) = channel.consumers.get(&tag) else {
                    continue;
                };
                let room = channel.room(consumer);
                if room == 0 {
                    continue;
                }
                let to = To {
                    channel: number,
                    consumer: tag.clone(),
                    id: consumer.id,
                };
                let (queue, holder) = (consumer.queue.clone(), channel.holder);
                let ready = queue.queue.ready();
                if ready == 0 {
                    let gone = consumer.gone.token().clone();
                    events.push(Box::pin(async move {
                        tokio::select! {
                            () = queue.queue.wait_ready() => {}
                            () = gone.cancelled() => {}
                        }
                        Event::Ready(to)
                    }));
                } else {
                    if out.len() + *acquiring * limits::ACQUIRE_BYTES >= limits::OUTPUT_HIGH_WATER {
                        continue;
                    }
                    // Several consumers of a queue share what is there, as if dealt out one by one.
                    let share = usize::try_from(ready / u64::from(queue.consumers().max(1)))
                        .unwrap_or(usize::MAX);
                    let take = room.min(share.max(1));
                    *acquiring += 1;
                    channel.reserved += take;
                    if let Some(consumer) = channel.consumers.get_mut(&tag) {
                        consumer.reserved += take;
                    }
                    events.push(Box::pin(async move {
                        let messages = queue
                            .queue
                            .acquire(holder, take, limits::ACQUIRE_BYTES)
                            .await;
                        Event::Acquired {
                            to,
                            queue,
                            reserved: take,
                            messages,
                        }
                    }));
                }
                if let Some(consumer) = channel.consumers.get_mut(&tag) {
                    consumer.busy = true;
                }
            }
        }
    }

    fn consumer(&mut self, to: &To) -> Option<&mut Consumer> {
        let channel = self.channels.get_mut(&to.channel)?;
        channel
            .consumers
            .get_mut(&to.consumer)
            .filter(|c| c.id == to.id)
    }

    /// Tells the consumer when its queue is deleted by whomever.
    pub fn watch_deletion(&mut self, channel: u16, tag: Arc<str>, consumer: &Consumer) {
        let to = To {
            channel,
            consumer: tag,
            id: consumer.id,
        };
        let (queue, gone) = (consumer.queue.clone(), consumer.gone.token().clone());
        self.events.push(Box::pin(async move {
            tokio::select! {
                () = queue.deleted.cancelled() => {}
                () = gone.cancelled() => {}
            }
            Event::Deleted(to)
        }));
    }

    pub fn handle_event(&mut self, event: Event) {
        match event {
            Event::Ready(to) => {
                if let Some(consumer) = self.consumer(&to) {
                    consumer.busy = false;
                }
            }
            Event::Deleted(to) => {
                if self.consumer(&to).is_none() {
                    return;
                }
                if let Some(channel) = self.channels.get_mut(&to.channel) {
                    channel.consumers.remove(&to.consumer);
                }
                if self.agreed.cancel_notify {
                    reply::basic_cancel(&mut self.out, to.channel, &to.consumer);
                }
            }
            Event::Acquired {
                to,
                queue,
                reserved,
                messages,
            } => {
                self.acquiring = self.acquiring.saturating_sub(1);
                let holder_lives = match self.channels.get_mut(&to.channel).filter(|c| !c.closing) {
                    Some(channel) => match channel
                        .consumers
                        .get_mut(&to.consumer)
                        .filter(|c| c.id == to.id)
                    {
                        Some(consumer) => {
                            consumer.busy = false;
                            consumer.reserved = consumer.reserved.saturating_sub(reserved);
                            channel.reserved = channel.reserved.saturating_sub(reserved);
                            true
                        }
                        None => {
                            channel.reserved = channel.reserved.saturating_sub(reserved);
                            false
                        }
                    },
                    None => false,
                };
                // The rules may have changed since it began to consume.
                let may = self.allowed(Verb::Subscribe, Resource::Queue(queue.name()));
                let holder_lives = holder_lives && may.is_ok();
                for acquired in messages {
                    if holder_lives && self.closing.is_none() && !self.ended {
                        self.deliver(&to, &queue, acquired);
                    } else {
                        self.settle(&queue, acquired.id, Verdict::Release);
                    }
                }
                if let Err(refused) = may
                    && self.closing.is_none()
                    && !self.ended
                    && self.channels.get(&to.channel).is_some_and(|c| !c.closing)
                {
                    self.close_channel(to.channel, &refused, (60, 20));
                }
            }
        }
    }

    fn deliver(&mut self, to: &To, queue: &Arc<QueueState>, acquired: Acquired) {
        let message = message::from_record(&acquired.record);
        if message
            .expires_at
            .is_some_and(|at| at <= self.broker.now_ms())
        {
            self.settle(queue, acquired.id, Verdict::Reject);
            return;
        }
        let exchange = self.exchange_shown(queue, &acquired, &message);
        let Some(channel) = self.channels.get_mut(&to.channel) else {
            return;
        };
        let tag = channel.next_delivery_tag();
        let Some(consumer) = channel.consumers.get(&to.consumer) else {
            return;
        };
        let no_ack = consumer.no_ack;
        if !no_ack {
            let consumer = Some(to.consumer.clone());
            channel.hold(
                tag,
                Unacked {
                    queue: queue.clone(),
                    id: acquired.id,
                    consumer,
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
        reply::basic_deliver(&mut self.out, to.channel, &to.consumer, &delivery);
        frame::put_content(
            &mut self.out,
            to.channel,
            self.agreed.frame_max,
            &message.properties,
            &message.body,
        );
        if no_ack {
            self.settle(queue, acquired.id, Verdict::Accept);
        }
    }

    /// The exchange a consumer is told: the one published to, or for a record of another protocol the one that showed it.
    pub fn exchange_shown(
        &self,
        queue: &QueueState,
        acquired: &Acquired,
        message: &Message,
    ) -> String {
        if let Some(exchange) = &message.exchange {
            return exchange.clone();
        }
        let routed = message::routed(&acquired.stream, &acquired.record);
        let node = Node::Queue(queue.name().clone());
        let at = Some((acquired.id.partition, acquired.id.offset));
        let routes = self.vhost.routes.read();
        match routed
            .origins
            .iter()
            .find(|origin| routes.reaches(&node, origin, &routed.headers, at))
            .map(|o| &o.at)
        {
            Some(Entrance::Stream(name)) => name.to_string(),
            Some(Entrance::Topic) => crate::exchange::AMQ_TOPIC.to_owned(),
            _ => String::new(),
        }
    }
}
