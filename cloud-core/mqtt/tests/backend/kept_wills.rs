//! Wills that found no room.

use std::sync::Arc;

use bytes::Bytes;
use mqtt_broker::Backend;
use mqtt_broker::backend::{ClientId, Publish, Rest, SavedSession};

use super::{backend, open, payloads, publish};

fn will(payload: &'static str) -> Publish {
    Publish {
        publisher: ClientId::new("c"),
        ..publish("w/x", payload)
    }
}

fn session(epoch: u64) -> SavedSession {
    SavedSession {
        epoch,
        checkpoints: vec![],
        bytes: Bytes::from_static(b"without its will"),
    }
}

#[tokio::test]
async fn one_is_kept_in_one_write_with_what_becomes_of_its_session_and_published_once() {
    let dir = tempfile::tempdir().unwrap();
    let client = ClientId::new("c");
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
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
        assert!(payloads(&backend, "w/#").await.is_empty());
        ctx.kernel.shutdown().await;
    }
    let ctx = open(dir.path());
    let backend = Arc::new(backend(&ctx));
    let run = tokio::spawn(backend.clone().publish_delayed());
    while ctx.kernel.table_len("mqtt.delayed") > 0 {
        tokio::task::yield_now().await;
    }
    let mut payloads = payloads(&backend, "w/#").await;
    payloads.sort();
    assert_eq!(payloads, ["again", "deleted", "of none", "saved"]);
    let stored = backend.load_session(&client).await.unwrap();
    assert_eq!(stored, Some(session(5)));
    ctx.shutdown.cancel();
    run.await.unwrap();
}
