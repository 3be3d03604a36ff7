//! The AMQP 0-9-1 front end. An exchange is a stream, a queue is sparse state over streams, a binding is an interval of offsets.
//! What is kept where, and what is refused: `docs/reference/amqp.md`.

mod authorise;
mod broker;
mod channel;
mod connection;
mod deliver;
mod error;
mod exchange;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod handle_ack;
mod handle_channel;
mod handle_connection;
mod handle_consume;
mod handle_exchange;
mod handle_get;
mod handle_publish;
mod handle_queue;
mod handle_tx;
mod handshake;
pub mod limits;
mod login;
mod matching;
mod message;
mod method;
#[cfg(test)]
mod oracle;
mod properties;
mod publisher;
mod queue;
mod reply;
mod routes;
mod vhost;
mod wire;

use std::sync::Arc;

use frontend::{Context, Listeners};
use tokio::task::JoinHandle;

/// Serves AMQP on `listeners` until the context is shut down. Virtual hosts are loaded first: clients that connect before wait.
pub fn start(context: Context, listeners: impl Into<Listeners>) -> JoinHandle<()> {
    let listeners = listeners.into();
    tokio::spawn(async move {
        let broker = match broker::Broker::open(context.clone()).await {
            Ok(broker) => Arc::new(broker),
            Err(error) => {
                tracing::error!(%error, "AMQP is not served: its exchanges and queues could not be loaded");
                return;
            }
        };
        let watcher = tokio::spawn(broker.clone().watch_streams());
        frontend::serve(context, "amqp", listeners, move |connection| {
            connection::serve(broker.clone(), connection)
        })
        .await;
        watcher.abort();
    })
}
