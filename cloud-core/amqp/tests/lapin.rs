//! What users count on, seen through lapin over a real kernel on a real disk.

use std::time::Duration;

use access_rules::{Rule, Who};
use frontend::Context;
use futures_util::StreamExt;
use kernel::{Kernel, KernelConfig, PartitionId, Ports, SequenceRule};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::*,
    types::{AMQPValue, FieldTable, ShortString},
};
use record::{BatchBuilder, Namespace, NewRecord, StreamAddress, StreamName};

struct Core {
    kernel: Kernel,
    context: Context,
    served: tokio::task::JoinHandle<()>,
    address: std::net::SocketAddr,
}

impl Core {
    async fn start(directory: &std::path::Path) -> Core {
        let kernel = Kernel::open(
            Ports::system(
                directory,
                std::sync::Arc::new(kernel::ports::MemoryColdStore::default()),
            )
            .unwrap(),
            KernelConfig::default(),
        )
        .unwrap();
        let context = Context::new(kernel.clone(), directory).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = amqp::start(context.clone(), listener);
        Core {
            kernel,
            context,
            served,
            address,
        }
    }

    async fn stop(self) {
        self.context.shutdown.cancel();
        self.served.await.unwrap();
        self.kernel.shutdown().await;
    }

    async fn connect(&self) -> Connection {
        let uri = format!("amqp://guest:guest@{}/%2f", self.address);
        Connection::connect(&uri, ConnectionProperties::default())
            .await
            .unwrap()
    }

    /// For everybody, before all others.
    async fn rule(&self, allow: bool, resource: &str) {
        let rule = Rule {
            allow,
            verbs: "all".parse().unwrap(),
            who: Who::default(),
            resource: resource.parse().unwrap(),
        };
        let first = self.context.access.rules().first().map(|rule| rule.id);
        self.context.access.add_rule(rule, first).await.unwrap();
    }

    /// A record as Kafka or MQTT would write it.
    async fn append(&self, stream: &str, key: &str, value: &str) {
        let address = StreamAddress::new(Namespace::default(), StreamName::new(stream).unwrap());
        let stream = self.kernel.ensure_stream(&address).await.unwrap();
        let mut builder = BatchBuilder::new();
        let record = NewRecord {
            timestamp: 1_000,
            key: Some(key.to_owned().into()),
            value: Some(value.to_owned().into()),
            headers: vec![],
        };
        builder.push(&record).unwrap();
        let partition = PartitionId {
            stream: stream.id,
            partition: 0,
        };
        self.kernel
            .append(partition, builder.build().unwrap(), SequenceRule::None)
            .await
            .unwrap();
    }
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions {
        durable: true,
        ..Default::default()
    }
}

async fn queue(channel: &Channel, name: &str) {
    channel
        .queue_declare(name.into(), durable(), FieldTable::default())
        .await
        .unwrap();
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .exchange_declare(name.into(), kind, options, FieldTable::default())
        .await
        .unwrap();
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            Default::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
}

/// Publishes and waits for the confirm; true if it came back as unroutable.
async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8]) -> bool {
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let confirm = channel
        .basic_publish(
            exchange.into(),
            key.into(),
            options,
            body,
            BasicProperties::default(),
        )
        .await
        .unwrap();
    match confirm.await.unwrap() {
        lapin::Confirmation::Ack(returned) => returned.is_some(),
        other => panic!("{other:?}"),
    }
}

async fn get(channel: &Channel, queue: &str) -> Option<Delivery> {
    channel
        .basic_get(queue.into(), Default::default())
        .await
        .unwrap()
        .map(|m| m.delivery)
}

async fn bodies(channel: &Channel, queue: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(delivery) = get(channel, queue).await {
        seen.push(String::from_utf8(delivery.data.to_vec()).unwrap());
        delivery.acker.ack(Default::default()).await.unwrap();
    }
    seen
}

/// Of the exception that ended the channel.
fn code(result: Result<(), lapin::Error>) -> u16 {
    match result.unwrap_err().kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("{other:?}"),
    }
}

async fn confirming(core: &Core) -> (Connection, Channel) {
    let connection = core.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_messages_bindings_and_acknowledgements_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (connection, channel) = confirming(&core).await;
    queue(&channel, "q").await;
    exchange(&channel, "x", ExchangeKind::Topic).await;
    assert!(publish(&channel, "x", "a.early", b"before the binding").await);
    bind(&channel, "q", "x", "a.#").await;
    for i in 0..5 {
        assert!(!publish(&channel, "x", "a.b", format!("m{i}").as_bytes()).await);
    }
    assert!(
        publish(&channel, "x", "other", b"unroutable").await,
        "mandatory comes back"
    );
    for _ in 0..2 {
        get(&channel, "q")
            .await
            .unwrap()
            .acker
            .ack(Default::default())
            .await
            .unwrap();
    }
    let held = get(&channel, "q").await.unwrap();
    assert_eq!(held.data.as_slice(), b"m2");
    channel
        .queue_unbind("q".into(), "x".into(), "a.#".into(), FieldTable::default())
        .await
        .unwrap();
    assert!(publish(&channel, "x", "a.b", b"after the binding").await);
    connection.close(200, "".into()).await.unwrap();
    core.stop().await;

    let core = Core::start(directory.path()).await;
    let (_connection, channel) = confirming(&core).await;
    let first = get(&channel, "q").await.unwrap();
    assert_eq!(
        first.data.as_slice(),
        b"m2",
        "what was not acknowledged is there again, in its place"
    );
    first.acker.ack(Default::default()).await.unwrap();
    assert_eq!(bodies(&channel, "q").await, ["m3", "m4"]);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_matches_twice_is_delivered_once() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (_connection, channel) = confirming(&core).await;
    queue(&channel, "q").await;
    exchange(&channel, "x", ExchangeKind::Topic).await;
    bind(&channel, "q", "x", "a.*").await;
    bind(&channel, "q", "x", "#").await;
    publish(&channel, "x", "a.b", b"once").await;
    assert_eq!(bodies(&channel, "q").await, ["once"]);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_other_protocols_reach_queues() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (_connection, channel) = confirming(&core).await;
    for name in ["by-topic", "by-exchange", "plain"] {
        queue(&channel, name).await;
    }
    exchange(&channel, "orders", ExchangeKind::Direct).await;
    bind(&channel, "by-topic", "amq.topic", "sensors.*.temp").await;
    bind(&channel, "by-exchange", "orders", "k").await;
    core.append("sensors", "sensors/line1/temp", "21").await;
    core.append("sensors", "sensors/line1/rpm", "900").await;
    core.append("orders", "k", "order").await;
    core.append("orders", "other", "no").await;
    core.append("plain", "", "to the queue of that name").await;

    let delivery = get(&channel, "by-topic").await.unwrap();
    assert_eq!(
        (delivery.exchange.as_str(), delivery.routing_key.as_str()),
        ("amq.topic", "sensors/line1/temp")
    );
    assert_eq!(delivery.properties.timestamp(), &Some(1));
    delivery.acker.ack(Default::default()).await.unwrap();
    assert!(get(&channel, "by-topic").await.is_none());
    assert_eq!(bodies(&channel, "by-exchange").await, ["order"]);
    assert_eq!(
        bodies(&channel, "plain").await,
        ["to the queue of that name"]
    );

    // An exchange of that name takes over, and a queue `orders` never sees what was published to exchange `orders`.
    queue(&channel, "orders").await;
    publish(&channel, "orders", "k", b"published").await;
    assert!(get(&channel, "orders").await.is_none());
    publish(&channel, "", "orders", b"sent").await;
    assert_eq!(bodies(&channel, "orders").await, ["sent"]);
    assert_eq!(bodies(&channel, "by-exchange").await, ["published"]);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_come_back_as_they_were_sent() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (_connection, channel) = confirming(&core).await;
    queue(&channel, "q").await;
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::Boolean(true));
    let mut headers = FieldTable::default();
    headers.insert("table".into(), AMQPValue::FieldTable(inner));
    headers.insert("n".into(), AMQPValue::LongInt(-3));
    let sent = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers)
        .with_priority(4)
        .with_delivery_mode(1)
        .with_type("t".into())
        .with_timestamp(77);
    for body in [&b""[..], &[0, 255, 0xCE, 10], &vec![7; 1024 * 1024]] {
        let confirm = channel
            .basic_publish(
                "".into(),
                "q".into(),
                Default::default(),
                body,
                sent.clone(),
            )
            .await
            .unwrap();
        confirm.await.unwrap();
        let got = get(&channel, "q").await.unwrap();
        assert_eq!((got.data.as_slice(), &got.properties), (body, &sent));
        got.acker.ack(Default::default()).await.unwrap();
    }
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefetch_bounds_what_is_out_and_a_lost_channel_gives_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (connection, channel) = confirming(&core).await;
    queue(&channel, "q").await;
    for i in 0..10 {
        publish(&channel, "", "q", format!("{i}").as_bytes()).await;
    }
    let consuming = connection.create_channel().await.unwrap();
    consuming.basic_qos(3, Default::default()).await.unwrap();
    let mut consumer = consuming
        .basic_consume(
            "q".into(),
            "c".into(),
            Default::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    for i in 0..3 {
        assert_eq!(
            consumer.next().await.unwrap().unwrap().data.as_slice(),
            i.to_string().as_bytes()
        );
    }
    let more = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await;
    assert!(more.is_err(), "a fourth was sent with three unacknowledged");
    consuming.close(200, "".into()).await.unwrap();
    let back = get(&channel, "q").await.unwrap();
    assert!(
        back.redelivered && back.data.as_slice() == b"0",
        "released to its position"
    );
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_messages_arrive_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (connection, channel) = confirming(&core).await;
    queue(&channel, "q").await;
    let consuming = connection.create_channel().await.unwrap();
    consuming.basic_qos(100, Default::default()).await.unwrap();
    let mut consumer = consuming
        .basic_consume(
            "q".into(),
            "c".into(),
            Default::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let sender = tokio::spawn(async move {
        let mut confirms = Vec::new();
        for i in 0..3_000u32 {
            confirms.push(
                channel
                    .basic_publish(
                        "".into(),
                        "q".into(),
                        Default::default(),
                        &i.to_be_bytes(),
                        BasicProperties::default(),
                    )
                    .await
                    .unwrap(),
            );
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    });
    for i in 0..3_000u32 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.data.as_slice(), i.to_be_bytes());
        delivery.acker.ack(Default::default()).await.unwrap();
    }
    sender.await.unwrap();
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_codes_of_the_specification() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (connection, channel) = confirming(&core).await;
    queue(&channel, "q").await;
    let new = || async { connection.create_channel().await.unwrap() };
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let none = FieldTable::default;
    assert_eq!(
        code(
            new()
                .await
                .queue_declare("none".into(), passive, none())
                .await
                .map(drop)
        ),
        404
    );
    assert_eq!(
        code(
            new()
                .await
                .queue_declare("q".into(), Default::default(), none())
                .await
                .map(drop)
        ),
        406
    );
    let mut ttl = FieldTable::default();
    ttl.insert(ShortString::from("x-message-ttl"), AMQPValue::LongInt(1));
    assert_eq!(
        code(
            new()
                .await
                .queue_declare("ttl".into(), durable(), ttl)
                .await
                .map(drop)
        ),
        406
    );
    assert_eq!(
        code(
            new()
                .await
                .queue_declare("amq.mine".into(), durable(), none())
                .await
                .map(drop)
        ),
        403
    );
    assert_eq!(
        code(
            new()
                .await
                .queue_bind(
                    "q".into(),
                    "nox".into(),
                    "".into(),
                    Default::default(),
                    none()
                )
                .await
        ),
        404
    );
    let other = core.connect().await;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    channel
        .queue_declare("mine".into(), exclusive, none())
        .await
        .unwrap();
    let theirs = other.create_channel().await.unwrap();
    assert_eq!(
        code(
            theirs
                .queue_purge("mine".into(), Default::default())
                .await
                .map(drop)
        ),
        405
    );
    let nowhere = Connection::connect(
        &format!("amqp://u:p@{}/elsewhere", core.address),
        ConnectionProperties::default(),
    )
    .await;
    assert_eq!(code(nowhere.map(drop)), 530);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_transaction_is_published_that_is_not_allowed_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (connection, asking) = confirming(&core).await;
    queue(&asking, "open").await;
    queue(&asking, "shut").await;
    let channel = connection.create_channel().await.unwrap();
    channel.tx_select().await.unwrap();
    for name in ["open", "shut"] {
        let properties = BasicProperties::default();
        channel
            .basic_publish("".into(), name.into(), Default::default(), b"x", properties)
            .await
            .unwrap();
    }
    // Answered behind the two: they are in the transaction.
    channel.basic_qos(1, Default::default()).await.unwrap();
    core.rule(true, "*").await;
    core.rule(false, "queue:shut").await;
    assert_eq!(code(channel.tx_commit().await), 403);
    assert!(bodies(&asking, "open").await.is_empty());
    core.rule(true, "queue:shut").await;
    assert!(bodies(&asking, "shut").await.is_empty());
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_use_a_queue_is_not_told_whether_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let core = Core::start(directory.path()).await;
    let (connection, channel) = confirming(&core).await;
    queue(&channel, "there").await;
    core.rule(true, "exchange:*").await;
    let new = || async { connection.create_channel().await.unwrap() };
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    for name in ["there", "nowhere"] {
        let none = FieldTable::default;
        let found = new().await;
        let found = found.queue_declare(name.into(), passive, none()).await;
        let purged = new().await;
        let purged = purged.queue_purge(name.into(), Default::default()).await;
        let deleted = new().await;
        let deleted = deleted.queue_delete(name.into(), Default::default()).await;
        let got = new().await;
        let got = got.basic_get(name.into(), Default::default()).await;
        let bound = new().await;
        let bound = bound
            .queue_bind(
                name.into(),
                "amq.topic".into(),
                "".into(),
                Default::default(),
                none(),
            )
            .await;
        let results = [
            found.map(drop),
            purged.map(drop),
            deleted.map(drop),
            got.map(drop),
            bound,
        ];
        assert_eq!(results.map(code), [403; 5], "{name}");
    }
    core.stop().await;
}
