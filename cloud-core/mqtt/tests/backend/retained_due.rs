//! The broker over the backend: retained messages that a stored session has not had, over a restart of the core.

use super::*;
use bytes::BytesMut;
use mqtt_broker::{Broker, Limits};
use mqtt_codec::{
    Ack, Connect, Decoder, Packet, Properties, Subscribe, SubscribeFilter, SubscriptionOptions,
    Version, encode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

/// One that takes one message at a time, and whose session stays.
struct Client {
    stream: DuplexStream,
    input: BytesMut,
    decoder: Decoder,
}

impl Client {
    async fn connect(broker: &Arc<Broker<CoreBackend>>) -> (Client, bool) {
        let (stream, far) = tokio::io::duplex(64 * 1024);
        let broker = broker.clone();
        tokio::spawn(async move { broker.serve(far).await });
        let mut client = Client {
            stream,
            input: BytesMut::new(),
            decoder: Decoder::with_version(Version::V5, usize::MAX),
        };
        let connect = Connect {
            version: Version::V5,
            is_bridge: false,
            clean_start: false,
            keep_alive: 0,
            client_id: "c".to_owned(),
            will: None,
            user_name: None,
            password: None,
            properties: Properties {
                session_expiry_interval: Some(1_000),
                receive_maximum: Some(1),
                ..Properties::default()
            },
        };
        client.send(Packet::Connect(Box::new(connect))).await;
        let Packet::ConnAck(connack) = client.receive().await else {
            panic!("no CONNACK")
        };
        (client, connack.session_present)
    }

    async fn send(&mut self, packet: Packet) {
        let mut out = BytesMut::new();
        encode(&packet, Version::V5, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn receive(&mut self) -> Packet {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                return packet;
            }
            assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0);
        }
    }

    async fn subscribe(&mut self, filter_text: &str) {
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        let filter = filter(filter_text);
        let subscribe = Subscribe {
            packet_id: id(1),
            properties: Properties::default(),
            filters: vec![SubscribeFilter { filter, options }],
        };
        self.send(Packet::Subscribe(subscribe)).await;
        assert!(matches!(self.receive().await, Packet::SubAck(_)));
    }

    /// Payload, RETAIN and DUP of the next message, and its packet id.
    async fn message(&mut self) -> ((String, bool, bool), PacketId) {
        let Packet::Publish(got) = self.receive().await else {
            panic!("no PUBLISH")
        };
        let text = String::from_utf8(got.payload.to_vec()).unwrap();
        ((text, got.retain, got.dup), got.packet_id.unwrap())
    }

    async fn take(&mut self) -> (String, bool, bool) {
        let (message, packet_id) = self.message().await;
        self.send(Packet::PubAck(Ack::success(packet_id))).await;
        message
    }
}

/// With all its tasks gone when it returns, as after a crash.
fn process<T>(dir: &Path, work: impl AsyncFnOnce(Arc<Broker<CoreBackend>>) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let backend = Arc::new(backend(&open(dir)));
        let started = Broker::start(backend, Limits::default(), CancellationToken::new());
        work(started.await.unwrap()).await
    })
}

#[test]
fn a_session_gets_the_rest_of_them_after_a_restart_and_what_was_in_flight_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let name = |n: usize| format!("r/{n:02}");
    process(dir.path(), async |broker| {
        for n in 0..50 {
            let mut message = publish(&name(n), name(n));
            message.message.retain = true;
            broker.backend().publish(message, None).await.unwrap();
        }
        let (mut client, _) = Client::connect(&broker).await;
        client.subscribe("r/#").await;
        assert_eq!(client.take().await, (name(0), true, false));
        assert_eq!(client.message().await.0, (name(1), true, false));
        // What is saved once a second, and with a sync.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        for (topic, payload) in [("r/01", "v2"), ("r/03", "v2")] {
            let message = retained(topic, payload);
            broker.backend().publish(message, None).await.unwrap();
        }
    });
    process(dir.path(), async |broker| {
        let (mut client, session_present) = Client::connect(&broker).await;
        assert!(session_present);
        let mut expected = vec![(name(1), true, true)];
        expected.extend(vec![("v2".to_owned(), false, false); 2]);
        expected.extend((2..50).map(|n| (name(n), true, false)));
        // What came meanwhile is before the retained message that is newer.
        expected[4] = ("v2".to_owned(), true, false);
        for expected in expected {
            assert_eq!(client.take().await, expected);
        }
    });
}
