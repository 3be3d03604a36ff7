//! The backend over a real kernel in a directory of its own.

mod bounds;
mod damaged;
mod expired;
mod groups;
mod kept_wills;
mod many;
mod reading;
mod retained_due;
mod stepped;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use frontend::Context;
use kernel::{Kernel, KernelConfig, Ports};
use mqtt::CoreBackend;
use mqtt_broker::Backend;
use mqtt_broker::backend::{
    ClientId, FeedRead, Message, MessageProperties, Position, Publish, PublishError, SavedSession,
    WillOf, everything,
};
use mqtt_codec::{PacketId, QoS, TopicFilter, TopicName};
use record::{Namespace, StreamAddress, StreamName};

fn open(dir: &Path) -> Context {
    let kernel = Kernel::open(
        Ports::system(dir, Arc::new(kernel::ports::MemoryColdStore::default())).unwrap(),
        KernelConfig::default(),
    )
    .unwrap();
    Context::new(kernel, dir).unwrap()
}

fn backend(ctx: &Context) -> CoreBackend {
    CoreBackend::new(ctx.clone(), Namespace::default()).unwrap()
}

fn publish(topic: &str, payload: impl Into<Bytes>) -> Publish {
    let message = Message {
        topic: TopicName::new(topic).unwrap(),
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
        origin: None,
        number: None,
        properties: MessageProperties::default(),
    };
    Publish {
        message,
        publisher: ClientId::new("p"),
    }
}

fn retained(topic: &str, payload: &'static str) -> Publish {
    let mut publish = publish(topic, payload);
    publish.message.retain = true;
    publish
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

async fn payloads(backend: &CoreBackend, filter_text: &str) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    for (feed, end) in backend.feeds_for(&filter(filter_text)) {
        let mut at = Position::START;
        while at < end {
            let read = backend
                .read(feed, at, 64 * 1024, &everything)
                .await
                .unwrap();
            assert!(read.next > at, "a read below the end moves on");
            payloads.extend(
                read.messages
                    .into_iter()
                    .map(|(_, message)| message.payload),
            );
            at = read.next;
        }
    }
    payloads
}

#[tokio::test]
async fn messages_of_one_publisher_stay_in_order_and_share_writes_even_while_their_stream_is_created()
 {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    // Polled for the first time in this order, as the broker does; nothing is awaited in between.
    let publishes = (0..500u32).map(|n| backend.publish(publish("new/topic", n.to_string()), None));
    for result in futures_util::future::join_all(publishes).await {
        result.unwrap();
    }
    let expected: Vec<Bytes> = (0..500u32).map(|n| n.to_string().into()).collect();
    assert_eq!(payloads(&backend, "new/#").await, expected);
    let stats = ctx.kernel.stats();
    assert_eq!(stats.records_appended, 500);
    assert!(
        stats.batches_appended < 50,
        "{} batches for 500 concurrent messages",
        stats.batches_appended
    );
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientId::new("c");
    let session = SavedSession {
        epoch: 3,
        checkpoints: vec![],
        bytes: Bytes::from_static(b"state"),
    };
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
        backend
            .publish(publish("a/b", "body"), Some((client.clone(), id(7))))
            .await
            .unwrap();
        backend
            .publish(publish("a/b", ""), Some((client.clone(), id(9))))
            .await
            .unwrap();
        backend.release(&client, &[id(7)]).await.unwrap();
        backend.publish(retained("a/r", "old"), None).await.unwrap();
        backend
            .publish(retained("a/r", "kept"), None)
            .await
            .unwrap();
        backend
            .publish(retained("a/gone", "x"), None)
            .await
            .unwrap();
        backend.publish(retained("a/gone", ""), None).await.unwrap();
        backend
            .save_session(&client, session.clone())
            .await
            .unwrap();
        ctx.kernel.shutdown().await;
    }
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    assert_eq!(
        payloads(&backend, "a/#").await,
        ["body", "", "old", "kept", "x", ""]
    );
    assert_eq!(backend.unreleased(&client).await.unwrap(), [id(9)]);
    let found = backend.retained(&filter("#")).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|m| (m.topic.as_str(), m.payload.as_ref(), m.retain))
        .collect();
    assert_eq!(found, [("a/r", &b"kept"[..], true)]);
    assert_eq!(
        backend.sessions().await.unwrap(),
        [(client.clone(), session)]
    );
    backend.delete_session(&client).await.unwrap();
    assert_eq!(backend.load_session(&client).await.unwrap(), None);
    assert_eq!(backend.unreleased(&client).await.unwrap(), []);
}

#[tokio::test]
async fn packet_ids_of_qos_2_that_came_together_are_remembered_with_their_messages_and_released_together()
 {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientId::new("p");
    let numbers = [5, 1, 9, 3, 7];
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
        let mut together = vec![(publish("a/0", "first"), None)];
        for number in numbers {
            let topic = format!("{}/{number}", if number < 5 { "a" } else { "b" });
            together.push((publish(&topic, number.to_string()), Some(id(number))));
        }
        let too_large = vec![0; ctx.limits.message_bytes + 1];
        together.push((publish("a/0", too_large), Some(id(11))));
        let results = backend.publish_all(together).await;
        assert_eq!(results[..6], [(); 6].map(Ok));
        assert!(matches!(results[6], Err(PublishError::QuotaExceeded(_))));
        let unknown = id(400);
        let released = backend.release(&client, &[id(9), unknown, id(1)]).await;
        released.unwrap();
        ctx.kernel.shutdown().await;
    }
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    assert_eq!(payloads(&backend, "a/#").await, ["first", "1", "3"]);
    assert_eq!(payloads(&backend, "b/#").await, ["5", "9", "7"]);
    let mut left = backend.unreleased(&client).await.unwrap();
    left.sort_unstable();
    assert_eq!(left, [id(3), id(5), id(7)]);
}

#[tokio::test]
async fn a_session_is_never_replaced_by_one_of_a_lower_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    let client = ClientId::new("c");
    let session = |epoch| SavedSession {
        epoch,
        checkpoints: vec![],
        bytes: Bytes::new(),
    };
    for (epoch, taken) in [(5, true), (5, true), (4, false), (6, true), (5, false)] {
        assert_eq!(
            backend.save_session(&client, session(epoch)).await.is_ok(),
            taken,
            "epoch {epoch}"
        );
    }
    assert_eq!(
        backend.load_session(&client).await.unwrap().unwrap().epoch,
        6
    );
}

#[tokio::test]
async fn what_may_not_be_stored_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut ctx = open(dir.path());
    ctx.streams.auto_create = false;
    Arc::make_mut(&mut ctx.limits).message_bytes = 100;
    let backend = backend(&ctx);
    let error = backend
        .publish(publish("unknown/1", "x"), None)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PublishError::TopicNameInvalid(reason) if reason.contains("auto_create")),
        "{error}"
    );
    let error = backend
        .publish(publish("a/1", vec![0; 101]), None)
        .await
        .unwrap_err();
    assert!(matches!(error, PublishError::QuotaExceeded(_)), "{error}");
    assert!(ctx.kernel.streams(&Namespace::default()).is_empty());
}

/// So many, and what else is there at once behind them.
async fn taken(
    backend: &CoreBackend,
    share: &str,
    client: &ClientId,
    expected: usize,
) -> Vec<String> {
    let share = filter(share);
    let mut taken = Vec::new();
    loop {
        let patience = if taken.len() < expected { 30_000 } else { 300 };
        let patience = std::time::Duration::from_millis(patience);
        let take = backend.shared_take(&share, client, 100, 1024 * 1024);
        let Ok(result) = tokio::time::timeout(patience, take).await else {
            break;
        };
        let payloads = result
            .unwrap()
            .into_iter()
            .map(|m| m.message.payload.clone());
        taken.extend(payloads.map(|payload| String::from_utf8(payload.to_vec()).unwrap()));
    }
    taken
}

#[tokio::test]
async fn a_group_goes_on_after_a_restart_and_what_a_stored_session_has_goes_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (ClientId::new("a"), ClientId::new("b"));
    let share = filter("$share/g/t/+");
    let held;
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
        backend
            .publish(publish("t/1", "before"), None)
            .await
            .unwrap();
        backend.shared_join(&share, &a, vec![]).await.unwrap();
        backend.shared_join(&share, &b, vec![]).await.unwrap();
        for n in 0..10 {
            backend
                .publish(publish("t/1", n.to_string()), None)
                .await
                .unwrap();
        }
        let first = backend.shared_take(&share, &a, 2, 1024).await.unwrap();
        let places = |taken: &[mqtt_broker::backend::Taken]| {
            taken.iter().map(|m| (m.feed, m.at)).collect::<Vec<_>>()
        };
        backend
            .shared_settle(&share, &a, places(&first))
            .await
            .unwrap();
        let second = backend.shared_take(&share, &a, 2, 1024).await.unwrap();
        assert_eq!(second[0].message.payload, "2");
        held = places(&second);
        assert_eq!(taken(&backend, "$share/g/t/+", &b, 6).await.len(), 6);
        // What b had goes back when its connection ends; a is killed with the process.
        backend.shared_release(&share, &b, None).await.unwrap();
        ctx.kernel.shutdown().await;
    }
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    backend.shared_join(&share, &a, held.clone()).await.unwrap();
    backend.shared_recovered().await.unwrap();
    backend.shared_join(&share, &b, vec![]).await.unwrap();
    let rest: Vec<String> = (4..10).map(|n| n.to_string()).collect();
    assert_eq!(taken(&backend, "$share/g/t/+", &b, 6).await, rest);
    backend
        .shared_settle(&share, &a, held[..1].to_vec())
        .await
        .unwrap();
    backend.shared_release(&share, &a, None).await.unwrap();
    assert_eq!(taken(&backend, "$share/g/t/+", &b, 1).await, ["3"]);
}

#[tokio::test]
async fn what_a_session_has_of_a_group_that_it_has_left_goes_to_nobody_else_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (ClientId::new("a"), ClientId::new("b"));
    let share = filter("$share/g/t/+");
    let held: Vec<_>;
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
        backend.shared_join(&share, &a, vec![]).await.unwrap();
        backend.shared_join(&share, &b, vec![]).await.unwrap();
        for n in 0..4 {
            backend
                .publish(publish("t/1", n.to_string()), None)
                .await
                .unwrap();
        }
        let taken = backend.shared_take(&share, &a, 2, 1024).await.unwrap();
        held = taken.iter().map(|m| (m.feed, m.at)).collect();
        backend.shared_leave(&share, &a).await.unwrap();
        ctx.kernel.shutdown().await;
    }
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    backend.shared_join(&share, &b, vec![]).await.unwrap();
    // As the broker does when all members are there.
    backend.shared_join(&share, &a, held.clone()).await.unwrap();
    backend.shared_leave(&share, &a).await.unwrap();
    backend.shared_recovered().await.unwrap();
    assert_eq!(taken(&backend, "$share/g/t/+", &b, 2).await, ["2", "3"]);
    backend
        .shared_settle(&share, &a, held[..1].to_vec())
        .await
        .unwrap();
    backend.shared_release(&share, &a, None).await.unwrap();
    assert_eq!(taken(&backend, "$share/g/t/+", &b, 1).await, ["1"]);
}

#[tokio::test]
async fn a_group_whose_members_did_not_come_back_is_gone_and_a_new_stream_is_read_from_its_beginning()
 {
    let dir = tempfile::tempdir().unwrap();
    let (a, share) = (ClientId::new("a"), filter("$share/g/#"));
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
        backend.shared_join(&share, &a, vec![]).await.unwrap();
        backend.publish(publish("one/x", "1"), None).await.unwrap();
        backend.publish(publish("two/x", "2"), None).await.unwrap();
        backend
            .publish(publish("$hidden/x", "3"), None)
            .await
            .unwrap();
        assert_eq!(taken(&backend, "$share/g/#", &a, 2).await, ["1", "2"]);
        ctx.kernel.shutdown().await;
    }
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    assert_eq!(ctx.kernel.queues().len(), 1);
    backend.shared_recovered().await.unwrap();
    assert!(ctx.kernel.queues().is_empty());
    backend.shared_join(&share, &a, vec![]).await.unwrap();
    assert!(taken(&backend, "$share/g/#", &a, 0).await.is_empty());
    backend.shared_leave(&share, &a).await.unwrap();
    assert!(ctx.kernel.queues().is_empty());
}

#[tokio::test]
async fn a_delayed_message_survives_a_restart_and_is_published_once() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientId::new("c");
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
        let packet = Some((client.clone(), id(5)));
        let later = backend.publish_later(publish("d/x", "later"), 200, packet);
        later.await.unwrap();
        let far = backend.publish_later(publish("d/x", "far"), 3_600_000, None);
        far.await.unwrap();
        assert_eq!(backend.unreleased(&client).await.unwrap(), [id(5)]);
        ctx.kernel.shutdown().await;
    }
    let ctx = open(dir.path());
    let backend = Arc::new(backend(&ctx));
    let run = tokio::spawn(backend.clone().publish_delayed());
    let now = backend.publish_later(retained("d/y", "now"), 0, None);
    now.await.unwrap();
    while payloads(&backend, "d/#").await.len() < 2 {
        tokio::task::yield_now().await;
    }
    let mut published = payloads(&backend, "d/#").await;
    published.sort();
    assert_eq!(published, ["later", "now"]);
    assert_eq!(backend.retained(&filter("d/y")).await.unwrap().len(), 1);
    assert_eq!(ctx.kernel.table_len("mqtt.delayed"), 1, "the far one");
    ctx.shutdown.cancel();
    run.await.unwrap();
}

#[tokio::test]
async fn a_will_is_published_and_its_session_settled_in_one_write() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    let client = ClientId::new("p");
    let of = WillOf {
        session: 1,
        connection: 3,
    };
    let session = SavedSession {
        epoch: 3,
        checkpoints: vec![],
        bytes: Bytes::from_static(b"without its will"),
    };
    // The stream is there.
    backend
        .publish(publish("w/x", "before"), None)
        .await
        .unwrap();
    let entries = ctx.kernel.stats().entries;
    let saved = backend.publish_will(publish("w/x", "kept"), of, Some(session.clone()));
    saved.await.unwrap();
    assert_eq!(ctx.kernel.stats().entries, entries + 1);
    let stored = backend.load_session(&client).await.unwrap();
    assert_eq!(stored, Some(session.clone()));
    // Neither is done without the other.
    let too_large = publish("w/x", vec![0; ctx.limits.message_bytes + 1]);
    backend.publish_will(too_large, of, None).await.unwrap_err();
    let older = SavedSession {
        epoch: 2,
        ..session.clone()
    };
    let stale = backend.publish_will(publish("w/x", "stale"), of, Some(older));
    stale.await.unwrap_err();
    let stored = backend.load_session(&client).await.unwrap();
    assert_eq!(stored, Some(session));
    let ended = backend.publish_will(publish("w/x", "ended"), of, None);
    ended.await.unwrap();
    assert_eq!(ctx.kernel.stats().entries, entries + 2);
    assert_eq!(backend.load_session(&client).await.unwrap(), None);
    assert_eq!(payloads(&backend, "w/#").await, ["before", "kept", "ended"]);
}

#[tokio::test]
async fn retained_messages_above_the_limits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx).with_retained_limits(mqtt::RetainedLimits {
        messages: 2,
        bytes: 4,
        ..Default::default()
    });
    for (topic, payload, fits) in [
        ("r/1", "one", true),
        ("r/2", "two", true),
        ("r/3", "many", false),
        ("r/1", "new", true),
        ("r/1", "large", false),
        ("r/1", "", true),
        ("r/3", "many", true),
    ] {
        let result = backend.publish(retained(topic, payload), None).await;
        assert_eq!(result.is_ok(), fits, "{topic} {payload}: {result:?}");
        let quota = matches!(result, Err(PublishError::QuotaExceeded(_)));
        assert_eq!(quota, !fits);
    }
    assert_eq!(backend.retained_count(), Some(2));
}

#[tokio::test]
async fn of_many_retained_messages_at_a_time_as_many_are_taken_as_there_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let limits = mqtt::RetainedLimits {
        messages: 10,
        ..Default::default()
    };
    let backend = backend(&ctx).with_retained_limits(limits);
    // Half of them to the topic of another.
    let publishes =
        (0..100u32).map(|n| backend.publish(retained(&format!("many/{}", n / 2), "x"), None));
    let results = futures_util::future::join_all(publishes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
    assert_eq!(backend.retained_count(), Some(10));
}

#[tokio::test]
async fn a_delayed_message_that_is_one_too_many_when_it_is_due_is_published_and_not_retained() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let limits = mqtt::RetainedLimits {
        messages: 1,
        ..Default::default()
    };
    let backend = Arc::new(backend(&ctx).with_retained_limits(limits));
    let later = backend.publish_later(retained("d/later", "x"), 0, None);
    later.await.unwrap();
    backend.publish(retained("d/now", "y"), None).await.unwrap();
    let one_more = backend.publish_later(retained("d/more", "z"), 0, None);
    assert!(one_more.await.is_err());
    let run = tokio::spawn(backend.clone().publish_delayed());
    while ctx.kernel.table_len("mqtt.delayed") > 0 {
        tokio::task::yield_now().await;
    }
    let mut published = payloads(&backend, "d/#").await;
    published.sort();
    assert_eq!(published, ["x", "y"]);
    let kept = backend.retained(&filter("d/#")).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].topic.as_str(), "d/now");
    ctx.shutdown.cancel();
    run.await.unwrap();
}
