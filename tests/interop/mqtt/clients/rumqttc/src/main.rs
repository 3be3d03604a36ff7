//! rumqttc in both versions, for `tests/interop/mqtt/run`: `rumqttc-client SCHEME://HOST:PORT` (mqtt, mqtts, ws, wss; the authority of a TLS listener in the file
//! that the environment's CA_FILE names) says `ok NAME` or `not ok NAME: why`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, Transport};
use tokio::time::timeout;

const WITHIN: Duration = Duration::from_secs(20);
const COUNT: usize = 50;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("the URL is missing")?;
    let way = &Way::of(&url)?;
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
            in_order(way, qos).await,
        );
    }
    say("3.1.1: a session waits", session(way).await);
    for qos in 0..=2u8 {
        say(
            &format!("5: QoS {qos}, in order"),
            in_order_5(way, qos).await,
        );
    }
    if failed {
        bail!("some failed");
    }
    Ok(())
}

/// Where the broker is, and how it is reached.
struct Way {
    /// A host, or the URL of a WebSocket: so rumqttc wants it.
    to: String,
    port: u16,
    transport: Transport,
}

impl Way {
    fn of(url: &str) -> Result<Way> {
        let (scheme, address) = url.split_once("://").context("not SCHEME://HOST:PORT")?;
        let (host, port) = address.rsplit_once(':').context("not HOST:PORT")?;
        let authority = || -> Result<Vec<u8>> {
            rustls::crypto::ring::default_provider()
                .install_default()
                .map_err(|_| anyhow::anyhow!("there is a provider already"))?;
            let file = std::env::var("CA_FILE").context("CA_FILE is not set")?;
            Ok(std::fs::read(file)?)
        };
        let (to, transport) = match scheme {
            "mqtt" => (host.to_owned(), Transport::tcp()),
            "mqtts" => (host.to_owned(), Transport::tls(authority()?, None, None)),
            "ws" => (format!("{url}/mqtt"), Transport::ws()),
            "wss" => (
                format!("{url}/mqtt"),
                Transport::wss(authority()?, None, None),
            ),
            other => bail!("{other} is none of mqtt, mqtts, ws, wss"),
        };
        Ok(Way {
            to,
            port: port.parse()?,
            transport,
        })
    }

    fn options(&self, id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(id, &self.to, self.port);
        options.set_keep_alive(Duration::from_secs(30));
        options.set_transport(self.transport.clone());
        options
    }
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

async fn in_order(way: &Way, qos: QoS) -> Result<()> {
    let name = format!("rumqttc/{}", qos as u8);
    let (client, mut events) = AsyncClient::new(way.options(&name), 2 * COUNT);
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

async fn session(way: &Way) -> Result<()> {
    let lasting = || {
        let mut options = way.options("rumqttc-session");
        options.set_clean_session(false);
        options
    };
    let (client, mut events) = AsyncClient::new(lasting(), 10);
    client
        .subscribe("rumqttc/session", QoS::AtLeastOnce)
        .await?;
    until(&mut events, |packet| matches!(packet, Packet::SubAck(_))).await?;
    drop((client, events));
    let (client, mut events) = AsyncClient::new(way.options("rumqttc-other"), 2 * COUNT);
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

async fn in_order_5(way: &Way, qos: u8) -> Result<()> {
    use rumqttc::v5::mqttbytes::qos as qos_of;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let qos = qos_of(qos).context("a QoS")?;
    let name = format!("rumqttc5/{}", qos as u8);
    let mut options = MqttOptions::new(&name, &way.to, way.port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_transport(way.transport.clone());
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
