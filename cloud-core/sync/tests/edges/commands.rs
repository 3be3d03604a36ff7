//! The downlink.

use kernel::{PartitionId, SequenceRule};
use record::{Batch, BatchBuilder};
use sync_quic::{Event, Events};

use crate::core::*;

async fn command(core: &Core, partition: PartitionId, key: &str, value: &str) {
    let batch = BatchBuilder::new().with(&record(key, value.as_bytes()));
    core.ctx
        .kernel
        .append(partition, batch, SequenceRule::None)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_their_edge_until_it_has_stored_them() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let stream = core
        .ctx
        .kernel
        .ensure_stream(&address("cmd"))
        .await
        .unwrap();
    let partition = stream.id.partition(0);
    command(&core, partition, "cmd/e1/pump", "before the enrolment").await;
    let identity = core.enrol("e1").await;
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    command(&core, partition, "cmd/e2/pump", "another's").await;
    command(&core, partition, "cmd/e1/pump", "on").await;
    command(&core, partition, "cmd/e10/pump", "another's too").await;
    command(&core, partition, "cmd/e1/pump", "off").await;

    let texts = async |events: &mut Events, count: usize| {
        let mut texts = Vec::new();
        let mut last = None;
        while texts.len() < count {
            let Event::Down(down) = events.next().await else {
                panic!("not a command")
            };
            for record in Batch::parse(down.batch).unwrap().records().unwrap() {
                texts.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
            last = Some(down.position);
        }
        (texts, last.unwrap())
    };
    let (first, position) = texts(&mut events, 1).await;
    assert_eq!(first, ["on"]);
    connection.send_down_ack(position).await.unwrap();
    assert_eq!(texts(&mut events, 1).await.0, ["off"]);
    connection.close();

    // What was not confirmed comes again; what came meanwhile comes too; what the edge itself said does not.
    command(&core, partition, "cmd/e1/pump", "while away").await;
    let own = batch(PRODUCER, 0, &[record("cmd/e1/pump", b"its own")]);
    core.ctx
        .kernel
        .append(partition, own, SequenceRule::Strict)
        .await
        .unwrap();
    command(&core, partition, "cmd/e1/pump", "last").await;
    let cursor = kernel::CursorName::from("edge/e1");
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    let (mut again, position) = texts(&mut events, 3).await;
    if again.first().is_some_and(|text| text == "on") {
        // The confirmation and the close raced: then the first comes again as well, at the same position.
        again.remove(0);
        again.extend(texts(&mut events, 1).await.0);
    }
    assert_eq!(again, ["off", "while away", "last"]);
    connection.send_down_ack(position).await.unwrap();
    while core
        .ctx
        .kernel
        .cursor(&cursor)
        .iter()
        .all(|at| at.offset < position.next)
    {
        tokio::task::yield_now().await;
    }
    core.stop().await;
}
