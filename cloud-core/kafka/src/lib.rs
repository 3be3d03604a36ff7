//! The Kafka front end: the classic protocol of Kafka's clients over the streams of the kernel.
//!
//! The way of a request: `receive` takes a frame off the socket, `connection` keeps the order of its answers,
//! `dispatch` reads it with the descriptions in [`wire`], and one `handle_*` file a verb answers it. A topic is a stream
//! of namespace `default`; the bytes of a record batch are the same on the wire, in the log and on the wire again.
//!
//! What is not in [`wire::Api`] is neither advertised nor understood: transactions, SASL and ACLs among it.

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod broker;
#[cfg(test)]
mod client_tests;
mod connection;
mod dispatch;
mod error_code;
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod handle_alter_configs;
mod handle_api_versions;
mod handle_create_partitions;
mod handle_create_topics;
mod handle_delete_groups;
mod handle_delete_records;
mod handle_delete_topics;
mod handle_describe_cluster;
mod handle_describe_configs;
mod handle_describe_groups;
mod handle_fetch;
mod handle_find_coordinator;
mod handle_heartbeat;
mod handle_incremental_alter_configs;
mod handle_init_producer_id;
mod handle_join_group;
mod handle_leave_group;
mod handle_list_groups;
mod handle_list_offsets;
mod handle_metadata;
mod handle_offset_commit;
mod handle_offset_delete;
mod handle_offset_fetch;
mod handle_offset_for_leader_epoch;
mod handle_produce;
mod handle_sync_group;
mod limits;
mod receive;
#[cfg(test)]
mod rights_tests;
mod sasl;
mod topic_config;
mod topics;
#[cfg(test)]
mod transaction_tests;
mod transmit;
mod wire;

use frontend::{Context, Listeners};
use tokio::task::JoinHandle;

use broker::Broker;

/// Serves Kafka clients on `listeners` until the context's shutdown; ends when their connections have.
pub fn start(ctx: Context, listeners: impl Into<Listeners>) -> JoinHandle<()> {
    let broker = Broker::new(ctx.clone());
    tokio::spawn(frontend::serve(
        ctx,
        "kafka",
        listeners.into(),
        move |connection| connection::serve(broker.clone(), connection),
    ))
}
