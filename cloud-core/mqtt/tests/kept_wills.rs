//! Wills that found no room, over a real kernel in a directory of its own.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use frontend::Context;
use kernel::{Kernel, KernelConfig, Ports};
use mqtt::CoreBackend;
use mqtt_broker::Backend;
use mqtt_broker::backend::{
    ClientId, Message, MessageProperties, Position, Publish, Rest, SavedSession,
};
use mqtt_codec::{QoS, TopicFilter, TopicName};
use record::Namespace;

fn open(dir: &Path) -> (Context, Arc<CoreBackend>) {
    let cold = Arc::new(kernel::ports::MemoryColdStore::default());
    let ports = Ports::system(dir, cold).unwrap();
    let kernel = Kernel::open(ports, KernelConfig::default()).unwrap();
    let ctx = Context::new(kernel, dir).unwrap();
    let backend = CoreBackend::new(ctx.clone(), Namespace::default()).unwrap();
    (ctx, Arc::new(backend))
}

fn will(payload: &'static str) -> Publish {
    let message = Message {
        topic: TopicName::new("w/x").unwrap(),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
        origin: None,
        number: None,
        properties: MessageProperties::default(),
    };
    Publish {
        message,
        publisher: ClientId::new("c"),
    }
}

fn session(epoch: u64) -> SavedSession {
    SavedSession {
        epoch,
        checkpoints: vec![],
        bytes: Bytes::from_static(b"without its will"),
    }
}

async fn published(backend: &CoreBackend) -> Vec<Bytes> {
    let filter = TopicFilter::new("w/#").unwrap();
    let mut payloads = Vec::new();
    for (feed, end) in backend.feeds_for(&filter) {
        let mut at = Position::START;
        while at < end {
            let read = backend.read(feed, at, 64 * 1024).await.unwrap();
            let messages = read.messages.into_iter();
            payloads.extend(messages.map(|(_, message)| message.payload));
            at = read.next;
        }
    }
    payloads
}

#[tokio::test]
async fn one_is_kept_in_one_write_with_what_becomes_of_its_session_and_published_once() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientId::new("c");
    {
        let (ctx, backend) = open(dir.path());
        for (payload, rest, left) in [
            ("of none", Rest::Nothing, None),
            ("saved", Rest::Save(session(3)), Some(session(3))),
            ("deleted", Rest::Delete, None),
            ("again", Rest::Save(session(5)), Some(session(5))),
        ] {
            let entries = ctx.kernel.stats().entries;
            backend.keep_will(will(payload), rest).await.unwrap();
            assert_eq!(ctx.kernel.stats().entries, entries + 1, "{payload}");
            let stored = backend.load_session(&client).await.unwrap();
            assert_eq!(stored, left, "{payload}");
        }
        // One that has been taken over changes nothing.
        let stale = backend.keep_will(will("stale"), Rest::Save(session(4)));
        stale.await.unwrap_err();
        assert!(published(&backend).await.is_empty());
        ctx.kernel.shutdown().await;
    }
    let (ctx, backend) = open(dir.path());
    let run = tokio::spawn(backend.clone().publish_delayed());
    while ctx.kernel.table_len("mqtt.delayed") > 0 {
        tokio::task::yield_now().await;
    }
    let mut payloads = published(&backend).await;
    payloads.sort();
    assert_eq!(payloads, ["again", "deleted", "of none", "saved"]);
    let stored = backend.load_session(&client).await.unwrap();
    assert_eq!(stored, Some(session(5)));
    ctx.shutdown.cancel();
    run.await.unwrap();
}
