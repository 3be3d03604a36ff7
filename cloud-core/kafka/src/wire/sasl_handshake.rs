//! SaslHandshake (key 17): the mechanism by which a client is going to say who it is.

use super::message::message;

message! {
    /// What a client asks.
    SaslHandshakeRequest {
        mechanism: String, 0..;
    }
}

message! {
    /// What it gets.
    SaslHandshakeResponse {
        error_code: i16, 0..;
        mechanisms: Vec<String>, 0..;
    }
}
