//! What the core sends down: stored first, acknowledged then, and read by local subscribers from the inbox.

use std::sync::Arc;

use record::{Batch, StreamName};
use store::{Origin, Store};
use sync_quic::{Connection, DownFrame};
use tokio::sync::mpsc;

use crate::backend::retained_records;

/// The stream that commands come from.
const STREAM: &str = "cmd";

/// Stores and acknowledges what comes, in order, until the channel ends or something can not be stored (then the connection is
/// closed, and the core sends it again over the next one).
pub async fn run(store: Arc<Store>, connection: Connection, mut frames: mpsc::Receiver<DownFrame>) {
    while let Some(frame) = frames.recv().await {
        let position = frame.position;
        if let Err(reason) = receive(&store, frame).await {
            tracing::error!(%reason, "a command can not be stored: the core will send it again");
            connection.close();
            return;
        }
        if connection.send_down_ack(position).await.is_err() {
            return;
        }
    }
}

async fn receive(store: &Store, frame: DownFrame) -> anyhow::Result<()> {
    let stream = StreamName::new(STREAM)?;
    let batch = match Batch::parse(frame.batch).and_then(|batch| {
        let retained = retained_records(&stream, &batch)?;
        Ok((batch, retained))
    }) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Sending it again would not help, and it must not block what comes after it.
            tracing::error!(%error, position = ?frame.position, "a command from the core is damaged and is passed over");
            return Ok(());
        }
    };
    let (batch, retained) = batch;
    let origin = Origin {
        stream: frame.position.stream,
        partition: frame.position.partition,
        next: frame.position.next,
    };
    store.receive(stream, batch, origin, retained).await?;
    Ok(())
}
