//! `basic.ack`, `basic.nack`, `basic.reject`, `basic.recover`.

use kernel::Verdict;

use crate::{
    connection::Session,
    error::{Exception, code},
    reply,
};

impl Session {
    /// Ends one delivery, or with `multiple` all up to it (0: all there are).
    pub fn basic_ack(
        &mut self,
        number: u16,
        delivery_tag: u64,
        multiple: bool,
        verdict: Verdict,
    ) -> Result<(), Exception> {
        let channel = self.channel(number)?;
        let unknown = || {
            Exception::channel(
                code::PRECONDITION_FAILED,
                format_args!("unknown delivery tag {delivery_tag}"),
            )
        };
        let tags: Vec<u64> = match (multiple, delivery_tag) {
            (true, 0) => channel.unacked.keys().copied().collect(),
            (true, up_to) => {
                // Of the last one sent at most, and something must be out: a tag twice acknowledged is an error.
                let tags: Vec<u64> = channel
                    .unacked
                    .range(..=up_to)
                    .map(|(tag, _)| *tag)
                    .collect();
                if tags.is_empty() || up_to > channel.last_delivery_tag {
                    return Err(unknown());
                }
                tags
            }
            (false, tag) => vec![tag],
        };
        for tag in tags {
            let channel = self.channel(number)?;
            let delivery = channel.take(tag).ok_or_else(unknown)?;
            if let Some(transaction) = &mut channel.transaction {
                transaction.endings.push((tag, delivery, verdict));
                continue;
            }
            self.settle(&delivery.queue, delivery.id, verdict);
        }
        Ok(())
    }

    /// Puts back everything out on the channel; it is delivered again, to whoever is next.
    pub async fn basic_recover(
        &mut self,
        number: u16,
        requeue: bool,
        asynchronous: bool,
    ) -> Result<(), Exception> {
        if !requeue {
            return Err(Exception::connection(
                code::NOT_IMPLEMENTED,
                "basic.recover with requeue=false is not implemented",
            ));
        }
        let tags: Vec<u64> = self.channel(number)?.unacked.keys().copied().collect();
        for tag in tags {
            if let Some(delivery) = self.channel(number)?.take(tag) {
                self.settle(&delivery.queue, delivery.id, Verdict::Release);
            }
        }
        self.drain().await;
        if !asynchronous {
            reply::plain(&mut self.out, number, reply::BASIC_RECOVER_OK);
        }
        Ok(())
    }
}
