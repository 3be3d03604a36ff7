//! A fleet of edges that only connect: each with an identity, a socket and the pauses of an edge, all in one process. One more, the *witness*, sends a
//! small batch ten times a second, and says how long each took until the core had it. What happens is told as lines of JSON, four a second;
//! commands come by the standard input: `dial` (everybody, at once), `fresh` (the witness begins to count anew). Ends with the input.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use record::{BatchBuilder, NewRecord};
use serde_json::json;
use sync_quic::{
    After, BatchFlags, BatchFrame, ConnectError, Connection, CoreAddress, Dialer, EnrolError,
    Event, Events, Hello, Identity, Pauses, Timing, Token, Window, system_now,
};
use tokio::sync::{mpsc, watch};

#[derive(Debug, Parser)]
struct Arguments {
    /// The core, as an edge has it
    #[arg(long, value_name = "HOST:PORT")]
    core: String,
    #[arg(long)]
    token: String,
    #[arg(long, default_value_t = 300)]
    edges: usize,
}

/// Enrolments at a time.
const ENROLLING: usize = 32;
const TICK: Duration = Duration::from_millis(100);
/// Of what the witness waits for, in microseconds: longer is counted as this.
const LONGEST_US: u64 = 600_000_000;
const SAY: Duration = Duration::from_millis(250);
/// How long all edges of a fleet have to say something once: the edge's `keep-alive` by default.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

#[derive(Default)]
struct Fleet {
    connected: AtomicU64,
    attempts: AtomicU64,
    /// How attempts ended that failed.
    busy: AtomicU64,
    refused: AtomicU64,
    unreachable: AtomicU64,
    other: AtomicU64,
    resumed: AtomicU64,
    lost: AtomicU64,
    last: Mutex<String>,
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct Member {
    fleet: Arc<Fleet>,
    dialer: Dialer,
    hello: Hello,
}

impl Member {
    fn new(
        fleet: &Arc<Fleet>,
        cores: &[CoreAddress],
        identity: &Identity,
        number: usize,
    ) -> Result<Member> {
        let timing = Timing::edge(KEEP_ALIVE);
        Ok(Member {
            fleet: fleet.clone(),
            dialer: Dialer::new(cores.to_vec(), identity, system_now(), timing)?,
            hello: Hello {
                version: sync::VERSION,
                edge: identity.edge.clone(),
                producer_id: producer(number),
                nonce: rand::random(),
                software: "bench-fleet".to_owned(),
                ..Hello::default()
            },
        })
    }

    /// Until there is a connection, with the pauses of an edge.
    async fn connect(&self, pauses: &mut Pauses) -> (Connection, Events) {
        loop {
            one(&self.fleet.attempts);
            let error = match self
                .dialer
                .connect(self.hello.clone(), Window::default())
                .await
            {
                Ok((connection, events)) => {
                    pauses.hear(connection.welcome().retry);
                    return (connection, events);
                }
                Err(error) => error,
            };
            *self.fleet.last.lock() = error.to_string();
            let (counter, after) = match error {
                ConnectError::Busy { .. } => (&self.fleet.busy, After::Busy),
                ConnectError::Refused(refused) => {
                    pauses.hear(refused.retry);
                    (&self.fleet.refused, After::Busy)
                }
                ConnectError::Unreachable { .. } => (&self.fleet.unreachable, After::Silence),
                _ => (&self.fleet.other, After::Refusal),
            };
            one(counter);
            tokio::time::sleep(pauses.next(after)).await;
        }
    }

    /// Connects and does nothing, for ever.
    async fn stay(self, mut dial: watch::Receiver<bool>) {
        if dial.wait_for(|dial| *dial).await.is_err() {
            return;
        }
        let mut pauses = Pauses::default();
        loop {
            let (connection, mut events) = self.connect(&mut pauses).await;
            if connection.resumed() {
                one(&self.fleet.resumed);
            }
            one(&self.fleet.connected);
            loop {
                match events.next().await {
                    Event::Pace(pace) => pauses.hear(pace.retry),
                    Event::Closed(_) => break,
                    _ => {}
                }
            }
            drop(connection);
            self.fleet.connected.fetch_sub(1, Ordering::Relaxed);
            one(&self.fleet.lost);
            tokio::time::sleep(pauses.next(After::Connection)).await;
        }
    }

    /// Sends batches one after the other, each at its time or as soon as the one before is there.
    async fn witness(self, latencies: Arc<Mutex<Histogram<u64>>>) -> Result<()> {
        let mut sequence = 0;
        loop {
            // It comes back at once, so that it sees what the others do to it.
            let (connection, mut events) = self.connect(&mut Pauses::default()).await;
            let mut frame = 0;
            let mut due = Instant::now();
            'connected: loop {
                tokio::time::sleep_until(due.into()).await;
                frame += 1;
                let sent = connection.send_batch(batch(frame, self.hello.producer_id, sequence)?);
                if sent.await.is_err() {
                    break;
                }
                loop {
                    match events.next().await {
                        Event::Ack { frame: acked, .. } if acked == frame => break,
                        Event::Closed(_) => break 'connected,
                        Event::Refused(refused) => {
                            anyhow::bail!("the witness is refused: {refused:?}")
                        }
                        _ => {}
                    }
                }
                let took = due.elapsed().as_micros();
                latencies.lock().saturating_record(u64::try_from(took)?);
                sequence += 1;
                // What was late makes what comes after it late too, and is counted there.
                due += TICK;
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Of each edge another one, and room for its lanes.
fn producer(number: usize) -> i64 {
    (1 << 62) + ((number as i64 + 1) << 8)
}

fn batch(frame: u64, producer: i64, sequence: i32) -> Result<BatchFrame> {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
    builder.push(&NewRecord {
        timestamp: 1_700_000_000_000,
        key: Some("fleet/witness".into()),
        value: Some(vec![b'x'; 100].into()),
        headers: Vec::new(),
    })?;
    Ok(BatchFrame {
        lane: 0,
        frame,
        stream: "fleet".to_owned(),
        flags: BatchFlags::empty(),
        link: None,
        batch: builder.build()?.bytes().clone(),
    })
}

async fn enrol(cores: &[CoreAddress], token: &Token, number: usize) -> Result<Identity> {
    let name = format!("fleet-{number}");
    loop {
        let enrolled =
            sync_quic::enrol(cores, token, &name, system_now(), Timing::edge(KEEP_ALIVE));
        match enrolled.await {
            Err(EnrolError::Unreachable { .. }) => tokio::time::sleep(Duration::from_secs(1)).await,
            enrolled => return Ok(enrolled?),
        }
    }
}

fn say(value: &serde_json::Value) {
    println!("{value}");
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cores = CoreAddress::parse_list(&arguments.core)?;
    let token: Token = arguments.token.parse().context("the token")?;
    let fleet = Arc::new(Fleet::default());
    let enrolled = futures_util::stream::iter(0..=arguments.edges)
        .map(|number| enrol(&cores, &token, number))
        .buffered(ENROLLING);
    let mut enrolled = std::pin::pin!(enrolled);
    let latencies = Arc::new(Mutex::new(Histogram::new_with_bounds(1, LONGEST_US, 3)?));
    let (dial, dialling) = watch::channel(false);
    let mut number = 0;
    while let Some(identity) = enrolled.next().await {
        let member = Member::new(&fleet, &cores, &identity?, number)?;
        if number == arguments.edges {
            let witness = member.witness(latencies.clone());
            tokio::spawn(async move {
                if let Err(error) = witness.await {
                    eprintln!("{error:#}");
                    std::process::exit(1);
                }
            });
        } else {
            tokio::spawn(member.stay(dialling.clone()));
        }
        number += 1;
    }
    say(&json!({"enrolled": arguments.edges}));
    let (command, mut commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if command.send(line).is_err() {
                break;
            }
        }
    });
    let mut due = tokio::time::interval(SAY);
    loop {
        tokio::select! {
            command = commands.recv() => match command.as_deref() {
                None => return Ok(()),
                Some("dial") => drop(dial.send_replace(true)),
                Some("fresh") => latencies.lock().reset(),
                Some(other) => anyhow::bail!("{other}: what is that?"),
            },
            _ = due.tick() => {
                let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                let latencies = latencies.lock();
                let ms = |us: u64| us as f64 / 1000.0;
                say(&json!({
                    "connected": count(&fleet.connected),
                    "attempts": count(&fleet.attempts),
                    "busy": count(&fleet.busy),
                    "refused": count(&fleet.refused),
                    "unreachable": count(&fleet.unreachable),
                    "other": count(&fleet.other),
                    "resumed": count(&fleet.resumed),
                    "lost": count(&fleet.lost),
                    "last": *fleet.last.lock(),
                    "witness": {
                        "count": latencies.len(),
                        "p50_ms": ms(latencies.value_at_quantile(0.5)),
                        "p99_ms": ms(latencies.value_at_quantile(0.99)),
                        "max_ms": ms(latencies.max()),
                    },
                }));
            }
        }
    }
}
