//! Kafka's error codes, by their names in the protocol.

use kernel::{AppendError, ReadError, WriteError};

pub const UNKNOWN_SERVER_ERROR: i16 = -1;
pub const NONE: i16 = 0;
pub const OFFSET_OUT_OF_RANGE: i16 = 1;
pub const CORRUPT_MESSAGE: i16 = 2;
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
pub const REQUEST_TIMED_OUT: i16 = 7;
pub const MESSAGE_TOO_LARGE: i16 = 10;
pub const OFFSET_METADATA_TOO_LARGE: i16 = 12;
pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
pub const INVALID_REQUIRED_ACKS: i16 = 21;
pub const ILLEGAL_GENERATION: i16 = 22;
pub const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
pub const INVALID_GROUP_ID: i16 = 24;
pub const UNKNOWN_MEMBER_ID: i16 = 25;
pub const INVALID_SESSION_TIMEOUT: i16 = 26;
pub const REBALANCE_IN_PROGRESS: i16 = 27;
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
pub const GROUP_AUTHORIZATION_FAILED: i16 = 30;
pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
pub const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
pub const ILLEGAL_SASL_STATE: i16 = 34;
pub const UNSUPPORTED_VERSION: i16 = 35;
pub const TOPIC_ALREADY_EXISTS: i16 = 36;
pub const INVALID_PARTITIONS: i16 = 37;
pub const INVALID_REPLICATION_FACTOR: i16 = 38;
pub const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
pub const INVALID_CONFIG: i16 = 40;
pub const INVALID_REQUEST: i16 = 42;
pub const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
pub const POLICY_VIOLATION: i16 = 44;
pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
pub const INVALID_PRODUCER_EPOCH: i16 = 47;
pub const INVALID_TXN_STATE: i16 = 48;
pub const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
pub const TRANSACTION_COORDINATOR_FENCED: i16 = 52;
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
pub const KAFKA_STORAGE_ERROR: i16 = 56;
pub const SASL_AUTHENTICATION_FAILED: i16 = 58;
pub const NON_EMPTY_GROUP: i16 = 68;
pub const GROUP_ID_NOT_FOUND: i16 = 69;
pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
pub const FENCED_LEADER_EPOCH: i16 = 74;
pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
pub const MEMBER_ID_REQUIRED: i16 = 79;
pub const GROUP_MAX_SIZE_REACHED: i16 = 81;
pub const FENCED_INSTANCE_ID: i16 = 82;
pub const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
pub const INVALID_RECORD: i16 = 87;
pub const UNKNOWN_TOPIC_ID: i16 = 100;

/// What no transactional client is left in doubt about.
pub const NO_TRANSACTIONS: &str = "transactions are not supported: remove transactional.id";

/// The code for a batch that was not appended.
pub fn of_append(error: &AppendError) -> i16 {
    match error {
        AppendError::UnknownPartition(_) => UNKNOWN_TOPIC_OR_PARTITION,
        AppendError::OutOfOrderSequence { .. } => OUT_OF_ORDER_SEQUENCE_NUMBER,
        AppendError::FencedEpoch { .. } => INVALID_PRODUCER_EPOCH,
        AppendError::TransactionState { .. } => INVALID_TXN_STATE,
        AppendError::FencedCoordinator { .. } => TRANSACTION_COORDINATOR_FENCED,
        // Both make a client look for the leader again and retry: after a restart it is here.
        AppendError::Closed => NOT_LEADER_OR_FOLLOWER,
        AppendError::Failed(_) => KAFKA_STORAGE_ERROR,
        AppendError::Full => REQUEST_TIMED_OUT,
        AppendError::TooLarge { .. } => MESSAGE_TOO_LARGE,
        AppendError::Malformed(_) => INVALID_RECORD,
    }
}

/// The code for records that were not read.
pub fn of_read(error: &ReadError) -> i16 {
    match error {
        ReadError::UnknownPartition(_) => UNKNOWN_TOPIC_OR_PARTITION,
        ReadError::OutOfRange { .. } => OFFSET_OUT_OF_RANGE,
        // Clients tell their application, as they do when a batch of Kafka's fails their own checksum, and stay where they are: whether to go
        // on behind what is damaged is not theirs to decide.
        ReadError::Corrupt { .. } => CORRUPT_MESSAGE,
        // Clients try again after this one, and say nothing.
        ReadError::Io { .. } | ReadError::Unavailable { .. } => KAFKA_STORAGE_ERROR,
        ReadError::Closed => NOT_LEADER_OR_FOLLOWER,
    }
}

/// The code for a change of topics that was not written.
pub fn of_write(error: &WriteError) -> i16 {
    match error {
        WriteError::Closed | WriteError::Failed(_) => UNKNOWN_SERVER_ERROR,
        WriteError::Full => REQUEST_TIMED_OUT,
        WriteError::TooLarge { .. } | WriteError::Malformed(_) => INVALID_REQUEST,
    }
}

/// The code for a change of a group that was not written: clients retry it.
pub fn of_group_write(error: &WriteError) -> i16 {
    match error {
        WriteError::TooLarge { .. } | WriteError::Malformed(_) => INVALID_REQUEST,
        WriteError::Closed | WriteError::Failed(_) | WriteError::Full => COORDINATOR_NOT_AVAILABLE,
    }
}
