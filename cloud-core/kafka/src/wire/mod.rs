//! Bytes of the Kafka protocol: what a request and a response look like in every version that is served.
//!
//! Each message is described once, field by field, with the versions in which it exists; [`message`] makes both directions
//! of it. Nothing is allocated for a length that the bytes at hand cannot fill. Record bytes are slices of the request
//! on the way in and chunks of their own on the way out: they are never copied here.

mod api;
mod header;
mod message;
mod reader;
pub(crate) mod writer;

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sasl_authenticate;
pub mod sasl_handshake;
pub mod sync_group;

pub use api::{Api, Request};
pub use header::RequestHeader;
pub use message::Message;
pub use reader::{Reader, WireError};
pub use writer::{Records, Writer};

#[cfg(test)]
mod oracle_tests;
