//! A channel: consumers, what is out without acknowledgement, confirm mode, and content on its way in.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use kernel::{DeliveryId, HolderId, Verdict};
use tokio_util::sync::DropGuard;

use crate::{limits, method::Publish, queue::QueueState};

pub struct Unacked {
    pub queue: Arc<QueueState>,
    pub id: DeliveryId,
    /// `None`: by `basic.get`, which no prefetch counts.
    pub consumer: Option<Arc<str>>,
}

pub struct Consumer {
    /// Unique in the connection: a tag may be used again while a wait of the earlier consumer is still pending.
    pub id: u64,
    pub queue: Arc<QueueState>,
    pub no_ack: bool,
    /// 0 = unlimited.
    pub prefetch: u16,
    pub unacked: usize,
    /// Asked for and not yet arrived.
    pub reserved: usize,
    /// A wait or an acquisition is under way.
    pub busy: bool,
    /// Ends what waits for this consumer when it goes.
    pub gone: DropGuard,
}

/// A publish whose content is not complete.
pub struct Content {
    pub publish: Publish,
    /// Set by the content header.
    pub header: Option<(u64, Bytes)>,
    pub body: BytesMut,
}

pub struct Channel {
    /// Unique in the process: numbers of channels are used again.
    pub holder: HolderId,
    pub consumers: HashMap<Arc<str>, Consumer>,
    pub unacked: BTreeMap<u64, Unacked>,
    pub last_delivery_tag: u64,
    /// Sequence of the last message published in confirm mode.
    pub confirm: Option<u64>,
    pub prefetch_consumer: u16,
    pub prefetch_channel: u16,
    pub reserved: usize,
    /// Of `unacked`, those that count for the prefetch of the channel.
    pub consumer_unacked: usize,
    pub content: Option<Content>,
    /// The queue an empty name stands for.
    pub last_queue: Option<Arc<str>>,
    /// `channel.flow` by the client.
    pub flowing: bool,
    /// We have sent `channel.close`: everything but its answer is discarded.
    pub closing: bool,
    /// Set by `tx.select`.
    pub transaction: Option<Transaction>,
}

/// What waits for `tx.commit`.
#[derive(Default)]
pub struct Transaction {
    pub messages: Vec<(Publish, Bytes, Bytes)>,
    pub bytes: usize,
    pub endings: Vec<(u64, Unacked, Verdict)>,
}

impl Channel {
    pub fn new(holder: u64) -> Channel {
        Channel {
            holder: HolderId(holder),
            consumers: HashMap::new(),
            unacked: BTreeMap::new(),
            last_delivery_tag: 0,
            confirm: None,
            prefetch_consumer: 0,
            prefetch_channel: 0,
            reserved: 0,
            consumer_unacked: 0,
            content: None,
            last_queue: None,
            flowing: true,
            closing: false,
            transaction: None,
        }
    }

    /// How many more messages this consumer may be sent.
    pub fn room(&self, consumer: &Consumer) -> usize {
        if consumer.no_ack {
            return limits::ACQUIRE_MESSAGES;
        }
        let left = |limit: u16, used: usize| {
            if limit == 0 {
                usize::MAX
            } else {
                usize::from(limit).saturating_sub(used)
            }
        };
        left(consumer.prefetch, consumer.unacked + consumer.reserved)
            .min(left(
                self.prefetch_channel,
                self.consumer_unacked + self.reserved,
            ))
            .min(limits::UNACKED_PER_CHANNEL.saturating_sub(self.unacked.len() + self.reserved))
            .min(limits::ACQUIRE_MESSAGES)
    }

    pub fn next_delivery_tag(&mut self) -> u64 {
        self.last_delivery_tag += 1;
        self.last_delivery_tag
    }

    /// Puts a delivery (back) among what is unacknowledged.
    pub fn hold(&mut self, tag: u64, delivery: Unacked) {
        if let Some(consumer) = &delivery.consumer {
            self.consumer_unacked += 1;
            if let Some(consumer) = self.consumers.get_mut(consumer) {
                consumer.unacked += 1;
            }
        }
        self.unacked.insert(tag, delivery);
    }

    /// Takes a delivery out of what is unacknowledged.
    pub fn take(&mut self, tag: u64) -> Option<Unacked> {
        let unacked = self.unacked.remove(&tag)?;
        if unacked.consumer.is_some() {
            self.consumer_unacked = self.consumer_unacked.saturating_sub(1);
        }
        if let Some(consumer) = unacked
            .consumer
            .as_ref()
            .and_then(|tag| self.consumers.get_mut(tag))
        {
            consumer.unacked = consumer.unacked.saturating_sub(1);
        }
        Some(unacked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_tags_start_at_one() {
        let mut channel = Channel::new(1);
        assert_eq!(
            (channel.next_delivery_tag(), channel.next_delivery_tag()),
            (1, 2)
        );
        assert!(channel.take(1).is_none());
    }
}
