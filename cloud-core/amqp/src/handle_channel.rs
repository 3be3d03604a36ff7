//! Class channel and confirm, and the dispatch of all methods on a channel.

use kernel::Verdict;

use crate::{
    channel::Channel,
    connection::Session,
    error::{Exception, code},
    limits,
    method::Method,
    reply,
};

impl Session {
    pub async fn handle_channel_method(
        &mut self,
        number: u16,
        method: Method,
    ) -> Result<(), Exception> {
        if method == Method::ChannelOpen {
            return self.channel_open(number);
        }
        if self.channel(number)?.content.is_some() {
            return Err(Exception::connection(
                code::UNEXPECTED_FRAME,
                "a method before the content of basic.publish was complete",
            ));
        }
        match method {
            Method::ChannelFlow { active } => {
                self.channel(number)?.flowing = active;
                reply::channel_flow_ok(&mut self.out, number, active);
                Ok(())
            }
            Method::ChannelFlowOk | Method::ChannelCloseOk => Ok(()),
            Method::ChannelClose { code, text } => {
                tracing::debug!(channel = number, code, text, "channel closed by the client");
                self.end_channel(number);
                // What it published before must be confirmed before, and what it held be ready when it asks elsewhere.
                self.drain().await;
                self.channels.remove(&number);
                reply::plain(&mut self.out, number, reply::CHANNEL_CLOSE_OK);
                Ok(())
            }
            Method::ConfirmSelect { nowait } => {
                let channel = self.channel(number)?;
                if channel.transaction.is_some() {
                    return Err(Exception::channel(
                        code::PRECONDITION_FAILED,
                        "cannot switch from tx to confirm mode",
                    ));
                }
                channel.confirm.get_or_insert(0);
                if !nowait {
                    reply::plain(&mut self.out, number, reply::CONFIRM_SELECT_OK);
                }
                Ok(())
            }
            Method::TxSelect => self.tx_select(number),
            Method::TxCommit => self.tx_commit(number).await,
            Method::TxRollback => self.tx_rollback(number),
            Method::ExchangeDeclare(declare) => self.exchange_declare(number, declare).await,
            Method::ExchangeDelete {
                exchange,
                if_unused,
                nowait,
            } => {
                self.exchange_delete(number, &exchange, if_unused, nowait)
                    .await
            }
            Method::ExchangeBind(bind) => self.exchange_bind(number, bind).await,
            Method::ExchangeUnbind(bind) => self.exchange_unbind(number, bind).await,
            Method::QueueDeclare(declare) => self.queue_declare(number, declare).await,
            Method::QueueBind(bind) => self.queue_bind(number, bind).await,
            Method::QueueUnbind(bind) => self.queue_unbind(number, bind).await,
            Method::QueuePurge { queue, nowait } => self.queue_purge(number, &queue, nowait).await,
            Method::QueueDelete {
                queue,
                if_unused,
                if_empty,
                nowait,
            } => {
                self.queue_delete(number, &queue, if_unused, if_empty, nowait)
                    .await
            }
            Method::BasicQos {
                size,
                count,
                global,
            } => self.basic_qos(number, size, count, global),
            Method::BasicConsume(consume) => self.basic_consume(number, consume),
            Method::BasicCancel {
                consumer_tag,
                nowait,
            } => self.basic_cancel(number, &consumer_tag, nowait).await,
            Method::BasicPublish(publish) => self.basic_publish(number, publish),
            Method::BasicGet { queue, no_ack } => self.basic_get(number, &queue, no_ack).await,
            Method::BasicAck {
                delivery_tag,
                multiple,
            } => self.basic_ack(number, delivery_tag, multiple, Verdict::Accept),
            Method::BasicNack {
                delivery_tag,
                multiple,
                requeue,
            } => self.basic_ack(
                number,
                delivery_tag,
                multiple,
                if requeue {
                    Verdict::Release
                } else {
                    Verdict::Reject
                },
            ),
            Method::BasicReject {
                delivery_tag,
                requeue,
            } => self.basic_ack(
                number,
                delivery_tag,
                false,
                if requeue {
                    Verdict::Release
                } else {
                    Verdict::Reject
                },
            ),
            Method::BasicRecover {
                requeue,
                asynchronous,
            } => self.basic_recover(number, requeue, asynchronous).await,
            Method::ChannelOpen
            | Method::ConnectionStartOk(_)
            | Method::ConnectionTuneOk { .. }
            | Method::ConnectionOpen { .. }
            | Method::ConnectionClose { .. }
            | Method::ConnectionCloseOk => Err(Exception::connection(
                code::COMMAND_INVALID,
                format_args!("not a method of channel {number}"),
            )),
        }
    }

    fn channel_open(&mut self, number: u16) -> Result<(), Exception> {
        if number > self.agreed.channel_max
            || self.channels.len() >= usize::from(limits::CHANNEL_MAX)
        {
            return Err(Exception::connection(
                code::NOT_ALLOWED,
                format_args!(
                    "channel {number} is above the negotiated {}",
                    self.agreed.channel_max
                ),
            ));
        }
        if self.channels.contains_key(&number) {
            return Err(Exception::connection(
                code::CHANNEL_ERROR,
                format_args!("channel {number} is open already"),
            ));
        }
        self.channels
            .insert(number, Channel::new(self.broker.new_holder()));
        reply::channel_open_ok(&mut self.out, number);
        Ok(())
    }

    /// After our `channel.close` only its answer counts.
    pub fn handle_closing_channel(
        &mut self,
        number: u16,
        method: &Method,
    ) -> Result<(), Exception> {
        match method {
            Method::ChannelCloseOk => {
                self.channels.remove(&number);
            }
            Method::ChannelClose { .. } => {
                // Both closed at once: each answers the other.
                self.channels.remove(&number);
                reply::plain(&mut self.out, number, reply::CHANNEL_CLOSE_OK);
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts back what the channel holds and ends its consumers.
    pub fn end_channel(&mut self, number: u16) {
        let Some(channel) = self.channels.get_mut(&number) else {
            return;
        };
        let unacked = std::mem::take(&mut channel.unacked);
        let unsettled = channel
            .transaction
            .take()
            .map(|t| t.endings)
            .unwrap_or_default();
        let consumers = std::mem::take(&mut channel.consumers);
        for delivery in unacked
            .into_values()
            .chain(unsettled.into_iter().map(|(_, d, _)| d))
        {
            self.settle(&delivery.queue, delivery.id, Verdict::Release);
        }
        for consumer in consumers.into_values() {
            self.consumer_gone(consumer.queue);
        }
        self.flush();
    }
}
