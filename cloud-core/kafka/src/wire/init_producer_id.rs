//! InitProducerId (key 22): a producer id for idempotent producers.

use super::message::message;

message! {
    /// What a client asks.
    InitProducerIdRequest {
        transactional_id: Option<String>, 0..;
        transaction_timeout_ms: i32, 0..;
        producer_id: i64, 3.., default -1;
        producer_epoch: i16, 3.., default -1;
    }
}

message! {
    /// What it gets.
    InitProducerIdResponse {
        throttle_time_ms: i32, 0..;
        error_code: i16, 0..;
        producer_id: i64, 0.., default -1;
        producer_epoch: i16, 0..;
    }
}
