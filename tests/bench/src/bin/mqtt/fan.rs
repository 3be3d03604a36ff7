//! Many publishers and many subscribers: fan-in, fan-out, pairs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Buf;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::{Client, histogram, latency, now_ns, process, put_packet, text};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    /// All publishers to one topic, every subscriber gets everything
    All,
    /// Publisher n to subscriber n
    Pairs,
}

#[derive(Debug, Args)]
pub struct Fan {
    /// The broker
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Process id of the broker
    #[arg(long)]
    pid: u32,
    #[arg(long, default_value_t = 1)]
    publishers: u32,
    #[arg(long, default_value_t = 1)]
    subscribers: u32,
    #[arg(long, value_enum, default_value = "all")]
    shape: Shape,
    #[arg(long, default_value_t = 0)]
    qos: u8,
    /// Bytes of a payload
    #[arg(long, default_value_t = 16)]
    size: usize,
    /// Messages over all publishers, at most
    #[arg(long)]
    messages: u64,
    /// Publishes no longer than this
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    /// Publishers wait while so many messages are on their way to subscribers, of pairs each its share of it: the load that a broker takes without losing any
    #[arg(long, default_value_t = u64::MAX)]
    ahead: u64,
    /// Messages per second over all publishers; 0: as fast as they are taken
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Messages of one publisher that wait for their PUBACK
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// First level of the topics
    #[arg(long, default_value = "fan")]
    root: String,
    /// Gives up when nothing came for so many seconds
    #[arg(long, default_value_t = 10)]
    patience: u64,
}

impl Fan {
    fn topic(&self, n: u32) -> String {
        match self.shape {
            Shape::All => format!("{}/all", self.root),
            Shape::Pairs => format!("{}/{n}", self.root),
        }
    }

    /// How many subscribers get a message.
    fn receivers(&self) -> u64 {
        match self.shape {
            Shape::All => u64::from(self.subscribers),
            Shape::Pairs => 1,
        }
    }

    /// Those whose messages go to the same subscribers share a flow.
    fn flows(&self) -> u32 {
        match self.shape {
            Shape::All => 1,
            Shape::Pairs => self.publishers.max(self.subscribers),
        }
    }

    /// Messages that may be on the way in one flow.
    fn ahead_in_flow(&self) -> u64 {
        (self.ahead / u64::from(self.flows().max(1))).max(1)
    }

    /// Messages that a publisher writes without looking around.
    fn chunk(&self) -> u64 {
        (16 * 1024 / self.size.max(1)).clamp(1, 16) as u64
    }
}

/// How far publishers and subscribers of one flow are.
#[derive(Default)]
struct Flow {
    sent: AtomicU64,
    received: AtomicU64,
    /// Expected, and given up.
    lost: AtomicU64,
    moved: Notify,
}

struct Progress {
    flows: Vec<Flow>,
    latencies: Mutex<Histogram<u64>>,
}

/// Messages that have not come for so long do not come any more.
const LOST_AFTER: Duration = Duration::from_millis(500);

impl Progress {
    /// Of publisher or subscriber `n`.
    fn flow(&self, n: u32) -> &Flow {
        &self.flows[n as usize % self.flows.len()]
    }

    fn sent(&self) -> u64 {
        let all = self.flows.iter();
        all.map(|flow| flow.sent.load(Ordering::Relaxed)).sum()
    }

    fn received(&self) -> u64 {
        let all = self.flows.iter();
        all.map(|flow| flow.received.load(Ordering::Relaxed)).sum()
    }
}

impl Flow {
    fn on_the_way(&self, options: &Fan) -> u64 {
        let expected = options.receivers() * self.sent.load(Ordering::Relaxed);
        let done = self.received.load(Ordering::Relaxed) + self.lost.load(Ordering::Relaxed);
        expected.saturating_sub(done)
    }

    /// Until there may be more on the way.
    async fn room(&self, options: &Fan) {
        loop {
            let moved = self.moved.notified();
            let before = self.received.load(Ordering::Relaxed);
            let open = self.on_the_way(options);
            if open < options.ahead_in_flow() {
                return;
            }
            let late = tokio::time::timeout(LOST_AFTER, moved).await.is_err();
            if late && before == self.received.load(Ordering::Relaxed) {
                self.lost.fetch_add(open, Ordering::Relaxed);
            }
        }
    }
}

pub async fn fan(options: Arc<Fan>) -> Result<Value> {
    let progress = Arc::new(Progress {
        flows: (0..options.flows().max(1))
            .map(|_| Flow::default())
            .collect(),
        latencies: Mutex::new(histogram()?),
    });
    let count = || progress.received();
    let mut receivers = JoinSet::new();
    for n in 0..options.subscribers {
        let mut client = Client::connect(&options.to, &format!("fan-s{n}"), true).await?;
        client.subscribe(&options.topic(n), options.qos).await?;
        receivers.spawn(take(client, n, progress.clone()));
    }
    let mut publishers = Vec::new();
    for n in 0..options.publishers {
        publishers.push(Client::connect(&options.to, &format!("fan-p{n}"), true).await?);
    }
    let cpu = process::processor_time(options.pid)?;
    let started = Instant::now();
    let mut sending = JoinSet::new();
    for (n, client) in (0..).zip(publishers) {
        sending.spawn(send(options.clone(), client, n, progress.clone()));
    }
    let mut clients = Vec::new();
    while let Some(sent) = sending.join_next().await {
        clients.push(sent??);
    }
    let published = started.elapsed();
    let sent = progress.sent();
    let expected = options.receivers() * sent;
    let mut last = (0, Instant::now());
    while count() < expected {
        let now = count();
        if now > last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > Duration::from_secs(options.patience) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Of a loss, the time of waiting for it does not count.
    let took = if count() < expected {
        last.1.duration_since(started).max(published)
    } else {
        started.elapsed()
    };
    let cpu = process::processor_time(options.pid)?.saturating_sub(cpu);
    let count = count();
    receivers.shutdown().await;
    // What came in and what went out: the broker's work.
    let handled = sent + count;
    Ok(json!({
        "sent": sent,
        "sent_per_second": sent as f64 / published.as_secs_f64(),
        "received": count,
        "missing": expected.saturating_sub(count),
        "publish_seconds": published.as_secs_f64(),
        "seconds": took.as_secs_f64(),
        "received_per_second": count as f64 / took.as_secs_f64(),
        "cpu_seconds": cpu.as_secs_f64(),
        "messages_per_cpu_second": handled as f64 / cpu.as_secs_f64().max(0.01),
        "latency": latency(&progress.latencies.lock()),
    }))
}

/// Latencies of one subscriber, microseconds; what is left when its task is ended counts as well.
struct Times(Vec<u64>, Arc<Progress>);

impl Times {
    fn record(&mut self) {
        let mut all = self.1.latencies.lock();
        for time in self.0.drain(..) {
            all.saturating_record(time.max(1));
        }
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        self.record();
    }
}

async fn take(mut client: Client, n: u32, progress: Arc<Progress>) -> Result<()> {
    let mut out = Vec::new();
    let mut times = Times(Vec::new(), progress.clone());
    loop {
        let mut next = Some(client.packet().await?);
        let mut count = 0;
        while let Some((first, mut body)) = next {
            match first >> 4 {
                3 => {
                    let topic = usize::from(body.get_u16());
                    body.advance(topic);
                    let qos = first >> 1 & 3;
                    if qos > 0 {
                        let id = body.get_u16().to_be_bytes();
                        put_packet(&mut out, if qos == 1 { 0x40 } else { 0x50 }, &[&id]);
                    }
                    if body.len() >= 8 {
                        times.0.push(now_ns().saturating_sub(body.get_u64()) / 1000);
                    }
                    count += 1;
                }
                6 => put_packet(&mut out, 0x70, &[&body]),
                other => bail!("a packet of type {other}"),
            }
            next = client.ready()?;
        }
        let flow = progress.flow(n);
        flow.received.fetch_add(count, Ordering::Relaxed);
        flow.moved.notify_waiters();
        if !out.is_empty() {
            client.stream.write_all(&out).await?;
            out.clear();
        }
        if times.0.len() >= 256 {
            times.record();
        }
    }
}

async fn send(
    options: Arc<Fan>,
    mut client: Client,
    n: u32,
    progress: Arc<Progress>,
) -> Result<Client> {
    let mine = options.messages / u64::from(options.publishers);
    let extra = u64::from(u64::from(n) < options.messages % u64::from(options.publishers));
    let topic = text(&options.topic(n));
    let flow = progress.flow(n);
    let mut payload = vec![b'x'; options.size.max(8)];
    let (started, mut waiting, mut id) = (Instant::now(), 0usize, 0u16);
    let mut out = Vec::new();
    let end = started + Duration::from_secs_f64(options.seconds);
    // Publishers do not all begin at the same moment.
    let first_due = f64::from(n) / f64::from(options.publishers);
    for number in 0..mine + extra {
        if number % options.chunk() == 0 {
            if Instant::now() >= end {
                break;
            }
            if options.ahead != u64::MAX {
                flush(&mut client, &mut out).await?;
                flow.room(&options).await;
            }
        }
        if options.rate > 0 {
            let due = number as f64 + first_due;
            let due = due * f64::from(options.publishers) / options.rate as f64;
            let due = started + Duration::from_secs_f64(due);
            if due >= end {
                break;
            }
            if due > Instant::now() {
                flush(&mut client, &mut out).await?;
                tokio::time::sleep_until(due.into()).await;
            }
        }
        flow.sent.fetch_add(1, Ordering::Relaxed);
        payload[..8].copy_from_slice(&now_ns().to_be_bytes());
        let first = 0x30 | options.qos << 1;
        if options.qos == 0 {
            put_packet(&mut out, first, &[&topic, &payload]);
        } else {
            id = if id == u16::MAX { 1 } else { id + 1 };
            put_packet(&mut out, first, &[&topic, &id.to_be_bytes(), &payload]);
            waiting += 1;
        }
        if out.len() >= 16 * 1024 || waiting >= options.window {
            flush(&mut client, &mut out).await?;
        }
        while waiting >= options.window {
            waiting -= answers(&mut client, &mut out).await?;
        }
    }
    flush(&mut client, &mut out).await?;
    while waiting > 0 {
        waiting -= answers(&mut client, &mut out).await?;
    }
    Ok(client)
}

/// Takes what the broker says; gives how many messages are done with.
async fn answers(client: &mut Client, out: &mut Vec<u8>) -> Result<usize> {
    let mut done = 0;
    let mut next = Some(client.packet().await?);
    while let Some((first, body)) = next {
        match first >> 4 {
            4 | 7 => done += 1,
            5 => put_packet(out, 0x62, &[&body[..2]]),
            other => bail!("a packet of type {other}"),
        }
        next = client.ready()?;
    }
    flush(client, out).await?;
    Ok(done)
}

async fn flush(client: &mut Client, out: &mut Vec<u8>) -> Result<()> {
    client.stream.write_all(out).await?;
    out.clear();
    Ok(())
}
