use crate::{ReasonCode, TopicError};

/// Why bytes are not a packet. Each ends the connection [MQTT-4.13.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes can not be parsed.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// They can be, but say what the protocol forbids.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("packet of {size} bytes is larger than the limit of {limit}")]
    PacketTooLarge { size: usize, limit: usize },
    #[error("protocol version {0} is not supported; 3.1.1 and 5 are")]
    UnsupportedVersion(u8),
    #[error("topic name: {0}")]
    TopicName(TopicError),
    #[error("topic filter: {0}")]
    TopicFilter(TopicError),
    #[error("quota exceeded: {0}")]
    Quota(&'static str),
}

impl DecodeError {
    /// What DISCONNECT (or CONNACK) says before the connection is closed.
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            DecodeError::Malformed(_) => ReasonCode::MALFORMED_PACKET,
            DecodeError::Protocol(_) => ReasonCode::PROTOCOL_ERROR,
            DecodeError::PacketTooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            DecodeError::UnsupportedVersion(_) => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            DecodeError::TopicName(_) => ReasonCode::TOPIC_NAME_INVALID,
            DecodeError::TopicFilter(_) => ReasonCode::TOPIC_FILTER_INVALID,
            DecodeError::Quota(_) => ReasonCode::QUOTA_EXCEEDED,
        }
    }
}
