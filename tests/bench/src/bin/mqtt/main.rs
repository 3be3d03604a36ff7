//! A load generator for MQTT 3.1.1 brokers, whoever made them: its packets are written by hand here, so that no broker is
//! measured with its own codec. Prints one JSON object.
//!
//! Each payload begins with the number of the client, the number of the message and the wall-clock time of sending, so that a
//! receiver in another process can tell losses, repetitions, disorder and latency.

mod fan;
mod idle;
mod process;
mod relay;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use clap::{Args, Parser};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Publishes to, or receives from, a broker, and says how it went, as JSON.
#[derive(Debug, Parser)]
enum Command {
    Publish(Publish),
    Receive(Receive),
    /// Many publishers and many subscribers at once, with the processor time of the broker
    Fan(fan::Fan),
    /// Connections that do nothing: how fast they come, and what each costs in memory
    Idle(idle::Idle),
    /// Hands on what comes at QoS 0 and does nothing else: what no broker that copies can be cheaper than
    Relay(relay::Relay),
}

#[derive(Debug, Args)]
struct Publish {
    /// The broker
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Connections
    #[arg(long, default_value_t = 1)]
    clients: u32,
    /// Messages over all connections
    #[arg(long)]
    messages: u64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// A JSON reading of about 100 bytes as payload, instead of filling
    #[arg(long)]
    reading: bool,
    /// Messages of one connection that wait for their PUBACK
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Messages per second over all connections; 0: as fast as they are taken
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Topic; {client} is the number of the connection
    #[arg(long, default_value = "bench/{client}")]
    topic: String,
    #[arg(long, default_value_t = 1)]
    qos: u8,
    /// The first client's number: different for load generators that run side by side
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Number of the first message
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Begins no message after so many seconds
    #[arg(long, default_value_t = 1 << 30)]
    within: u64,
}

#[derive(Debug, Args)]
struct Receive {
    #[arg(long, value_name = "HOST:PORT")]
    from: String,
    #[arg(long, default_value = "bench/#")]
    filter: String,
    /// Ends after this many different messages
    #[arg(long)]
    messages: u64,
    /// Gives up when nothing came for so many seconds
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// Ends after so many seconds in all
    #[arg(long, default_value_t = 1 << 30)]
    within: u64,
    #[arg(long, default_value_t = 1)]
    qos: u8,
    /// Client identifier; with one, the session is kept
    #[arg(long)]
    session: Option<String>,
}

/// Bytes of the payload that the generator needs for itself.
const STAMP: usize = 20;
/// Most bytes of one packet that is taken from a broker.
const LARGEST: usize = 16 * 1024 * 1024;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let result = match Command::parse() {
        Command::Publish(options) => publish(Arc::new(options)).await?,
        Command::Receive(options) => receive(&options).await?,
        Command::Fan(options) => fan::fan(Arc::new(options)).await?,
        Command::Idle(options) => idle::idle(&options).await?,
        Command::Relay(options) => return relay::relay(&options),
    };
    println!("{result}");
    Ok(())
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 3)?)
}

fn latency(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile);
    json!({ "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": histogram.max(), "count": histogram.len() })
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[&[u8]]) {
    out.push(first);
    let mut length: usize = body.iter().map(|part| part.len()).sum();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    for part in body {
        out.extend_from_slice(part);
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

struct Client {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Client {
    /// Connects with a clean session, or with one that is kept.
    async fn connect(to: &str, id: &str, clean: bool) -> Result<Client> {
        Client::connect_with(to, id, clean, 64 * 1024).await
    }

    /// With a buffer of so many bytes for what comes.
    async fn connect_with(to: &str, id: &str, clean: bool, buffer: usize) -> Result<Client> {
        let stream = TcpStream::connect(to)
            .await
            .with_context(|| to.to_owned())?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            buffer: BytesMut::with_capacity(buffer),
        };
        let mut packet = Vec::new();
        let flags = [if clean { 2 } else { 0 }];
        put_packet(
            &mut packet,
            0x10,
            &[&text("MQTT"), &[4], &flags, &[0, 0], &text(id)],
        );
        client.stream.write_all(&packet).await?;
        let (first, body) = client.packet().await?;
        ensure!(
            first == 0x20 && body.get(1) == Some(&0),
            "not connected: {body:?}"
        );
        Ok(client)
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let mut packet = Vec::new();
        put_packet(&mut packet, 0x82, &[&[0, 1], &text(filter), &[qos]]);
        self.stream.write_all(&packet).await?;
        let (first, body) = self.packet().await?;
        ensure!(
            first == 0x90 && body.get(2) == Some(&qos),
            "not subscribed: {body:?}"
        );
        Ok(())
    }

    /// The next packet, if it is here already.
    fn ready(&mut self) -> Result<Option<(u8, BytesMut)>> {
        split(&mut self.buffer)
    }

    /// The next packet: first byte and body.
    async fn packet(&mut self) -> Result<(u8, BytesMut)> {
        loop {
            if let Some(packet) = split(&mut self.buffer)? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the broker closed the connection");
            }
        }
    }
}

/// Where the body of the first packet begins, and where it ends; `None` while the length is not there.
fn extent(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for at in 1..5 {
        let Some(byte) = bytes.get(at) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((at + 1, at + 1 + length)));
        }
    }
    bail!("a length of more than four bytes")
}

fn split(buffer: &mut BytesMut) -> Result<Option<(u8, BytesMut)>> {
    let Some((from, to)) = extent(buffer)? else {
        return Ok(None);
    };
    ensure!(to - from <= LARGEST, "a packet of {} bytes", to - from);
    if buffer.len() < to {
        return Ok(None);
    }
    let first = buffer[0];
    buffer.advance(from);
    Ok(Some((first, buffer.split_to(to - from))))
}

fn payload(options: &Publish, client: u32, number: u64, out: &mut Vec<u8>) {
    out.clear();
    if options.reading {
        // As devices write them: the same names each time, values that wander. The stamp is in it as text.
        let temperature = 20.0 + (number % 700) as f64 / 100.0;
        let pressure = 1000 + (number * 7) % 40;
        out.extend_from_slice(
            format!(
                "{{\"c\":{client},\"n\":{number},\"t\":{},\"temperature\":{temperature:.2},\"pressure\":{pressure},\"state\":\"running\"}}",
                now_ns()
            )
            .as_bytes(),
        );
        return;
    }
    out.extend_from_slice(&client.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&now_ns().to_be_bytes());
    // Not compressible, so that nobody gains by what a payload happens to be.
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < options.size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let left = options.size - out.len();
        out.extend_from_slice(&state.to_be_bytes()[..left.min(8)]);
    }
}

async fn publish(options: Arc<Publish>) -> Result<Value> {
    ensure!(
        options.reading || options.size >= STAMP,
        "--size: at least {STAMP}"
    );
    let acknowledged = Arc::new(AtomicU64::new(0));
    let all = Arc::new(Mutex::new(histogram()?));
    let mut tasks = Vec::new();
    let begun = Instant::now();
    let from_ns = now_ns();
    let share = options.messages / u64::from(options.clients);
    for client in 0..options.clients {
        let (options, acknowledged, all) = (options.clone(), acknowledged.clone(), all.clone());
        tasks.push(tokio::spawn(async move {
            let id = options.first + client;
            publish_as(&options, id, share, &acknowledged, &all).await
        }));
    }
    let mut errors = Vec::new();
    for task in tasks {
        if let Err(error) = task.await? {
            errors.push(format!("{error:#}"));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    let latency = latency(&all.lock());
    Ok(json!({
        "acknowledged": acknowledged, "seconds": seconds, "per_second": acknowledged as f64 / seconds,
        "puback": latency, "errors": errors, "from_ns": from_ns, "to_ns": now_ns(),
    }))
}

async fn publish_as(
    options: &Publish,
    id: u32,
    messages: u64,
    acknowledged: &AtomicU64,
    all: &Mutex<Histogram<u64>>,
) -> Result<()> {
    let mut client = Client::connect(&options.to, &format!("bench-{id}"), true).await?;
    let topic = text(&options.topic.replace("{client}", &id.to_string()));
    let mut own = histogram()?;
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut out = Vec::new();
    let mut body = Vec::new();
    let (mut sent, mut done) = (0u64, 0u64);
    let pace = (options.rate > 0)
        .then(|| Duration::from_secs_f64(f64::from(options.clients) / options.rate as f64));
    let begun = Instant::now();
    let mut messages = messages;
    while done < messages {
        if begun.elapsed().as_secs() >= options.within {
            messages = sent;
            if done >= messages {
                break;
            }
        }
        out.clear();
        while sent < messages && waiting.len() < options.window && out.len() < 64 * 1024 {
            if let Some(pace) = pace
                && begun.elapsed() < pace.mul_f64(sent as f64)
            {
                break;
            }
            payload(options, id, options.from + sent, &mut body);
            let packet_id = ((sent % 65_535) as u16 + 1).to_be_bytes();
            let packet_id: &[u8] = if options.qos > 0 { &packet_id } else { &[] };
            put_packet(
                &mut out,
                0x30 | options.qos << 1,
                &[&topic, packet_id, &body],
            );
            sent += 1;
            if options.qos > 0 {
                waiting.push_back(Instant::now());
            } else {
                done += 1;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !out.is_empty() {
            client.stream.write_all(&out).await?;
        }
        if options.qos == 0 {
            continue;
        }
        let due = pace.filter(|_| sent < messages && waiting.len() < options.window);
        let read = client.packet();
        let packet = match due {
            None => Some(read.await),
            Some(pace) => {
                let left = pace.mul_f64(sent as f64).saturating_sub(begun.elapsed());
                tokio::time::timeout(left, read).await.ok()
            }
        };
        let Some(packet) = packet else { continue };
        let mut next = Some(packet?);
        while let Some((first, _)) = next {
            if first == 0x40 {
                let at = waiting.pop_front().context("a PUBACK too many")?;
                own.record((at.elapsed().as_micros() as u64).max(1))?;
                done += 1;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            next = split(&mut client.buffer)?;
        }
    }
    all.lock().add(&own)?;
    client.stream.write_all(&[0xe0, 0]).await?;
    Ok(())
}

/// Which messages of one client came.
#[derive(Default)]
struct Seen {
    bits: Vec<u64>,
    highest: Option<u64>,
}

#[derive(Default)]
struct Tally {
    clients: std::collections::HashMap<u32, Seen>,
    different: u64,
    repeated: u64,
    disordered: u64,
}

impl Tally {
    fn note(&mut self, client: u32, number: u64) {
        let seen = self.clients.entry(client).or_default();
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if seen.bits.len() <= word {
            seen.bits.resize(word + 1, 0);
        }
        if seen.bits[word] & bit != 0 {
            self.repeated += 1;
            return;
        }
        seen.bits[word] |= bit;
        self.different += 1;
        if seen.highest.is_some_and(|highest| number < highest) {
            self.disordered += 1;
        }
        seen.highest = seen.highest.max(Some(number));
    }
}

/// Client, message and time of sending.
fn stamp(payload: &[u8]) -> Option<(u32, u64, u64)> {
    if payload.first() == Some(&b'{') {
        let value: Value = serde_json::from_slice(payload).ok()?;
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        return Some((
            u32::try_from(number("c")?).ok()?,
            number("n")?,
            number("t")?,
        ));
    }
    let mut payload = payload;
    (payload.len() >= STAMP).then(|| (payload.get_u32(), payload.get_u64(), payload.get_u64()))
}

async fn receive(options: &Receive) -> Result<Value> {
    let id = options
        .session
        .clone()
        .unwrap_or_else(|| format!("receiver-{}", now_ns()));
    let mut client = Client::connect(&options.from, &id, options.session.is_none()).await?;
    let mut packet = Vec::new();
    put_packet(
        &mut packet,
        0x82,
        &[&[0, 1], &text(&options.filter), &[options.qos]],
    );
    client.stream.write_all(&packet).await?;
    // Those who start the publishers wait for this line.
    eprintln!("subscribed");
    let mut tally = Tally::default();
    let mut latencies = histogram()?;
    let (mut first_ns, mut last_ns, mut strange) = (0u64, 0u64, 0u64);
    let mut acks = Vec::new();
    let patience = Duration::from_secs(options.patience);
    let end = tokio::time::Instant::now() + Duration::from_secs(options.within);
    while tally.different < options.messages {
        let until = end.min(tokio::time::Instant::now() + patience);
        let Ok(packet) = tokio::time::timeout_at(until, client.packet()).await else {
            break;
        };
        let mut next = Some(packet?);
        acks.clear();
        while let Some((first, mut body)) = next {
            if first & 0xf0 == 0x30 && body.len() >= 2 {
                let topic = usize::from(body.get_u16());
                ensure!(body.len() >= topic + 2, "a PUBLISH that ends too early");
                body.advance(topic);
                if first & 0x06 != 0 {
                    let packet_id = body.split_to(2);
                    acks.extend_from_slice(&[0x40, 2, packet_id[0], packet_id[1]]);
                }
                let now = now_ns();
                first_ns = if first_ns == 0 { now } else { first_ns };
                last_ns = now;
                match stamp(&body) {
                    Some((client, number, at)) => {
                        tally.note(client, number);
                        latencies.record((now.saturating_sub(at) / 1000).max(1))?;
                    }
                    None => strange += 1,
                }
            }
            next = split(&mut client.buffer)?;
        }
        if !acks.is_empty() {
            client.stream.write_all(&acks).await?;
        }
    }
    Ok(json!({
        "received": tally.different, "repeated": tally.repeated, "disordered": tally.disordered, "strange": strange,
        "first_ns": first_ns, "last_ns": last_ns, "latency": latency(&latencies),
    }))
}
