//! Class tx: messages and acknowledgements of a channel wait for `tx.commit`, which answers when all of them are durable. As RabbitMQ has
//! it, a commit that spans several streams is not one indivisible step.

use crate::{
    channel::Transaction,
    connection::Session,
    error::{Exception, code},
    reply,
};

impl Session {
    pub fn tx_select(&mut self, number: u16) -> Result<(), Exception> {
        let channel = self.channel(number)?;
        if channel.confirm.is_some() {
            return Err(Exception::channel(
                code::PRECONDITION_FAILED,
                "cannot switch from confirm to tx mode",
            ));
        }
        channel.transaction.get_or_insert_default();
        reply::plain(&mut self.out, number, reply::TX_SELECT_OK);
        Ok(())
    }

    fn take_transaction(&mut self, number: u16) -> Result<Transaction, Exception> {
        match &mut self.channel(number)?.transaction {
            Some(transaction) => Ok(std::mem::take(transaction)),
            None => Err(Exception::channel(
                code::PRECONDITION_FAILED,
                "channel is not transactional",
            )),
        }
    }

    /// May all of it still be published? The rules can be others than when the messages came.
    fn check_transaction(&self, number: u16) -> Result<(), Exception> {
        let channel = self.channels.get(&number);
        let waiting = channel.and_then(|channel| channel.transaction.as_ref());
        let mut messages = waiting.into_iter().flat_map(|waiting| &waiting.messages);
        messages.try_for_each(|(to, ..)| self.may_publish(&to.exchange, &to.routing_key))
    }

    pub async fn tx_commit(&mut self, number: u16) -> Result<(), Exception> {
        // Before any of it is published.
        self.check_transaction(number)?;
        let Transaction {
            messages, endings, ..
        } = self.take_transaction(number)?;
        for (publish, block, body) in messages {
            self.publish(number, &publish, block, body).await?;
        }
        for (_, delivery, verdict) in endings {
            self.settle(&delivery.queue, delivery.id, verdict);
        }
        self.drain().await;
        // A write that was refused has closed the channel with the reason.
        if self.channel(number).is_ok_and(|c| !c.closing) && self.closing.is_none() {
            reply::plain(&mut self.out, number, reply::TX_COMMIT_OK);
        }
        Ok(())
    }

    /// Forgets the messages; what was acknowledged is unacknowledged again.
    pub fn tx_rollback(&mut self, number: u16) -> Result<(), Exception> {
        let Transaction { endings, .. } = self.take_transaction(number)?;
        let channel = self.channel(number)?;
        for (tag, delivery, _) in endings {
            channel.hold(tag, delivery);
        }
        reply::plain(&mut self.out, number, reply::TX_ROLLBACK_OK);
        Ok(())
    }
}
