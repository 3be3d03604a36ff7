//! Questions to an edge, and its answers.

use cloud_sync::QueryError;
use sync_quic::{AnswerFrame, AnswerStatus, Connection, Event, QueryFrame};

use crate::core::*;

async fn asked(events: &mut Events) -> QueryFrame {
    loop {
        match events.next().await {
            Event::Query(query) => return query,
            Event::Pace(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The welcome is on its way before the core can ask.
async fn can_be_asked(core: &Core) {
    while core.sync.edge("e1").unwrap().connected_since_ms.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn answer(connection: &Connection, id: u32, status: AnswerStatus, json: &'static str) {
    let answer = AnswerFrame {
        id,
        status,
        json: json.into(),
    };
    connection.answer(answer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_is_asked_and_answers_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let not_connected = core.sync.edge_status("e1").await;
    assert!(matches!(not_connected, Err(QueryError::NotConnected)));

    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    can_be_asked(&core).await;
    let sync = core.sync.clone();
    let status = tokio::spawn(async move { sync.edge_status("e1").await });
    let first = asked(&mut events).await;
    assert_eq!(first.what, "status");
    let sync = core.sync.clone();
    let peek = tokio::spawn(async move { sync.edge_query("e1", "peek", "{}".into()).await });
    let second = asked(&mut events).await;
    assert_eq!(
        (second.what.as_str(), &second.arguments[..]),
        ("peek", &b"{}"[..])
    );
    answer(
        &connection,
        second.id,
        AnswerStatus::BadArguments,
        "\"no such lane\"",
    )
    .await;
    let Err(QueryError::Refused { reason, .. }) = peek.await.unwrap() else {
        panic!("not refused")
    };
    assert_eq!(reason, "no such lane");
    answer(
        &connection,
        first.id,
        AnswerStatus::Answered,
        "{\"lanes\":[]}",
    )
    .await;
    assert_eq!(status.await.unwrap().unwrap(), "{\"lanes\":[]}");

    // The core's own order of closing: a question that is open is over with the connection, and what was said last stays.
    let sync = core.sync.clone();
    let open = tokio::spawn(async move { sync.edge_status("e1").await });
    asked(&mut events).await;
    connection.close();
    assert!(matches!(open.await.unwrap(), Err(QueryError::NotConnected)));
    let (_, said) = core.sync.edge_last_status("e1").unwrap();
    assert_eq!(said, "{\"lanes\":[]}");
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_bounded_and_an_answer_to_none_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let (connection, mut events) = core.connect(&identity, PRODUCER).await.unwrap();
    can_be_asked(&core).await;
    let mut open = Vec::new();
    for _ in 0..sync::limits::MAX_QUERIES {
        let sync = core.sync.clone();
        open.push(tokio::spawn(async move { sync.edge_status("e1").await }));
        asked(&mut events).await;
    }
    assert!(matches!(
        core.sync.edge_status("e1").await,
        Err(QueryError::Busy)
    ));
    answer(&connection, 4711, AnswerStatus::Answered, "{}").await;
    let Event::Closed(_) = events.next().await else {
        panic!("an answer to no question was taken")
    };
    for open in open {
        assert!(matches!(open.await.unwrap(), Err(QueryError::NotConnected)));
    }
    core.stop().await;
}
