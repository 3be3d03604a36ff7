//! How many retained messages there may be, and how long their payloads.

use crate::backend::{Message, PublishError};
use mqtt_codec::TopicName;
use parking_lot::Mutex;
use std::collections::HashMap;

/// For the stored ones. Those of topics that are not stored have a bound in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedLimits {
    pub messages: usize,
    pub bytes: usize,
}

impl Default for RetainedLimits {
    fn default() -> RetainedLimits {
        RetainedLimits {
            messages: 1_000_000,
            bytes: usize::MAX,
        }
    }
}

/// What is on its way to be retained counts as if it were there: many at a time would all be let in otherwise.
#[derive(Debug, Default)]
pub struct RetainedRoom {
    limits: RetainedLimits,
    /// By topic, how many.
    coming: Mutex<HashMap<TopicName, usize>>,
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

    /// A retained message more, or a larger one, than there may be is refused (0x97). `count` says how many there are, `is_known` whether a
    /// message to this topic takes the place of another.
    pub fn take(
        &self,
        message: &Message,
        count: impl Fn() -> usize,
        is_known: impl Fn(&TopicName) -> bool,
    ) -> Result<RetainedPlace<'_>, PublishError> {
        let payload = message.payload.len();
        if !message.retain || payload == 0 {
            return Ok(RetainedPlace(None));
        }
        let RetainedLimits { messages, bytes } = self.limits;
        if payload > bytes {
            let text = format!("a retained message may have {bytes} bytes, this has {payload}");
            return Err(PublishError::QuotaExceeded(text));
        }
        let topic = &message.topic;
        let mut coming = self.coming.lock();
        let is_full = || {
            // Those that come before those that are there: one that arrives meanwhile is counted twice and not missed.
            let new = coming.keys().filter(|topic| !is_known(topic)).count();
            new + count() >= messages
        };
        let is_near = count() + coming.len() >= messages;
        if is_near && !coming.contains_key(topic) && !is_known(topic) && is_full() {
            let text = format!("there are {messages} retained messages already");
            return Err(PublishError::QuotaExceeded(text));
        }
        *coming.entry(topic.clone()).or_default() += 1;
        Ok(RetainedPlace(Some((self, topic.clone()))))
    }
}

impl Drop for RetainedPlace<'_> {
    fn drop(&mut self) {
        let Some((room, topic)) = self.0.take() else {
            return;
        };
        let mut coming = room.coming.lock();
        if let Some(count) = coming.get_mut(&topic) {
            *count -= 1;
            if *count == 0 {
                coming.remove(&topic);
            }
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

    #[test]
    fn what_is_on_its_way_takes_room() {
        let room = RetainedRoom::new(RetainedLimits {
            messages: 3,
            bytes: 1,
        });
        let take = |topic: &str, there: &[&str]| {
            room.take(
                &retained(topic),
                || there.len(),
                |topic| there.contains(&topic.as_str()),
            )
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
        assert!(room.coming.lock().is_empty());
    }
}
