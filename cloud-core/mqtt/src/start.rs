use std::sync::Arc;

use frontend::{Context, Listeners};
use mqtt_broker::backend::StorageError;
use mqtt_broker::{Broker, Limits};
use record::Namespace;
use tokio::task::JoinHandle;

use crate::access::CoreAccess;
use crate::{CoreBackend, Mqtt, MqttOptions, limits, metrics};

/// Serves MQTT on `listeners` until the context is shut down. The stored sessions are read first: clients that connect
/// before wait for their CONNACK.
pub fn start(
    ctx: Context,
    listeners: impl Into<Listeners>,
    options: MqttOptions,
    mqtt: Mqtt,
) -> JoinHandle<()> {
    let listeners = listeners.into();
    tokio::spawn(async move {
        let broker = match open(&ctx, options).await {
            Ok(broker) => broker,
            Err(error) => {
                tracing::error!(%error, "MQTT is not served");
                return;
            }
        };
        tokio::spawn(broker.backend().clone().publish_delayed());
        tokio::spawn(broker.backend().clone().sweep_retained());
        mqtt.set(broker.clone());
        frontend::serve(ctx, "mqtt", listeners, move |connection| {
            let broker = broker.clone();
            async move { broker.serve_peer(connection.stream, connection.peer).await }
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

async fn open(ctx: &Context, options: MqttOptions) -> Result<Arc<Broker<CoreBackend>>, StartError> {
    let backend = CoreBackend::new(ctx.clone(), Namespace::default())?;
    let backend = backend.with_retained_limits(options.retained);
    backend.forget_unreleased_of_nobody().await?;
    let message_bytes = u32::try_from(ctx.limits.message_bytes).unwrap_or(u32::MAX);
    let session_limits = Limits {
        maximum_packet_size: message_bytes.saturating_add(limits::PACKET_OVERHEAD),
        ..options.limits
    };
    let broker = Broker::start_extended(
        Arc::new(backend),
        Arc::new(CoreAccess::new(ctx)),
        session_limits,
        options.extra,
        ctx.shutdown.clone(),
    )
    .await?;
    metrics::register(&ctx.registry, broker.clone())?;
    Ok(broker)
}
