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

/// Each asks anew every second as long as it hears nothing, which is for links that come back. Of a core that lets it wait it hears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_the_door_does_not_come_to_it_again() {
    const WAITING: usize = 20;
    let core = Arc::new(core_with(
        "127.0.0.1:0".parse().unwrap(),
        Handshakes {
            at_once: 1,
            per_second: 10_000,
            burst: 1000,
            waiting: 500,
            patience: Duration::from_secs(60),
        },
    ));
    let identity = core.enrol("e1").await.unwrap();
    let before = core.listener.at_the_door().begun;
    let address = format!("quic://{}", core.address);
    let (opened, open) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn({
        let core = core.clone();
        async move {
            while let Some(pending) = core.listener.accept().await {
                let mut open = open.clone();
                tokio::spawn(async move {
                    // It has its place meanwhile.
                    open.wait_for(|open| *open).await.unwrap();
                    let Ok(Accepted::Edge(handshake)) = pending.establish().await else {
                        return;
                    };
                    if let Ok(edge) = handshake.welcome(welcome()).await {
                        edge.connection.closed().await;
                    }
                });
            }
        }
    });
    let dialling = (0..WAITING).map(|_| {
        let dialer = dialer(&address, &identity, PATIENT);
        tokio::spawn(async move { dialer.connect(hello("e1"), Window::default()).await })
    });
    let dialling: Vec<_> = dialling.collect();
    // Each would have begun another attempt by then.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    opened.send_replace(true);
    let mut connected = Vec::new();
    for dialling in dialling {
        connected.push(dialling.await.unwrap().unwrap());
    }
    // Those that were given up are begun as well.
    let begun = loop {
        let seen = core.listener.at_the_door();
        if seen.waiting + seen.in_progress == 0 {
            break seen.begun - before;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // A machine that stands still for seconds makes a few ask again. (The first did, whom nobody had told to wait.)
    assert!(
        (WAITING as u64..2 * WAITING as u64 - 2).contains(&begun),
        "{begun}"
    );
    serving.abort();
}

#[tokio::test]
async fn over_tls_too_a_client_is_told_that_there_is_no_time_for_it() {
    let core = core_with(
        "127.0.0.1:0".parse().unwrap(),
        Handshakes {
            at_once: 1,
            waiting: 1,
            patience: Duration::from_secs(60),
            ..Handshakes::default()
        },
    );
    let identity = core.enrol("e1").await.unwrap();
    let address = format!("tls://{}", core.address);
    let connecting = || {
        let dialer = dialer(&address, &identity, PATIENT);
        tokio::spawn(async move { dialer.connect(hello("e1"), Window::default()).await })
    };
    let _first = connecting();
    let begun = core.listener.accept().await.unwrap();
    let _second = connecting();
    let rest = async {
        // Nobody else may begin.
        core.listener.accept().await;
    };
    let third = async {
        while core.listener.at_the_door().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connecting().await.unwrap()
    };
    let third = tokio::select! {
        () = rest => panic!("one more has begun"),
        third = third => third,
    };
    assert!(
        matches!(third, Err(ConnectError::Busy { .. })),
        "{:?}",
        third.err()
    );
    assert_eq!(core.listener.at_the_door().refused, 1);
    drop(begun);
}
