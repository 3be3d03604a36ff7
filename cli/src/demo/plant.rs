//! The simulated plant: devices that publish readings to the edge at QoS 2, each one in order, whatever happens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The first topic level, and with it the stream.
pub const STREAM: &str = "plant";
/// How long the plant may take to get its last messages acknowledged after it was told to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(60);
/// How often a device tries to reach an edge that is away.
const RECONNECT_EVERY: Duration = Duration::from_millis(100);

/// What the plant has done so far.
#[derive(Default)]
pub struct Counters {
    pub published: AtomicU64,
    pub acknowledged: AtomicU64,
}

pub struct Plant {
    devices: JoinSet<Result<(u32, u64)>>,
    stop: Arc<AtomicBool>,
    pub counters: Arc<Counters>,
}

impl Plant {
    /// Starts `devices` clients, each publishing one reading every `pause`.
    pub fn start(edge: &str, devices: u32, pause: Duration) -> Result<Plant> {
        let Some((host, port)) = edge.rsplit_once(':') else {
            bail!("{edge} is not an address");
        };
        let port: u16 = port.parse()?;
        let mut plant = Plant {
            devices: JoinSet::new(),
            stop: Arc::default(),
            counters: Arc::default(),
        };
        for number in 0..devices {
            let mut options = MqttOptions::new(format!("device-{number}"), host, port);
            // The session survives a reconnect, and one message at a time keeps the order through a resend.
            options.set_clean_session(false);
            options.set_inflight(1);
            options.set_keep_alive(Duration::from_secs(5));
            plant.devices.spawn(device(
                number,
                options,
                pause,
                plant.stop.clone(),
                plant.counters.clone(),
            ));
        }
        Ok(plant)
    }

    /// Stops publishing, waits until the edge has acknowledged everything, and returns how many readings each device sent.
    pub async fn finish(mut self) -> Result<HashMap<u32, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = HashMap::new();
        let all = tokio::time::timeout(FINISH_WITHIN, async {
            while let Some(device) = self.devices.join_next().await {
                let (number, count) = device??;
                sent.insert(number, count);
            }
            anyhow::Ok(())
        });
        match all.await {
            Ok(result) => result?,
            Err(_) => {
                bail!("the edge did not acknowledge the last readings within {FINISH_WITHIN:?}")
            }
        }
        Ok(sent)
    }
}

/// The topic and the body of one reading. The body carries who sent it and its number, for the balance.
pub fn reading(device: u32, number: u64) -> (String, String) {
    let topic = format!("{STREAM}/line{}/device{device}", device / 5);
    let celsius = 20.0 + f64::from(device) + (number % 100) as f64 / 10.0;
    let body = format!(r#"{{"device":{device},"number":{number},"celsius":{celsius:.1}}}"#);
    (topic, body)
}

async fn device(
    device: u32,
    options: MqttOptions,
    pause: Duration,
    stop: Arc<AtomicBool>,
    counters: Arc<Counters>,
) -> Result<(u32, u64)> {
    let (client, mut events) = AsyncClient::new(options, 4);
    let (acks, mut acked) = mpsc::channel(1);
    // The client's event loop reconnects and resends by itself, as long as somebody polls it.
    let connection = tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::PubComp(_))) => {
                    if acks.send(()).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(RECONNECT_EVERY).await,
            }
        }
    });
    let mut number = 0;
    let mut clock = tokio::time::interval(pause);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let (topic, body) = reading(device, number);
        client.publish(topic, QoS::ExactlyOnce, false, body).await?;
        counters.published.fetch_add(1, Ordering::Relaxed);
        number += 1;
        if acked.recv().await.is_none() {
            bail!("the connection of device {device} ended");
        }
        counters.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    client.disconnect().await?;
    connection.abort();
    Ok((device, number))
}
