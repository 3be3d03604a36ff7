//! rumqttc in both versions, for `tests/interop/mqtt/run`: `rumqttc_client HOST:PORT` says `ok NAME` or `not ok NAME: why`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::time::timeout;

const WITHIN: Duration = Duration::from_secs(20);
const COUNT: usize = 50;

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("HOST:PORT is missing")?;
    let (host, port) = address.rsplit_once(':').context("not HOST:PORT")?;
    let port = port.parse()?;
    let mut failed = false;
    let mut say = |name: &str, result: Result<()>| match result {
        Ok(()) => println!("ok {name}"),
        Err(error) => {
            failed = true;
            println!("not ok {name}: {error:#}");
        }
    };
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        say(
            &format!("3.1.1: {qos:?}, in order"),
            in_order(host, port, qos).await,
        );
    }
    say("3.1.1: a session waits", session(host, port).await);
    for qos in 0..=2u8 {
        say(
            &format!("5: QoS {qos}, in order"),
            in_order_5(host, port, qos).await,
        );
    }
    if failed {
        bail!("some failed");
    }
    Ok(())
}

fn options(id: &str, host: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(id, host, port);
    options.set_keep_alive(Duration::from_secs(30));
    options
}

/// The payloads of the next messages.
async fn take(events: &mut EventLoop, count: usize) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let event = timeout(WITHIN, events.poll()).await;
        let event = event.with_context(|| format!("after {} messages", texts.len()))??;
        if let Event::Incoming(Packet::Publish(publish)) = event {
            texts.push(String::from_utf8(publish.payload.to_vec())?);
        }
    }
    Ok(texts)
}

async fn until(events: &mut EventLoop, wanted: impl Fn(&Packet) -> bool) -> Result<()> {
    loop {
        if let Event::Incoming(packet) = timeout(WITHIN, events.poll()).await??
            && wanted(&packet)
        {
            return Ok(());
        }
    }
}

fn numbers() -> Vec<String> {
    (0..COUNT).map(|number| number.to_string()).collect()
}

async fn in_order(host: &str, port: u16, qos: QoS) -> Result<()> {
    let name = format!("rumqttc/{}", qos as u8);
    let (client, mut events) = AsyncClient::new(options(&name, host, port), 2 * COUNT);
    client.subscribe(&name, qos).await?;
    until(&mut events, |packet| matches!(packet, Packet::SubAck(_))).await?;
    for text in numbers() {
        client.publish(&name, qos, false, text).await?;
    }
    let got = take(&mut events, COUNT).await?;
    ensure!(got == numbers(), "{got:?}");
    client.disconnect().await?;
    Ok(())
}

async fn session(host: &str, port: u16) -> Result<()> {
    let lasting = || {
        let mut options = options("rumqttc-session", host, port);
        options.set_clean_session(false);
        options
    };
    let (client, mut events) = AsyncClient::new(lasting(), 10);
    client
        .subscribe("rumqttc/session", QoS::AtLeastOnce)
        .await?;
    until(&mut events, |packet| matches!(packet, Packet::SubAck(_))).await?;
    drop((client, events));
    let (client, mut events) = AsyncClient::new(options("rumqttc-other", host, port), 2 * COUNT);
    for text in numbers() {
        client
            .publish("rumqttc/session", QoS::AtLeastOnce, false, text)
            .await?;
    }
    for _ in 0..COUNT {
        until(&mut events, |packet| matches!(packet, Packet::PubAck(_))).await?;
    }
    let (_client, mut events) = AsyncClient::new(lasting(), 10);
    let got = take(&mut events, COUNT).await?;
    ensure!(got == numbers(), "{got:?}");
    Ok(())
}

async fn in_order_5(host: &str, port: u16, qos: u8) -> Result<()> {
    use rumqttc::v5::mqttbytes::qos as qos_of;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let qos = qos_of(qos).context("a QoS")?;
    let name = format!("rumqttc5/{}", qos as u8);
    let mut options = MqttOptions::new(&name, host, port);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 2 * COUNT);
    client.subscribe(&name, qos).await?;
    let mut got = Vec::new();
    while got.len() < COUNT {
        match timeout(WITHIN, events.poll()).await?? {
            Event::Incoming(Packet::SubAck(_)) => {
                for text in numbers() {
                    client.publish(&name, qos, false, text).await?;
                }
            }
            Event::Incoming(Packet::Publish(publish)) => {
                got.push(String::from_utf8(publish.payload.to_vec())?);
            }
            _ => {}
        }
    }
    ensure!(got == numbers(), "{got:?}");
    client.disconnect().await?;
    Ok(())
}
