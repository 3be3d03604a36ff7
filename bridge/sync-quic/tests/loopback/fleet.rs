//! Many edges that reach for one core at the same moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sync_quic::{
    Accepted, After, ConnectError, Event, Handshakes, LaneFrame, Pauses, Timing, Window,
};

use crate::core::*;

const EDGES: usize = 300;
const HANDSHAKES: Handshakes = Handshakes {
    at_once: 16,
    per_second: 200,
    burst: 10,
    waiting: 50,
    patience: Duration::from_secs(2),
};
/// Of this machine, on which nothing is to be found out about links.
const PATIENT: Timing = Timing {
    keep_alive: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(60),
    handshake: Duration::from_secs(10),
};

/// Lets in whoever may come, and keeps it; acknowledges every batch.
async fn serve(core: Arc<Core>) {
    while let Some(pending) = core.listener.accept().await {
        tokio::spawn(async move {
            let Ok(Accepted::Edge(handshake)) = pending.establish().await else {
                return;
            };
            let Ok(mut edge) = handshake.welcome(welcome()).await else {
                return;
            };
            while let Some(received) = edge.lanes.next().await {
                if let LaneFrame::Batch(batch) = received.frame {
                    edge.connection.settle(batch.lane, batch.frame);
                }
            }
            edge.connection.closed().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_comes_at_once_is_let_in_little_by_little_and_others_are_served_meanwhile() {
    let core = Arc::new(core_with("127.0.0.1:0".parse().unwrap(), HANDSHAKES));
    let identity = core.enrol("e1").await.unwrap();
    let address = format!("quic://{}", core.address);
    let serving = tokio::spawn(serve(core.clone()));
    let first = connect(&address, &identity, Window::default(), PATIENT).await;
    let (first, mut events) = first.unwrap();
    let before = core.listener.at_the_door();
    assert_eq!(before.refused, 0);

    let began = Instant::now();
    let dialling = (0..EDGES).map(|_| {
        let dialer = dialer(&address, &identity, PATIENT);
        tokio::spawn(async move {
            let mut pauses = Pauses::default();
            let mut busy = 0;
            loop {
                let after = match dialer.connect(hello("e1"), Window::default()).await {
                    Ok(connected) => return (connected, busy),
                    Err(ConnectError::Busy { .. }) => {
                        busy += 1;
                        After::Busy
                    }
                    Err(ConnectError::Unreachable { .. }) => After::Silence,
                    Err(error) => panic!("{error}"),
                };
                tokio::time::sleep(pauses.next(after)).await;
            }
        })
    });
    let dialling: Vec<_> = dialling.collect();
    let mut frames = 0;
    while !dialling.iter().all(|dialling| dialling.is_finished()) {
        frames += 1;
        first.send_batch(batch(frames, 100)).await.unwrap();
        let Event::Ack { frame, .. } = events.next().await else {
            panic!("not an acknowledgement")
        };
        assert_eq!(frame, frames);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut connected = Vec::new();
    let mut busy = 0;
    for dialling in dialling {
        let (connection, times) = dialling.await.unwrap();
        connected.push(connection);
        busy += times;
    }
    let seen = core.listener.at_the_door();
    println!("{:?}; {seen:?}; {busy} times busy", began.elapsed());
    assert!(seen.most <= HANDSHAKES.at_once, "{seen:?}");
    assert!(seen.begun - before.begun >= EDGES as u64, "{seen:?}");
    // Most of them came before there was room for them to wait, and were told so, instead of trying TLS at once.
    assert!(seen.refused > 0 && busy > 0, "{seen:?}, {busy}");
    let rest = EDGES as u32 - HANDSHAKES.burst;
    assert!(began.elapsed() >= Duration::from_secs(1) * rest / HANDSHAKES.per_second);
    assert!(frames > 1);
    serving.abort();
}
