//! A broker that keeps everything in memory, to try clients against: `cargo run -p mqtt-broker --example memory-broker -- 127.0.0.1:1883`

#[path = "../tests/broker/memory.rs"]
mod memory;

use mqtt_broker::{Broker, Limits};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(std::io::stderr)
        .init();
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let shutdown = CancellationToken::new();
    let broker = Broker::start(
        Arc::new(memory::Memory::new()),
        Limits::default(),
        shutdown.clone(),
    )
    .await
    .map_err(std::io::Error::other)?;
    println!("ready mqtt={}", listener.local_addr()?);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let broker = broker.clone();
                tokio::spawn(async move { broker.serve(stream).await });
            }
            _ = tokio::signal::ctrl_c() => {
                shutdown.cancel();
                return Ok(());
            }
        }
    }
}
