//! What an edge and its core say to each other.

use bytes::Bytes;
use sync_quic::{
    CloseCode, DownFrame, DownPosition, Event, LaneFrame, Lost, RefuseCode, SendError, Window,
};

use crate::core::*;

#[tokio::test]
async fn an_edge_enrols_connects_and_sends() {
    for scheme in ["quic://", "tls://"] {
        talk(scheme).await;
    }
}

async fn talk(scheme: &str) {
    let core = core();
    let (edge, mut events, connection, mut batches, mut acks) =
        connected_over(scheme, &core, Window::default()).await;
    assert_eq!(edge.core(), format!("{scheme}{}", core.address));
    assert_eq!(edge.welcome().time_ms, 42);
    for frame in 1..=100 {
        edge.send_batch(batch(frame, 10_000)).await.unwrap();
    }
    for frame in 1..=100 {
        let received = batches.next().await.unwrap();
        assert_eq!(received.frame, LaneFrame::Batch(batch(frame, 10_000)));
        connection.settle(0, frame);
    }
    let mut acked = 0;
    while acked < 100 {
        let Event::Ack { lane: 0, frame } = events.next().await else {
            panic!("not an acknowledgement")
        };
        assert!(frame > acked);
        acked = frame;
    }

    let down = DownFrame {
        position: DownPosition {
            stream: 1,
            partition: 0,
            next: 9,
        },
        batch: Bytes::from_static(b"do"),
    };
    connection.send_down(down.clone()).await.unwrap();
    assert_eq!(events.next().await, Event::Down(down.clone()));
    edge.send_down_ack(down.position).await.unwrap();
    assert_eq!(acks.next().await, Some(down.position));

    connection.close(CloseCode::TakenOver, "newer");
    let lost = Lost::ByCore {
        code: CloseCode::TakenOver,
        reason: "newer".to_owned(),
    };
    assert_eq!(events.next().await, Event::Closed(lost.clone()));
    assert_eq!(
        events.next().await,
        Event::Closed(lost.clone()),
        "the last event stays"
    );
    assert_eq!(
        edge.send_batch(batch(101, 1)).await,
        Err(SendError::Lost(lost))
    );
}

#[tokio::test]
async fn the_window_holds_the_sender_back_until_the_commit() {
    for scheme in ["quic://", "tls://"] {
        fill_the_window(scheme).await;
    }
}

async fn fill_the_window(scheme: &str) {
    let core = core();
    let (edge, mut events, connection, mut batches, _acks) = connected_over(
        scheme,
        &core,
        Window {
            bytes: 25_000,
            frames: 100,
        },
    )
    .await;
    edge.send_batch(batch(1, 10_000)).await.unwrap();
    edge.send_batch(batch(2, 10_000)).await.unwrap();
    let third = tokio::spawn({
        let edge = edge.clone();
        async move { edge.send_batch(batch(3, 10_000)).await }
    });
    assert_eq!(batches.next().await.unwrap().frame.number(), 1);
    assert_eq!(batches.next().await.unwrap().frame.number(), 2);
    assert!(!third.is_finished(), "the window is full");
    connection.settle(0, 2);
    // Frame 1 is not committed: nothing may be acknowledged. The refusal of frame 1 settles both.
    connection.refuse(0, 1, RefuseCode::Malformed, "bad");
    let Event::Refused(refused) = events.next().await else {
        panic!("a refusal comes before the acknowledgement")
    };
    assert_eq!((refused.frame, refused.code), (1, RefuseCode::Malformed));
    assert_eq!(events.next().await, Event::Ack { lane: 0, frame: 2 });
    third.await.unwrap().unwrap();
    assert_eq!(batches.next().await.unwrap().frame.number(), 3);

    connection.refuse(0, 3, RefuseCode::Unavailable, "disk full");
    let Event::Refused(refused) = events.next().await else {
        panic!("said before the close")
    };
    assert!(refused.code.is_retryable());
    let Event::Closed(Lost::ByCore {
        code: CloseCode::Refused,
        ..
    }) = events.next().await
    else {
        panic!("closed after it")
    };
}

#[tokio::test]
async fn what_the_sender_itself_refuses() {
    let core = core();
    let (edge, _events, _connection, mut batches, _acks) =
        connected(&core, Window::default()).await;
    let large = edge.send_batch(batch(1, (1 << 20) + 1)).await;
    assert_eq!(
        large,
        Err(SendError::TooLarge {
            size: (1 << 20) + 1,
            limit: 1 << 20
        })
    );
    edge.send_batch(batch(1, 10)).await.unwrap();
    assert!(matches!(
        edge.send_batch(batch(1, 10)).await,
        Err(SendError::Lanes(_))
    ));
    edge.send_batch(batch(2, 10)).await.unwrap();
    assert_eq!(batches.next().await.unwrap().frame.number(), 1);
    assert_eq!(batches.next().await.unwrap().frame.number(), 2);
}
