//! The downlink.

use std::time::Duration;

use frontend::retained;
use kernel::{Entry, PartitionId, SequenceRule};
use record::{Batch, BatchBuilder, Header, Namespace, NewRecord};
use sync_quic::{Connection, DownPosition, Event};

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

/// As MQTT writes a retained message in the core: the record and what new subscribers get, in one entry.
async fn configure(core: &Core, partition: PartitionId, key: &str, value: &str) {
    let record = NewRecord {
        headers: vec![Header::new("_tl.mqtt", vec![1, 0x05])],
        ..record(key, value.as_bytes())
    };
    let command = retained::command(&Namespace::default(), key, &record).unwrap();
    let batch = BatchBuilder::new().with(&record);
    let entry = Entry::new()
        .append(partition, batch, SequenceRule::None)
        .with(command);
    core.ctx.kernel.write(entry).await.unwrap();
}

/// Key and value of the records of the next frame, and its position.
async fn next_down(events: &mut Events) -> (Vec<String>, DownPosition) {
    let Event::Down(down) = events.next().await else {
        panic!("not a command")
    };
    let batch = Batch::parse(down.batch).unwrap();
    let texts = batch.records().unwrap().map(|record| {
        let record = record.unwrap();
        assert!(retained::is_retained(&record));
        let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        format!(
            "{}={}",
            text(record.key.unwrap()),
            text(record.value.unwrap())
        )
    });
    (texts.collect(), down.position)
}

async fn nothing_comes(events: &mut Events) {
    let next = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
    assert!(next.is_err(), "{next:?}");
}

async fn confirm(core: &Core, connection: &Connection, position: DownPosition) {
    connection.send_down_ack(position).await.unwrap();
    let cursor = kernel::CursorName::from("edge/e1");
    let settled = || {
        let at = core.ctx.kernel.cursor(&cursor);
        at.iter()
            .any(|at| at.offset >= position.next && at.metadata.is_empty())
    };
    while !settled() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_retained_for_an_edge_comes_after_its_enrolment_and_again_when_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let kernel = &core.ctx.kernel;
    let stream = kernel.ensure_stream(&address("cmd")).await.unwrap();
    let partition = stream.id.partition(0);
    configure(&core, partition, "cmd/e1/rate", "old").await;
    configure(&core, partition, "cmd/e1/rate", "5").await;
    configure(&core, partition, "cmd/e1/unit", "C").await;
    configure(&core, partition, "cmd/e1/gone", "x").await;
    configure(&core, partition, "cmd/e1/gone", "").await;
    configure(&core, partition, "cmd/e10/rate", "another's").await;
    command(&core, partition, "cmd/e1/pump", "before the enrolment").await;

    let identity = core.enrol("e1").await;
    // Until the edge says that it has it, over each connection; once, however much comes later.
    for _ in 0..2 {
        let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
        let (texts, _) = next_down(&mut events).await;
        assert_eq!(texts, ["cmd/e1/rate=5", "cmd/e1/unit=C"]);
        nothing_comes(&mut events).await;
        connection.close();
    }
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    let (_, position) = next_down(&mut events).await;
    configure(&core, partition, "cmd/e1/rate", "6").await;
    let (texts, later) = next_down(&mut events).await;
    assert_eq!(texts, ["cmd/e1/rate=6"]);
    assert!(later.next > position.next);
    confirm(&core, &connection, position).await;
    confirm(&core, &connection, later).await;
    connection.close();
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    nothing_comes(&mut events).await;

    // A new board of that name: what it is to be like now, at the place where the commands go on.
    let identity = core.enrol("e1").await;
    drop(connection);
    let (connection, mut events) = core.connect(&identity, PRODUCER + 256).await.unwrap();
    let (texts, position) = next_down(&mut events).await;
    assert_eq!(texts, ["cmd/e1/rate=6", "cmd/e1/unit=C"]);
    assert_eq!(position.next, later.next);
    confirm(&core, &connection, position).await;
    nothing_comes(&mut events).await;
    core.stop().await;
}
