//! SaslAuthenticate (key 36): one message of the mechanism's exchange.

use bytes::Bytes;

use super::message::message;

message! {
    /// What a client asks.
    SaslAuthenticateRequest {
        auth_bytes: Bytes, 0..;
    }
}

message! {
    /// What it gets.
    SaslAuthenticateResponse {
        error_code: i16, 0..;
        error_message: Option<String>, 0..;
        auth_bytes: Bytes, 0..;
        session_lifetime_ms: i64, 1..;
    }
}
