use std::path::Path;

use bytes::Bytes;
use mqtt_broker::backend::{MessageProperties, Rest};
use mqtt_broker::extra::RetainedLimits;
use mqtt_broker::later::Later;
use settings::Size;
use store::Config;

use super::*;
use crate::clock::Clock;
use crate::link::Link;
use crate::rules::Rules;
use crate::{lanes, outbox};

fn open(dir: &Path) -> EdgeBackend {
    let lanes = lanes::lanes(&[], Size(1 << 24)).unwrap();
    let rules = Arc::new(Rules::new(&[], &lanes, "gw-7").unwrap());
    let config = Config {
        lanes: outbox::logs(&lanes, &rules, Size(1 << 20)),
        ..Config::new(1)
    };
    let store = Store::open_in(dir, config).unwrap();
    let store = Arc::new(store);
    let clock = Arc::new(Clock::open(dir, &store).unwrap());
    let outbox = Outbox::new(
        store.clone(),
        rules,
        &lanes,
        Arc::new(Link::default()),
        clock,
    );
    EdgeBackend {
        store,
        outbox: Arc::new(outbox.unwrap()),
        disk_failed: CancellationToken::new(),
        shares: MemoryShares::default(),
        retained_room: RetainedRoom::new(RetainedLimits::default()),
        sweeper: Sweeper::default(),
    }
}

fn will(payload: &'static str) -> Publish {
    Publish {
        message: Message {
            topic: TopicName::new("w/x").unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            origin: None,
            number: None,
            properties: MessageProperties::default(),
        },
        publisher: ClientId::new("c"),
    }
}

fn session(epoch: u64) -> SavedSession {
    SavedSession {
        epoch,
        checkpoints: Vec::new(),
        bytes: Bytes::from_static(b"without its will"),
    }
}

async fn published(backend: &EdgeBackend) -> Vec<String> {
    let feed = feed_of(LogId::Outbox(Lane::DEFAULT));
    let (mut from, mut all) = (Position(0), Vec::new());
    loop {
        let read = backend
            .read(feed, from, 1 << 20, &everything)
            .await
            .unwrap();
        if read.next == from {
            return all;
        }
        from = read.next;
        let payloads = read
            .messages
            .into_iter()
            .map(|(_, message)| message.payload);
        all.extend(payloads.map(|payload| String::from_utf8(payload.to_vec()).unwrap()));
    }
}

#[tokio::test]
async fn a_will_whose_session_a_crash_kept_from_being_told_is_published_once() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientId::new("c");
    let first = WillOf {
        session: 7,
        connection: 3,
    };
    {
        let backend = open(dir.path());
        backend.save_session(&client, session(3)).await.unwrap();
        // As far as a crash lets it come.
        let this = WillRef {
            client: "c",
            session: first.session,
            connection: first.connection,
        };
        let message = NewMessage {
            packet: this.packet(),
            ..backend.outbox.message(&will("first"), None).unwrap()
        };
        backend.store.publish(message).await.unwrap();
        backend.store.close();
    }
    let backend = open(dir.path());
    let again = backend.publish_will(will("first"), first, Some(session(3)));
    again.await.unwrap();
    assert_eq!(published(&backend).await, ["first"]);
    for (connection, rest) in [(5, Some(session(5))), (6, None)] {
        let of = WillOf {
            session: 7,
            connection,
        };
        let later = backend.publish_will(will("later"), of, rest.clone());
        later.await.unwrap();
        assert_eq!(backend.load_session(&client).await.unwrap(), rest);
    }
    assert_eq!(published(&backend).await, ["first", "later", "later"]);
    backend.store.close();
}

/// Publishes what is due until nothing is.
async fn publish_due(backend: &EdgeBackend) {
    let stop = CancellationToken::new();
    let waiting = async {
        while backend.store.delayed_len() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.cancel();
    };
    tokio::join!(backend.publish_delayed(stop.clone()), waiting);
}

#[tokio::test]
async fn a_will_that_finds_no_room_is_kept_with_what_becomes_of_its_session_and_published_once() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientId::new("c");
    {
        let backend = open(dir.path());
        for (payload, rest) in [
            ("of none", Rest::Nothing),
            ("saved", Rest::Save(session(3))),
            ("deleted", Rest::Delete),
        ] {
            if rest == Rest::Delete {
                let stored = backend.load_session(&client).await.unwrap();
                assert_eq!(stored, Some(session(3)));
            }
            backend.keep_will(will(payload), rest).await.unwrap();
        }
        assert_eq!(backend.load_session(&client).await.unwrap(), None);
        // One that has been taken over changes nothing.
        backend.save_session(&client, session(5)).await.unwrap();
        let stale = backend.keep_will(will("stale"), Rest::Save(session(4)));
        stale.await.unwrap_err();
        assert_eq!(backend.store.delayed_len(), 3);
        assert!(published(&backend).await.is_empty());
        backend.store.close();
    }
    let backend = open(dir.path());
    publish_due(&backend).await;
    assert_eq!(published(&backend).await, ["of none", "saved", "deleted"]);
    let stored = backend.load_session(&client).await.unwrap();
    assert_eq!(stored, Some(session(5)));
    backend.store.close();
}

fn retained(topic: &str, expires_at: Option<i64>) -> Publish {
    let will = will("retained");
    let message = Message {
        topic: TopicName::new(topic).unwrap(),
        retain: true,
        expires_at: expires_at.map(Expiry::from),
        ..will.message
    };
    Publish { message, ..will }
}

#[tokio::test]
async fn a_retained_message_that_has_expired_makes_room_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let limits = RetainedLimits {
        messages: 1,
        ..RetainedLimits::default()
    };
    let backend = EdgeBackend {
        retained_room: RetainedRoom::new(limits),
        ..open(dir.path())
    };
    let now_ms = backend.now_ms();
    for (publish, is_taken) in [
        (retained("r/1", Some(now_ms - 1)), true),
        (retained("r/2", Some(now_ms + 3_600_000)), true),
        (retained("r/3", None), false),
    ] {
        backend.make_retained_room(&publish.message).await;
        let mut publish = publish;
        // Acknowledged when it is in the ledger as well.
        publish.message.qos = QoS::AtLeastOnce;
        let taken = backend.publish(publish, None).await;
        assert_eq!(taken.is_ok(), is_taken, "{taken:?}");
    }
    assert_eq!(backend.retained_count(), Some(1));
    assert_eq!(published(&backend).await, ["retained", "retained"]);
    backend.store.close();
}

#[tokio::test]
async fn a_delayed_message_that_is_published_late_has_all_of_its_time_and_a_will_has_not() {
    const LATE: i64 = 170_000;
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    let at = backend.now_ms() + 90_000;
    let expiring = |payload| {
        let mut publish = will(payload);
        publish.message.expires_at = Some(at.into());
        publish
    };
    let due_at = |backend: &EdgeBackend| backend.due(0).unwrap().next_ms.unwrap();
    let late = |backend: &EdgeBackend| {
        let mut due = backend.due(due_at(backend) + LATE).unwrap();
        let one = due.messages.remove(0);
        let message = one.publish.unwrap().message;
        (one.key, message.expires_at.unwrap().at())
    };
    let later = backend.publish_later(expiring("later"), 60_000, None);
    later.await.unwrap();
    let (key, expires_at) = late(&backend);
    assert_eq!(expires_at, at + LATE);
    backend.forget_due(&key).await.unwrap();
    let kept = backend.keep_will(expiring("a will"), Rest::Nothing);
    kept.await.unwrap();
    assert_eq!(late(&backend).1, at);
    backend.store.close();
}
