//! How many retained messages there may be, and how long their payloads.

use crate::backend::{Message, PublishError};

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

impl RetainedLimits {
    /// A retained message more, or a larger one, than there may be is refused (0x97). `count` says how many there are, `is_known` whether the
    /// message takes the place of another.
    pub fn check(
        &self,
        message: &Message,
        count: impl FnOnce() -> usize,
        is_known: impl FnOnce() -> bool,
    ) -> Result<(), PublishError> {
        let payload = message.payload.len();
        if !message.retain || payload == 0 {
            return Ok(());
        }
        let RetainedLimits { messages, bytes } = *self;
        if payload > bytes {
            let text = format!("a retained message may have {bytes} bytes, this has {payload}");
            return Err(PublishError::QuotaExceeded(text));
        }
        if count() >= messages && !is_known() {
            let text = format!("there are {messages} retained messages already");
            return Err(PublishError::QuotaExceeded(text));
        }
        Ok(())
    }
}
