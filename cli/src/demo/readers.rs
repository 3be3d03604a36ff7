//! The three faces of the log, read by real clients: rdkafka, lapin and rumqttc.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

use super::plant::STREAM;

const QUEUE: &str = "demo";
const SUBSCRIBER: &str = "demo-dashboard";
/// A reader that hears nothing for this long has read everything there is.
const QUIET: Duration = Duration::from_secs(3);
/// How long a reader may wait for the first message.
const FIRST_WITHIN: Duration = Duration::from_secs(20);

/// Where the core listens.
#[derive(Clone)]
pub struct Faces {
    pub mqtt: String,
    pub kafka: String,
    pub amqp: String,
}

impl Faces {
    /// Declares who will read later: a durable AMQP queue, and a persistent MQTT session. Both must survive the kills.
    pub async fn prepare(&self) -> Result<()> {
        let channel = self.channel().await.context("AMQP")?;
        channel
            .exchange_declare(
                STREAM.into(),
                ExchangeKind::Topic,
                ExchangeDeclareOptions {
                    durable: true,
                    ..Default::default()
                },
                FieldTable::default(),
            )
            .await?;
        channel
            .queue_declare(
                QUEUE.into(),
                QueueDeclareOptions {
                    durable: true,
                    ..Default::default()
                },
                FieldTable::default(),
            )
            .await?;
        channel
            .queue_bind(
                QUEUE.into(),
                STREAM.into(),
                "#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let (client, mut events) = self.subscriber()?;
        client
            .subscribe(format!("{STREAM}/#"), QoS::ExactlyOnce)
            .await?;
        wait_for(&mut events, |packet| matches!(packet, Packet::SubAck(_))).await?;
        client.disconnect().await?;
        // Polling once more writes the DISCONNECT; the error that ends the loop is the closed connection.
        while events.poll().await.is_ok() {}
        Ok(())
    }

    /// Everything in the stream, in the order of the log.
    pub async fn read_kafka(&self) -> Result<Vec<Vec<u8>>> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka)
            .set("group.id", "demo")
            .set("auto.offset.reset", "earliest")
            .create()?;
        consumer.subscribe(&[STREAM])?;
        let mut bodies = Vec::new();
        while let Some(message) = next(&bodies, consumer.recv()).await {
            let message = message.context("reading with a Kafka client")?;
            bodies.push(message.payload().unwrap_or_default().to_vec());
        }
        Ok(bodies)
    }

    /// Everything that the queue holds; each delivery is acknowledged.
    pub async fn read_amqp(&self) -> Result<Vec<Vec<u8>>> {
        let channel = self.channel().await?;
        channel.basic_qos(1000, BasicQosOptions::default()).await?;
        let mut consumer = channel
            .basic_consume(
                QUEUE.into(),
                "demo".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut bodies = Vec::new();
        while let Some(delivery) = next(&bodies, consumer.next()).await {
            let delivery = delivery.context("the AMQP consumer was cancelled")??;
            delivery.ack(BasicAckOptions::default()).await?;
            bodies.push(delivery.data);
        }
        Ok(bodies)
    }

    /// What the persistent session is given when its client comes back.
    pub async fn read_mqtt(&self) -> Result<Vec<Vec<u8>>> {
        let (_client, mut events) = self.subscriber()?;
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        while let Some(event) = next(&bodies, next_publish(&mut events)).await {
            bodies.push(event?);
        }
        Ok(bodies)
    }

    fn subscriber(&self) -> Result<(AsyncClient, EventLoop)> {
        let (host, port) = self
            .mqtt
            .rsplit_once(':')
            .context("an address without a port")?;
        let mut options = MqttOptions::new(SUBSCRIBER, host, port.parse()?);
        options.set_clean_session(false);
        // Pings would look like life to a reader that waits for silence.
        options.set_keep_alive(Duration::from_secs(60));
        Ok(AsyncClient::new(options, 16))
    }

    async fn channel(&self) -> Result<Channel> {
        let uri = format!("amqp://guest:guest@{}/%2f", self.amqp);
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
        Ok(connection.create_channel().await?)
    }
}

/// The next item, or nothing after a silence.
async fn next<T>(so_far: &[Vec<u8>], item: impl Future<Output = T>) -> Option<T> {
    let patience = if so_far.is_empty() {
        FIRST_WITHIN
    } else {
        QUIET
    };
    tokio::time::timeout(patience, item).await.ok()
}

async fn next_publish(events: &mut EventLoop) -> Result<Vec<u8>> {
    loop {
        if let Event::Incoming(Packet::Publish(publish)) = events.poll().await? {
            return Ok(publish.payload.to_vec());
        }
    }
}

async fn wait_for(events: &mut EventLoop, wanted: impl Fn(&Packet) -> bool) -> Result<()> {
    let found = tokio::time::timeout(FIRST_WITHIN, async {
        loop {
            if let Event::Incoming(packet) = events.poll().await?
                && wanted(&packet)
            {
                return anyhow::Ok(());
            }
        }
    });
    match found.await {
        Ok(result) => result,
        Err(_) => bail!("the core's MQTT listener did not answer within {FIRST_WITHIN:?}"),
    }
}
