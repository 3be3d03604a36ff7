//! How much of a link is used. Not run by itself: it takes a network namespace whose loopback is that link, such as
//! `unshare -n sh -c 'ip link set lo up; tc qdisc add dev lo root netem delay 100ms loss 1% rate 20mbit limit 2000; loopback --ignored rate'`.

use std::time::{Duration, Instant};

use sync_quic::{Event, LaneFrame, Window};

use crate::core::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rate_of_a_drain() {
    let scheme = std::env::var("SCHEME").unwrap_or_else(|_| "quic://".to_owned());
    let seconds = std::env::var("SECONDS").map_or(20.0, |text| text.parse::<f64>().unwrap());
    let core = core();
    let (edge, mut events, connection, mut lanes, _acks) =
        connected_over(&scheme, &core, Window::default()).await;
    edge.prioritise(0, 1);
    edge.prioritise(1, 9);
    let serving = tokio::spawn(async move {
        while let Some(received) = lanes.next().await {
            let LaneFrame::Batch(frame) = &received.frame else {
                continue;
            };
            connection.settle(frame.lane, frame.frame);
        }
    });
    let began = Instant::now();
    let bulk = tokio::spawn({
        let edge = edge.clone();
        async move {
            for frame in 1.. {
                if edge.send_batch(batch(frame, 60_000)).await.is_err() {
                    return;
                }
            }
        }
    });
    let alarms = tokio::spawn({
        let edge = edge.clone();
        async move {
            for frame in 1.. {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut alarm = batch(frame, 100);
                alarm.lane = 1;
                if edge.send_batch(alarm).await.is_err() {
                    return;
                }
            }
        }
    });
    let (mut acked, mut half, mut alarm_times) = (0, (0.0, 0), Vec::new());
    while began.elapsed().as_secs_f64() < seconds {
        match events.next().await {
            Event::Ack { lane: 0, frame } => acked = frame,
            // The n-th alarm went out about n seconds after the beginning.
            Event::Ack { frame, .. } => {
                alarm_times.push(began.elapsed().as_secs_f64() - frame as f64);
            }
            other => panic!("{other:?}"),
        }
        if half.1 == 0 && began.elapsed().as_secs_f64() > seconds / 2.0 {
            half = (began.elapsed().as_secs_f64(), acked);
        }
    }
    let rate = |frames: u64, time: f64| frames as f64 * 60_064.0 * 8.0 / time / 1e6;
    println!(
        "{scheme} all {:.2} Mbit/s, second half {:.2} Mbit/s, rtt {:?}, alarms {:.3?}",
        rate(acked, began.elapsed().as_secs_f64()),
        rate(acked - half.1, began.elapsed().as_secs_f64() - half.0),
        edge.rtt(),
        alarm_times,
    );
    bulk.abort();
    alarms.abort();
    serving.abort();
}
