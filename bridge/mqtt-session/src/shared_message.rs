//! One message for all who get it.

use crate::Message;
use bytes::Bytes;
use std::ops::Deref;
use std::sync::OnceLock;

/// A message together with what of its encoding is the same for every receiver: made by the first who needs it.
#[derive(Debug)]
pub struct SharedMessage {
    message: Message,
    /// The MQTT 5 properties that travel with the message, encoded.
    properties: OnceLock<Bytes>,
}

impl SharedMessage {
    /// As [`mqtt_codec::PublishHead`] takes them.
    pub(crate) fn encoded_properties(&self) -> &Bytes {
        self.properties
            .get_or_init(|| self.message.properties.to_packet().to_encoded())
    }
}

impl From<Message> for SharedMessage {
    fn from(message: Message) -> SharedMessage {
        let plain = message.properties == crate::MessageProperties::default();
        SharedMessage {
            properties: if plain {
                OnceLock::from(Bytes::new())
            } else {
                OnceLock::new()
            },
            message,
        }
    }
}

impl Deref for SharedMessage {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl PartialEq for SharedMessage {
    fn eq(&self, other: &SharedMessage) -> bool {
        self.message == other.message
    }
}
