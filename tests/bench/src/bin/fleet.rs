//! A fleet of edges that only connect: each with an identity, a socket and the pauses of an edge, all in one process. `enrol` gets the identities
//! once, and keeps them in a file; `dial` are the edges, and `witness` is one more in a process of its own, which sends a small batch ten
//! times a second and says how long each took until the core had it. What happens is told as lines of JSON, four a second; commands come by
//! the standard input: `dial` (everybody, at once), `fresh` (the witness begins to count anew). Ends with the input.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use record::{BatchBuilder, NewRecord};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sync_quic::{
    After, AnswerFrame, AnswerStatus, BatchFlags, BatchFrame, ConnectError, Connection,
    CoreAddress, Dialer, EnrolError, Event, Events, Hello, Identity, Pauses, Timing, Token, Window,
    system_now,
};
use tokio::sync::{mpsc, watch};

#[derive(Debug, Parser)]
struct Arguments {
    /// The core, as an edge has it
    #[arg(long, value_name = "HOST:PORT")]
    core: String,
    /// A line of JSON for each identity; the first is the witness's
    #[arg(long, value_name = "FILE")]
    identities: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Writes the identities
    Enrol {
        #[arg(long)]
        token: String,
        #[arg(long)]
        edges: usize,
    },
    Dial {
        #[arg(long)]
        edges: usize,
        /// As edges do that have something to send
        #[arg(long)]
        knock: bool,
        /// Seconds over which they dial for the first time
        #[arg(long, default_value_t = 0.0)]
        over: f64,
    },
    Witness,
}

/// An [`Identity`] as it is in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    edge: String,
    certificate: String,
    key: String,
    ca: String,
}

/// Enrolments at a time.
const ENROLLING: usize = 32;
const TICK: Duration = Duration::from_millis(100);
/// Of what the witness waits for, in microseconds: longer is counted as this.
const LONGEST_US: u64 = 600_000_000;
const SAY: Duration = Duration::from_millis(250);
/// How long all edges of a fleet have to say something once: the edge's `keep-alive` by default.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// How long an attempt may take: an edge's 10 s, and time for one that has a share of a processor only.
const PATIENCE: Duration = Duration::from_secs(60);

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
    knocks: bool,
}

impl Member {
    fn new(
        fleet: &Arc<Fleet>,
        cores: &[CoreAddress],
        identity: &Identity,
        number: usize,
        knocks: bool,
    ) -> Result<Member> {
        let timing = Timing {
            handshake: PATIENCE,
            ..Timing::edge(KEEP_ALIVE)
        };
        let dialer = Dialer::new(cores.to_vec(), identity, system_now(), timing)?;
        Ok(Member {
            fleet: fleet.clone(),
            dialer: dialer.hurrying_while(move || knocks),
            knocks,
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
            self.pause(pauses, after).await;
        }
    }

    /// An edge also looks whether its network changes meanwhile; there is none here, and so many would look for nothing.
    async fn pause(&self, pauses: &mut Pauses, after: After) {
        if self.knocks {
            pauses.wait(after, &self.dialer).await;
        } else {
            tokio::time::sleep(pauses.next(after)).await;
        }
    }

    /// Connects and does nothing, for ever.
    async fn stay(self, mut dial: watch::Receiver<bool>, after: Duration) {
        if dial.wait_for(|dial| *dial).await.is_err() {
            return;
        }
        tokio::time::sleep(after).await;
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
                    // What it has set aside: nothing.
                    Event::Query(query) => {
                        let answer = AnswerFrame {
                            id: query.id,
                            status: AnswerStatus::Answered,
                            json: Bytes::from_static(b"{}"),
                        };
                        // An error: the connection is over, which is heard next.
                        let _ = connection.answer(answer).await;
                    }
                    Event::Closed(_) => break,
                    _ => {}
                }
            }
            drop(connection);
            self.fleet.connected.fetch_sub(1, Ordering::Relaxed);
            one(&self.fleet.lost);
            self.pause(&mut pauses, After::Connection).await;
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

async fn enrol_all(arguments: &Arguments, token: &str, edges: usize) -> Result<()> {
    let cores = CoreAddress::parse_list(&arguments.core)?;
    let token: Token = token.parse().context("the token")?;
    let enrolled = futures_util::stream::iter(0..=edges)
        .map(|number| enrol(&cores, &token, number))
        .buffered(ENROLLING);
    let mut enrolled = std::pin::pin!(enrolled);
    let mut file = BufWriter::new(File::create(&arguments.identities)?);
    while let Some(identity) = enrolled.next().await {
        let Identity {
            edge,
            certificate_pem: certificate,
            key_pem: key,
            ca_pem: ca,
        } = identity?;
        let kept = Kept {
            edge,
            certificate,
            key,
            ca,
        };
        writeln!(file, "{}", serde_json::to_string(&kept)?)?;
    }
    Ok(file.flush()?)
}

/// The first `count` of the file.
fn identities(file: &Path, count: usize) -> Result<Vec<Identity>> {
    let file = File::open(file).with_context(|| file.display().to_string())?;
    let lines = BufReader::new(file).lines().take(count);
    let identities: Vec<Identity> = lines
        .map(|line| {
            let kept: Kept = serde_json::from_str(&line?)?;
            Ok(Identity {
                edge: kept.edge,
                certificate_pem: kept.certificate,
                key_pem: kept.key,
                ca_pem: kept.ca,
            })
        })
        .collect::<Result<_>>()?;
    anyhow::ensure!(
        identities.len() == count,
        "only {} identities are there",
        identities.len()
    );
    Ok(identities)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cores = CoreAddress::parse_list(&arguments.core)?;
    let fleet = Arc::new(Fleet::default());
    let latencies = Arc::new(Mutex::new(Histogram::new_with_bounds(1, LONGEST_US, 3)?));
    let (dial, dialling) = watch::channel(false);
    match arguments.what {
        What::Enrol { ref token, edges } => return enrol_all(&arguments, token, edges).await,
        What::Dial { edges, knock, over } => {
            let identities = identities(&arguments.identities, edges + 1)?;
            for (number, identity) in identities.iter().enumerate().skip(1) {
                let member = Member::new(&fleet, &cores, identity, number, knock)?;
                let after = Duration::from_secs_f64(over * rand::random::<f64>());
                tokio::spawn(member.stay(dialling.clone(), after));
            }
        }
        What::Witness => {
            let identity = identities(&arguments.identities, 1)?.remove(0);
            let witness = Member::new(&fleet, &cores, &identity, 0, true)?;
            let witness = witness.witness(latencies.clone());
            tokio::spawn(async move {
                if let Err(error) = witness.await {
                    eprintln!("{error:#}");
                    std::process::exit(1);
                }
            });
        }
    }
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
