//! Kafka's form of a cluster id: 16 random bytes in 22 characters.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

pub fn new() -> String {
    URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes())
}
