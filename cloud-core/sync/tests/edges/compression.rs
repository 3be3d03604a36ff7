//! Link compression: batches arrive as they were, dictionaries are trained and shipped, and what is damaged is sent again.

use bytes::Bytes;
use record::Batch;
use sync::LinkCompressor;
use sync_quic::{BatchFrame, CloseCode, Event, Hello, LaneInfo, LinkCompression, Lost, RefuseCode};

use crate::core::*;

fn compressing(dictionaries: Vec<u32>) -> Hello {
    Hello {
        lanes: vec![LaneInfo {
            link_compression: true,
            ..lane(0, "readings")
        }],
        dictionaries,
        ..hello(PRODUCER, 0, 0)
    }
}

fn readings(first: i32) -> Batch {
    let records: Vec<_> = (first..first + 10)
        .map(|n| {
            let value = format!(
                r#"{{"machine":"press-{:02}","temperature":{}.{},"state":"running","ts":{}}}"#,
                n % 12,
                20 + n * 7 % 60,
                n * 31 % 10,
                1_795_000_000_000_i64 + i64::from(n) * 250
            );
            record(&format!("plant/press-{:02}", n % 12), value.as_bytes())
        })
        .collect();
    batch(PRODUCER, first, &records)
}

fn compressed(compressor: &mut LinkCompressor, number: u64, batch: &Batch) -> BatchFrame {
    match compressor.compress("plant", batch.bytes()) {
        Some((link, bytes)) => BatchFrame {
            link: Some(link),
            batch: bytes,
            ..frame(number, batch)
        },
        None => frame(number, batch),
    }
}

/// Reads events until the frame is acknowledged; learns what comes on the way.
async fn acknowledged(events: &mut Events, compressor: &mut LinkCompressor, frame: u64) {
    loop {
        match events.next().await {
            Event::Ack { frame: acked, .. } if acked == frame => return,
            Event::Ack { .. } | Event::Pace(_) => {}
            Event::Dictionary(dictionary) => {
                assert_eq!(dictionary.stream, "plant");
                compressor.learn(&dictionary).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dictionary_is_trained_shipped_used_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let address = core.address();
    let mut compressor = LinkCompressor::new();
    let (connection, mut events) = connect_as(&address, &identity, compressing(Vec::new()))
        .await
        .unwrap();
    let (mut number, mut wire, mut raw) = (0, 0, 0);
    // Before there is a dictionary, and until some batches were made with it.
    let mut with_dictionary = 0;
    while with_dictionary < 20 {
        let batch = readings(number as i32 * 10);
        number += 1;
        let frame = compressed(&mut compressor, number, &batch);
        if frame.link.is_some_and(|link| link.dictionary != 0) {
            with_dictionary += 1;
            wire += frame.batch.len();
            raw += batch.len();
        }
        connection.send_batch(frame).await.unwrap();
        acknowledged(&mut events, &mut compressor, number).await;
        assert!(number < 20_000, "no dictionary came");
    }
    assert!(wire * 4 < raw, "{wire} of {raw} bytes");
    let records = core.records("plant", "e1").await;
    assert_eq!(
        records.len() as u64,
        number * 10,
        "restored and appended, each once"
    );

    // After a restart of the core the dictionary is the same, and is not sent to an edge that has it.
    connection.close();
    core.stop().await;
    core = Core::start(dir.path(), &address).await;
    let hello = compressing(compressor.ids());
    let (connection, mut events) = connect_as(&address, &identity, hello).await.unwrap();
    let batch = readings(number as i32 * 10);
    number += 1;
    let frame = compressed(&mut compressor, number, &batch);
    assert_ne!(frame.link.unwrap().dictionary, 0);
    connection.send_batch(frame).await.unwrap();
    let event = events.next().await;
    assert_eq!(
        event,
        Event::Ack {
            lane: 0,
            frame: number
        }
    );
    // And to one that has none it is sent with the first batch.
    connection.close();
    let (connection, mut events) = connect_as(&address, &identity, compressing(Vec::new()))
        .await
        .unwrap();
    let batch = readings(number as i32 * 10);
    connection
        .send_batch(crate::core::frame(number + 1, &batch))
        .await
        .unwrap();
    let mut fresh = LinkCompressor::new();
    while fresh.ids().is_empty() {
        if let Event::Dictionary(dictionary) = events.next().await {
            fresh.learn(&dictionary).unwrap();
        }
    }
    assert_eq!(fresh.ids(), compressor.ids());
    core.stop().await;
}

/// What cannot be restored is refused in a way that makes the edge send it again, in the clear; nothing is lost by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_restored_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let batch = readings(0);
    let (link, bytes) = LinkCompressor::new()
        .compress("plant", batch.bytes())
        .unwrap();
    let mut damaged = bytes.to_vec();
    *damaged.last_mut().unwrap() ^= 0x55;
    let with = |link, batch: Bytes| BatchFrame {
        link: Some(link),
        batch,
        ..frame(1, &readings(0))
    };
    let table = [
        (
            with(
                LinkCompression {
                    dictionary: 99,
                    ..link
                },
                bytes.clone(),
            ),
            RefuseCode::UnknownDictionary,
        ),
        (
            with(
                LinkCompression {
                    raw_length: link.raw_length - 1,
                    ..link
                },
                bytes.clone(),
            ),
            RefuseCode::Corrupt,
        ),
        (with(link, damaged.into()), RefuseCode::Corrupt),
        (
            with(link, Bytes::from_static(b"no zstd frame")),
            RefuseCode::Corrupt,
        ),
    ];
    for (frame, code) in table {
        let (connection, mut events) =
            connect_as(&core.address(), &identity, compressing(Vec::new()))
                .await
                .unwrap();
        connection.send_batch(frame).await.unwrap();
        let refused = loop {
            match events.next().await {
                Event::Refused(refused) => break refused,
                Event::Pace(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused.code, code);
        assert!(refused.code.is_retryable() && refused.code.is_about_compression());
        let Event::Closed(Lost::ByCore {
            code: CloseCode::Refused,
            ..
        }) = events.next().await
        else {
            panic!("still open")
        };
    }
    let (connection, mut events) = connect_as(&core.address(), &identity, compressing(Vec::new()))
        .await
        .unwrap();
    connection.send_batch(frame(1, &batch)).await.unwrap();
    acknowledged(&mut events, &mut LinkCompressor::new(), 1).await;
    assert_eq!(core.records("plant", "e1").await.len(), 10);
    core.stop().await;
}
