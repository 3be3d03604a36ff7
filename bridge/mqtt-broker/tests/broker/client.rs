//! A client that speaks real bytes, packet by packet.

use crate::access::Guard;
use crate::memory::Memory;
use bytes::{BufMut, Bytes, BytesMut};
use mqtt_broker::extra::Extra;
use mqtt_broker::{Broker, Limits, Peer};
use mqtt_codec::*;
use quota::Quotas;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Server {
    pub memory: Arc<Memory>,
    pub guard: Arc<Guard>,
    pub broker: Arc<Broker<Memory>>,
    pub shutdown: CancellationToken,
}

/// Nothing beside the protocol.
fn quiet() -> Extra {
    Extra {
        sys_interval: None,
        ..Extra::default()
    }
}

impl Server {
    pub async fn start() -> Server {
        Server::over(Arc::new(Memory::new()), Limits::default()).await
    }

    pub async fn over(memory: Arc<Memory>, limits: Limits) -> Server {
        Server::guarded(Guard::default(), memory, limits, quiet()).await
    }

    pub async fn with_quotas(quotas: Arc<Quotas>) -> Server {
        let guard = Guard {
            quotas,
            ..Guard::default()
        };
        let (memory, limits) = (Arc::new(Memory::new()), Limits::default());
        Server::guarded(guard, memory, limits, quiet()).await
    }

    pub async fn extended(memory: Arc<Memory>, limits: Limits, extra: Extra) -> Server {
        Server::guarded(Guard::default(), memory, limits, extra).await
    }

    pub async fn with(extra: Extra) -> Server {
        Server::extended(Arc::new(Memory::new()), Limits::default(), extra).await
    }

    async fn guarded(guard: Guard, memory: Arc<Memory>, limits: Limits, extra: Extra) -> Server {
        let (guard, shutdown) = (Arc::new(guard), CancellationToken::new());
        let started = Broker::start_extended(
            memory.clone(),
            guard.clone(),
            limits,
            extra,
            shutdown.clone(),
        );
        Server {
            memory,
            guard,
            broker: started.await.expect("start"),
            shutdown,
        }
    }

    /// A connection on which nothing was sent yet.
    pub fn open(&self, version: Version) -> Client {
        self.open_from(Peer::default(), version)
    }

    pub fn open_from(&self, peer: Peer, version: Version) -> Client {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let broker = self.broker.clone();
        let task = tokio::spawn(async move { broker.serve_peer(far, peer).await });
        Client {
            stream: near,
            input: BytesMut::new(),
            decoder: Decoder::with_version(version, usize::MAX),
            version,
            task,
            last_id: 0,
        }
    }

    /// What CONNACK says.
    pub async fn code(&self, connect: Connect) -> ReasonCode {
        self.connect(connect).await.1.reason_code
    }

    pub async fn connect(&self, connect: Connect) -> (Client, ConnAck) {
        self.connect_from(connect, Peer::default()).await
    }

    pub async fn connect_from(&self, connect: Connect, peer: Peer) -> (Client, ConnAck) {
        let mut client = self.open_from(peer, connect.version);
        client.send(Packet::Connect(Box::new(connect))).await;
        match client.receive().await {
            Some(Packet::ConnAck(connack)) => (client, *connack),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    /// Clean, version 5.
    pub async fn clean(&self, id: &str) -> Client {
        let (client, connack) = self.connect(v5(id)).await;
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
        client
    }

    /// Persistent, version 3.1.1. Also gives session present.
    pub async fn persistent(&self, id: &str) -> (Client, bool) {
        let (client, connack) = self
            .connect(Connect {
                clean_start: false,
                ..v311(id)
            })
            .await;
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
        (client, connack.session_present)
    }
}

pub fn v5(id: &str) -> Connect {
    Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive: 0,
        client_id: id.to_owned(),
        will: None,
        user_name: None,
        password: None,
        properties: Properties::default(),
    }
}

pub fn v311(id: &str) -> Connect {
    Connect {
        version: Version::V311,
        ..v5(id)
    }
}

pub fn will(topic_name: &str, delay: u32) -> Option<Will> {
    let properties = Properties {
        will_delay_interval: Some(delay),
        ..Properties::default()
    };
    Some(Will {
        topic: topic(topic_name),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties,
    })
}

pub fn topic(text: &str) -> TopicName {
    TopicName::new(text).expect("a topic")
}

pub fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

pub fn publish(name: &str, payload: &str, qos: u8) -> Publish {
    Publish {
        dup: false,
        qos: QoS::from_u8(qos).expect("a QoS"),
        retain: false,
        topic: Some(topic(name)),
        packet_id: None,
        properties: Properties::default(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub struct Client {
    stream: DuplexStream,
    input: BytesMut,
    decoder: Decoder,
    version: Version,
    task: JoinHandle<()>,
    last_id: u16,
}

impl Client {
    pub async fn send(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        encode(&packet, self.version, &mut out);
        self.send_bytes(&out).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next packet, without its reason string; `None` = the connection was closed.
    pub async fn receive(&mut self) -> Option<Packet> {
        self.receive_explained().await.map(|(packet, _)| packet)
    }

    /// The next packet and its reason string, which is for people.
    pub async fn receive_explained(&mut self) -> Option<(Packet, Option<String>)> {
        let received = tokio::time::timeout(Duration::from_secs(3600), self.receive_inner());
        let mut packet = received.await.expect("a packet within an hour")?;
        let text = match &mut packet {
            Packet::ConnAck(p) => p.properties.reason_string.take(),
            Packet::PubAck(p) | Packet::PubRec(p) => p.properties.reason_string.take(),
            Packet::SubAck(p) => p.properties.reason_string.take(),
            Packet::Disconnect(p) => p.properties.reason_string.take(),
            _ => None,
        };
        Some((packet, text))
    }

    async fn receive_inner(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self
                .decoder
                .decode(&mut self.input)
                .expect("a valid packet")
            {
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Takes a few bytes from the socket, of whatever comes.
    pub async fn take_bytes(&mut self, most: usize) {
        let mut room = (&mut self.input).limit(most);
        let read = self.stream.read_buf(&mut room).await;
        assert!(read.expect("a connection") > 0);
    }

    /// Nothing more comes, although the server has had its time (which is virtual).
    pub async fn nothing(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(500), self.receive_inner()).await;
        assert!(quiet.is_err(), "unexpected {quiet:?}");
    }

    pub fn next_id(&mut self) -> PacketId {
        self.last_id += 1;
        id(self.last_id)
    }

    pub async fn receive_publish(&mut self) -> Publish {
        match self.receive().await {
            Some(Packet::Publish(publish)) => *publish,
            other => panic!("no PUBLISH but {other:?}"),
        }
    }

    /// Receives and acknowledges, whatever the QoS; the payload as text.
    pub async fn take(&mut self) -> String {
        let publish = self.receive_publish().await;
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        if let Some(packet_id) = publish.packet_id {
            if publish.qos == QoS::AtLeastOnce {
                self.send(Packet::PubAck(Ack::success(packet_id))).await;
            } else {
                self.send(Packet::PubRec(Ack::success(packet_id))).await;
                assert_eq!(
                    self.receive().await,
                    Some(Packet::PubRel(Ack::success(packet_id)))
                );
                self.send(Packet::PubComp(Ack::success(packet_id))).await;
            }
        }
        text
    }

    pub async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        identifier: Option<u32>,
    ) -> ReasonCode {
        let packet_id = self.next_id();
        let filter = TopicFilter::new(filter).expect("a filter");
        let properties = Properties {
            subscription_identifiers: identifier.into_iter().collect(),
            ..Properties::default()
        };
        let filters = vec![SubscribeFilter { filter, options }];
        self.send(Packet::Subscribe(Subscribe {
            packet_id,
            properties,
            filters,
        }))
        .await;
        match self.receive().await {
            Some(Packet::SubAck(suback)) if suback.packet_id == packet_id => suback.reason_codes[0],
            other => panic!("no SUBACK but {other:?}"),
        }
    }

    pub async fn subscribe(&mut self, filter: &str, qos: u8) {
        let options = SubscriptionOptions {
            qos: QoS::from_u8(qos).expect("a QoS"),
            ..Default::default()
        };
        assert_eq!(
            self.subscribe_with(filter, options, None).await,
            ReasonCode(qos)
        );
    }

    pub async fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.next_id();
        let filters = vec![TopicFilter::new(filter).expect("a filter")];
        self.send(Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties: Properties::default(),
            filters,
        }))
        .await;
        assert!(matches!(self.receive().await, Some(Packet::UnsubAck(_))));
    }

    /// Publishes and waits for the end of the handshake.
    pub async fn publish(&mut self, name: &str, payload: &str, qos: u8) {
        self.publish_packet(publish(name, payload, qos)).await;
    }

    pub async fn publish_packet(&mut self, mut packet: Publish) {
        let qos = packet.qos;
        if qos == QoS::AtMostOnce {
            return self.send(Packet::Publish(Box::new(packet))).await;
        }
        let packet_id = self.next_id();
        packet.packet_id = Some(packet_id);
        self.send(Packet::Publish(Box::new(packet))).await;
        if qos == QoS::AtLeastOnce {
            assert_eq!(
                self.receive().await,
                Some(Packet::PubAck(Ack::success(packet_id)))
            );
        } else {
            assert_eq!(
                self.receive().await,
                Some(Packet::PubRec(Ack::success(packet_id)))
            );
            self.send(Packet::PubRel(Ack::success(packet_id))).await;
            assert_eq!(
                self.receive().await,
                Some(Packet::PubComp(Ack::success(packet_id)))
            );
        }
    }

    /// DISCONNECT, and waits until the server has settled.
    pub async fn disconnect(mut self) {
        self.send(Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS)))
            .await;
        drop(self.stream);
        self.task.await.expect("the connection task");
    }

    /// The socket breaks; waits until the server has settled.
    pub async fn vanish(self) {
        drop(self.stream);
        self.task.await.expect("the connection task");
    }

    /// The server process dies: nothing is saved after this.
    pub async fn kill_server_side(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn closed_with(&mut self, reason_code: ReasonCode) {
        assert_eq!(
            self.receive().await,
            Some(Packet::Disconnect(Disconnect::new(reason_code)))
        );
        assert_eq!(self.receive().await, None);
    }
}

/// Options of a subscription.
pub fn options(qos: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: QoS::from_u8(qos).expect("a QoS"),
        ..Default::default()
    }
}
