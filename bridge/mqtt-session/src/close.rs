use mqtt_codec::{DecodeError, ReasonCode};

/// The connection must end: said in DISCONNECT to a client of version 5, otherwise only by closing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} (reason code 0x{:02x})", reason_code.0)]
pub struct Close {
    pub reason_code: ReasonCode,
    pub text: String,
}

impl Close {
    pub fn new(reason_code: ReasonCode, text: impl Into<String>) -> Close {
        Close {
            reason_code,
            text: text.into(),
        }
    }
}

impl From<DecodeError> for Close {
    fn from(error: DecodeError) -> Close {
        Close::new(error.reason_code(), error.to_string())
    }
}
