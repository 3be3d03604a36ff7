use std::sync::Arc;

use frontend::Context;
use mqtt_broker::Broker;
use mqtt_broker::backend::StorageError;
use record::Namespace;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{CoreBackend, limits, metrics};

/// Serves MQTT on `listener` until the context is shut down. The stored sessions are read first: clients that connect
/// before wait for their CONNACK.
pub fn start(ctx: Context, listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let broker = match open(&ctx).await {
            Ok(broker) => broker,
            Err(error) => {
                tracing::error!(%error, "MQTT is not served");
                return;
            }
        };
        frontend::serve_tcp(ctx, "mqtt", listener, move |connection| {
            let broker = broker.clone();
            async move { broker.serve(connection.stream).await }
        })
        .await;
    })
}

/// Why MQTT is not served.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("a metric could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the stored sessions could not be read: {0}")]
    Sessions(#[from] StorageError),
}

async fn open(ctx: &Context) -> Result<Arc<Broker<CoreBackend>>, StartError> {
    let backend = CoreBackend::new(ctx.clone(), Namespace::default())?;
    let message_bytes = u32::try_from(ctx.limits.message_bytes).unwrap_or(u32::MAX);
    let session_limits = mqtt_broker::Limits {
        maximum_packet_size: message_bytes.saturating_add(limits::PACKET_OVERHEAD),
        ..mqtt_broker::Limits::default()
    };
    let broker = Broker::start(Arc::new(backend), session_limits, ctx.shutdown.clone()).await?;
    metrics::register(&ctx.registry, broker.clone())?;
    Ok(broker)
}
