//! Which start of an edge may send: reconnects, restarts, replaced disks, copies and old backups.

use sync_quic::{
    CloseCode, ConnectError, Connection, Event, Hello, HelloRefusal, Lost, RefuseCode,
};

use crate::core::*;

const OTHER: i64 = PRODUCER + 0x100;

async fn refusal(core: &Core, identity: &sync_quic::Identity, hello: Hello) -> HelloRefusal {
    match connect_as(&core.address(), identity, hello).await.err() {
        Some(ConnectError::Refused(refused)) => {
            assert!(
                refused.retry.spread_ms > 0,
                "copies do not hammer at the door"
            );
            refused.code
        }
        other => panic!("let in, or not told why: {other:?}"),
    }
}

async fn send(connection: &Connection, number: u64, producer_id: i64, epoch: i16, first: i32) {
    let value = format!("{epoch}/{first}");
    let batch = batch_of(
        producer_id,
        epoch,
        first,
        &[record("plant/a", value.as_bytes())],
    );
    connection.send_batch(frame(number, &batch)).await.unwrap();
}

async fn acknowledged(events: &mut Events, frame: u64) {
    loop {
        match events.next().await {
            Event::Ack { frame: acked, .. } if acked == frame => return,
            Event::Ack { .. } | Event::Pace(_) => {}
            other => panic!("frame {frame} is not acknowledged: {other:?}"),
        }
    }
}

async fn closed(events: &mut Events) -> Lost {
    loop {
        if let Event::Closed(lost) = events.next().await {
            return lost;
        }
    }
}

/// Batches of older starts are sent as they are after newer ones, and again after a lost acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_older_starts_are_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let newest = hello(PRODUCER, 3, 33);
    for _ in 0..3 {
        let (connection, mut events) = connect_as(&core.address(), &identity, newest.clone())
            .await
            .unwrap();
        send(&connection, 1, PRODUCER, 1, 0).await;
        send(&connection, 2, PRODUCER, 1, 1).await;
        send(&connection, 3, PRODUCER, 2, 0).await;
        send(&connection, 4, PRODUCER, 3, 0).await;
        acknowledged(&mut events, 4).await;
        connection.close();
        closed(&mut events).await;
    }
    let values: Vec<_> = core
        .records("plant", "e1")
        .await
        .into_iter()
        .map(|(_, v)| v)
        .collect();
    assert_eq!(values, [&b"1/0"[..], b"1/1", b"2/0", b"3/0"]);
    let (connection, mut events) = connect_as(&core.address(), &identity, newest)
        .await
        .unwrap();
    send(&connection, 5, PRODUCER, 4, 0).await;
    let Event::Refused(refused) = events.next().await else {
        panic!("an epoch that the edge has not reached")
    };
    assert_eq!(refused.code, RefuseCode::WrongProducer);
    core.stop().await;
}

/// A data directory is copied and both are started: exactly one is let in, however often the other is started, and the core says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_one_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = Core::start(dir.path(), "127.0.0.1:0").await;
    let address = core.address();
    let identity = core.enrol("e1").await;
    let original = |incarnation, nonce, earlier: &[(i16, u64)]| Hello {
        earlier: earlier.to_vec(),
        ..hello(PRODUCER, incarnation, nonce)
    };
    let (connection, mut first_events) = connect_as(&address, &identity, original(4, 44, &[]))
        .await
        .unwrap();
    send(&connection, 1, PRODUCER, 4, 0).await;
    acknowledged(&mut first_events, 1).await;

    // The copy was made while the original was off; it starts first.
    let (copy, mut copy_events) = connect_as(&address, &identity, original(5, 555, &[(4, 44)]))
        .await
        .unwrap();
    assert!(matches!(
        closed(&mut first_events).await,
        Lost::ByCore {
            code: CloseCode::TakenOver,
            ..
        }
    ));
    // A reconnect of the running original, its restart, and its next ones, of which it knows that it said hello.
    let fenced = HelloRefusal::Fenced;
    assert_eq!(
        refusal(&core, &identity, original(4, 44, &[])).await,
        fenced
    );
    assert_eq!(
        refusal(&core, &identity, original(5, 50, &[(4, 44)])).await,
        fenced
    );
    let later = original(7, 70, &[(4, 44), (5, 50), (6, 60)]);
    assert_eq!(refusal(&core, &identity, later.clone()).await, fenced);
    assert_eq!(refusal(&core, &identity, later.clone()).await, fenced);
    // The one that is in goes on, and comes back after a restart of either end.
    send(&copy, 2, PRODUCER, 5, 0).await;
    acknowledged(&mut copy_events, 2).await;
    let port = address.clone();
    core.stop().await;
    core = Core::start(dir.path(), &port).await;
    assert_eq!(refusal(&core, &identity, later).await, fenced);
    let restarted = original(6, 666, &[(5, 555)]);
    connect_as(&address, &identity, restarted).await.unwrap();

    let edge = core.sync.edge("e1").unwrap();
    assert_eq!(edge.incarnation, Some(6));
    let report: Vec<_> = edge
        .fenced
        .iter()
        .map(|e| (e.incarnation, e.times))
        .collect();
    // Repetitions are written when the edge that is in goes: by then there were two.
    assert_eq!(
        report,
        [(4, 1), (5, 1), (7, 3)],
        "kept over the restart: {:?}",
        edge.fenced
    );
    assert!(
        edge.fenced.iter().all(|event| event.reason.contains("cop")),
        "{:?}",
        edge.fenced
    );
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_replaced_disks_and_new_enrolments() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let address = core.address();
    let connect = |identity, hello| connect_as(&address, identity, hello);
    connect(&identity, hello(PRODUCER, 9, 1)).await.unwrap();
    // A restored backup begins where it was then.
    let backup = hello(PRODUCER, 5, 2);
    assert_eq!(
        refusal(&core, &identity, backup.clone()).await,
        HelloRefusal::Fenced
    );
    // The way out: a new enrolment, and with it a new id.
    let identity = core.enrol("e1").await;
    assert_eq!(
        core.sync.edge("e1").unwrap().fenced,
        [],
        "its reports are over"
    );
    let (connection, mut events) = connect(&identity, hello(OTHER, 0, 3)).await.unwrap();
    send(&connection, 1, OTHER, 0, 0).await;
    acknowledged(&mut events, 1).await;
    // The old id is over for good, whatever its number.
    assert_eq!(
        refusal(&core, &identity, hello(PRODUCER, 30, 4)).await,
        HelloRefusal::Fenced
    );
    // The numbers of an id are used up: the next one names it, and both may be in the outbox.
    const NEXT: i64 = OTHER + 0x100;
    let successor = Hello {
        previous_producer_id: Some(OTHER),
        ..hello(NEXT, 0, 5)
    };
    let (connection, mut events) = connect(&identity, successor).await.unwrap();
    send(&connection, 2, OTHER, 0, 1).await;
    send(&connection, 3, OTHER, 7, 0).await;
    send(&connection, 4, NEXT, 0, 0).await;
    acknowledged(&mut events, 4).await;
    assert_eq!(core.records("plant", "e1").await.len(), 4);
    // Another edge never gets the ids of this one, not even those that it has left.
    let other = core.enrol("e2").await;
    for id in [PRODUCER, OTHER, NEXT] {
        let taken = refusal(&core, &other, hello(id, 99, 1)).await;
        assert_eq!(taken, HelloRefusal::ProducerTaken);
    }
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_that_contradict_themselves_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let two_lanes = vec![lane(1, "a"), lane(1, "b")];
    let table = [
        (hello(PRODUCER + 1, 0, 0), HelloRefusal::Invalid),
        (hello(-256, 0, 0), HelloRefusal::Invalid),
        (hello(PRODUCER, -1, 0), HelloRefusal::Invalid),
        (
            Hello {
                previous_producer_id: Some(PRODUCER),
                ..hello(PRODUCER, 0, 0)
            },
            HelloRefusal::Invalid,
        ),
        (
            Hello {
                lanes: two_lanes,
                ..hello(PRODUCER, 0, 0)
            },
            HelloRefusal::Invalid,
        ),
        (
            Hello {
                version: 1,
                ..hello(PRODUCER, 0, 0)
            },
            HelloRefusal::UnsupportedVersion,
        ),
    ];
    for (hello, code) in table {
        assert_eq!(
            refusal(&core, &identity, hello.clone()).await,
            code,
            "{hello:?}"
        );
    }
    core.connect(&identity, PRODUCER).await.unwrap();
    core.stop().await;
}
