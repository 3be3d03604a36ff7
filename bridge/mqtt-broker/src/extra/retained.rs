//! How many retained messages there may be, how long their payloads, and how many bytes all of them.

use crate::backend::{Message, PublishError};
use mqtt_codec::TopicName;
use parking_lot::Mutex;
use std::collections::HashMap;

/// For the stored ones. Of topics that are not stored there can be as many again, of the same size, and with a bound in bytes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedLimits {
    pub messages: usize,
    /// Of one payload.
    pub bytes: usize,
    /// Of all of them: topics, payloads and properties.
    pub all_bytes: u64,
}

impl Default for RetainedLimits {
    fn default() -> RetainedLimits {
        RetainedLimits {
            messages: 1_000_000,
            bytes: usize::MAX,
            all_bytes: 1 << 30,
        }
    }
}

impl RetainedLimits {
    pub(crate) fn check_size(&self, payload: &[u8]) -> Result<(), PublishError> {
        let (most, is) = (self.bytes, payload.len());
        if is > most {
            let text = format!("a retained message may have {most} bytes, this has {is}");
            return Err(PublishError::QuotaExceeded(text));
        }
        Ok(())
    }

    pub(crate) fn too_many(&self) -> PublishError {
        let text = format!("there are {} retained messages already", self.messages);
        PublishError::QuotaExceeded(text)
    }
}

/// Those that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetainedSum {
    pub messages: usize,
    /// As the host stores them.
    pub bytes: u64,
}

/// On the way to one topic.
#[derive(Debug, Default)]
struct ToTopic {
    messages: usize,
    /// Of the largest.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Coming {
    topics: HashMap<TopicName, ToTopic>,
    bytes: u64,
}

/// A host's retained messages, as far as there is a bound to them.
pub trait RetainedThere {
    fn retained_sum(&self) -> RetainedSum;

    /// Of the message whose place one to this topic takes.
    fn retained_bytes(&self, topic: &TopicName) -> Option<u64>;
}

/// What is on its way to be retained counts as if it were there: many at a time would all be let in otherwise.
#[derive(Debug, Default)]
pub struct RetainedRoom {
    limits: RetainedLimits,
    coming: Mutex<Coming>,
}

/// To be kept until the message is retained or refused.
#[derive(Debug)]
#[must_use]
pub struct RetainedPlace<'a>(Option<(&'a RetainedRoom, TopicName)>);

impl RetainedRoom {
    pub fn new(limits: RetainedLimits) -> RetainedRoom {
        RetainedRoom {
            limits,
            coming: Mutex::default(),
        }
    }

    /// A retained message more, or a larger one, than there may be is refused (0x97).
    pub fn take(
        &self,
        message: &Message,
        there: &impl RetainedThere,
    ) -> Result<RetainedPlace<'_>, PublishError> {
        if !message.retain || message.payload.is_empty() {
            return Ok(RetainedPlace(None));
        }
        let RetainedLimits {
            messages,
            all_bytes,
            ..
        } = self.limits;
        self.limits.check_size(&message.payload)?;
        let topic = &message.topic;
        let size = message.size() as u64;
        let mut coming = self.coming.lock();
        let now = there.retained_sum();
        let is_near = now.messages + coming.topics.len() >= messages;
        if is_near && coming.is_too_many(topic, messages, there) {
            return Err(self.limits.too_many());
        }
        let is_near = now.bytes + coming.bytes + size > all_bytes;
        if is_near && coming.is_too_much(topic, size, all_bytes, there) {
            let text = format!("all retained messages would be more than {all_bytes} bytes");
            return Err(PublishError::QuotaExceeded(text));
        }
        coming.add(topic, size);
        Ok(RetainedPlace(Some((self, topic.clone()))))
    }

    /// Would [`RetainedRoom::take`] refuse it because of those that are there?
    pub fn lacks(&self, message: &Message, there: &impl RetainedThere) -> bool {
        message.payload.len() <= self.limits.bytes && self.take(message, there).is_err()
    }
}

/// Those that come are looked at before those that are there: one that arrives meanwhile is counted twice and not missed.
impl Coming {
    fn is_too_many(&self, topic: &TopicName, most: usize, there: &impl RetainedThere) -> bool {
        if self.topics.contains_key(topic) || there.retained_bytes(topic).is_some() {
            return false;
        }
        let topics = self.topics.keys();
        let new = topics.filter(|topic| there.retained_bytes(topic).is_none());
        new.count() + there.retained_sum().messages >= most
    }

    /// What makes nothing larger is let in, however much there is.
    fn is_too_much(
        &self,
        topic: &TopicName,
        size: u64,
        most: u64,
        there: &impl RetainedThere,
    ) -> bool {
        let known = |topic| there.retained_bytes(topic).unwrap_or(0);
        let coming = self.topics.get(topic).map_or(0, |one| one.bytes);
        let more = size.saturating_sub(coming.max(known(topic)));
        let topics = self.topics.iter();
        let others = topics.map(|(topic, one)| one.bytes.saturating_sub(known(topic)));
        let others: u64 = others.sum();
        more > 0 && others + more + there.retained_sum().bytes > most
    }

    fn add(&mut self, topic: &TopicName, size: u64) {
        let one = self.topics.entry(topic.clone()).or_default();
        one.messages += 1;
        self.bytes += size.saturating_sub(one.bytes);
        one.bytes = one.bytes.max(size);
    }

    fn remove(&mut self, topic: &TopicName) {
        let Some(one) = self.topics.get_mut(topic) else {
            return;
        };
        one.messages -= 1;
        if one.messages == 0 {
            self.bytes -= one.bytes;
            self.topics.remove(topic);
        }
    }
}

impl Drop for RetainedPlace<'_> {
    fn drop(&mut self) {
        if let Some((room, topic)) = self.0.take() {
            room.coming.lock().remove(&topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_codec::QoS;
    use mqtt_session::MessageProperties;

    fn retained(topic: &str) -> Message {
        Message {
            topic: TopicName::new(topic).unwrap(),
            payload: "x".into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at: None,
            origin: None,
            number: None,
            properties: MessageProperties::default(),
        }
    }

    /// Topics, and the bytes to each.
    struct There<'a>(&'a [(&'a str, u64)]);

    impl RetainedThere for There<'_> {
        fn retained_sum(&self) -> RetainedSum {
            RetainedSum {
                messages: self.0.len(),
                bytes: self.0.iter().map(|(_, bytes)| bytes).sum(),
            }
        }

        fn retained_bytes(&self, topic: &TopicName) -> Option<u64> {
            let found = self.0.iter().find(|(other, _)| *other == topic.as_str());
            found.map(|(_, bytes)| *bytes)
        }
    }

    #[test]
    fn what_is_on_its_way_takes_room() {
        let room = RetainedRoom::new(RetainedLimits {
            messages: 3,
            bytes: 1,
            ..RetainedLimits::default()
        });
        let take = |topic: &str, there: &[&str]| {
            let there: Vec<_> = there.iter().map(|topic| (*topic, 0)).collect();
            room.take(&retained(topic), &There(&there))
        };
        let first = take("a", &["x"]).unwrap();
        let second = take("b", &["x"]).unwrap();
        assert!(take("c", &["x"]).is_err());
        // It takes the place of one that is there, or comes.
        drop(take("x", &["x"]).unwrap());
        drop(take("a", &["x"]).unwrap());
        // Arrived and still held: counted once.
        assert!(take("c", &["x", "a"]).is_err());
        assert!(take("c", &["a"]).is_ok());
        drop(second);
        drop(take("c", &["x", "a"]).unwrap());
        drop(first);
        assert!(room.coming.lock().topics.is_empty());
    }

    #[test]
    fn all_of_them_have_a_bound_in_bytes_and_what_comes_counts() {
        let room = RetainedRoom::new(RetainedLimits {
            all_bytes: 100,
            ..RetainedLimits::default()
        });
        let take = |topic: &str, size: usize, there: &[(&str, u64)]| {
            let mut message = retained(topic);
            message.payload = vec![0; size - topic.len()].into();
            room.take(&message, &There(there))
        };
        let there = [("x", 40)];
        let first = take("a", 40, &there).unwrap();
        assert!(take("b", 21, &there).is_err());
        let second = take("b", 20, &there).unwrap();
        // In the place of another it takes what it is larger.
        assert!(take("x", 41, &there).is_err());
        drop(take("x", 40, &there).unwrap());
        assert!(take("a", 41, &there).is_err());
        drop(take("a", 40, &there).unwrap());
        drop(first);
        drop(take("x", 80, &there).unwrap());
        // Arrived and still held: counted once.
        let there = [("x", 40), ("b", 20)];
        drop(take("c", 40, &there).unwrap());
        assert!(take("c", 41, &there).is_err());
        drop(second);
        assert_eq!(room.coming.lock().bytes, 0);
        // More than there may be, from before there was a bound.
        let there = [("x", 400)];
        assert!(take("a", 2, &there).is_err());
        drop(take("x", 300, &there).unwrap());
    }
}
