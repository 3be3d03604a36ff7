//! Tokens, certificates, and who is let in.

use std::time::Duration;

use sync_quic::{
    CloseCode, ConnectError, EnrolError, EnrolRefusal, Event, HelloRefusal, HelloRefused, Identity,
    Lost, Token,
};

use crate::core::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_expire_are_used_up_and_must_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let refusal = async |token: &Token, name: &str| match enrol(&core.address(), token, name).await
    {
        Err(EnrolError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let expired = core.token(|options| options.ttl = Duration::ZERO).await;
    assert_eq!(refusal(&expired, "e1").await, EnrolRefusal::ExpiredToken);
    let good = core.token(|_| {}).await;
    let wrong = Token {
        secret: expired.secret.clone(),
        ..good.clone()
    };
    assert_eq!(refusal(&wrong, "e1").await, EnrolRefusal::InvalidToken);
    let unknown = Token {
        id: "AAAA".to_owned(),
        ..good.clone()
    };
    assert_eq!(refusal(&unknown, "e1").await, EnrolRefusal::InvalidToken);
    for name in ["", "a/b", "a+", "ü", ".."] {
        assert_eq!(
            refusal(&good, name).await,
            EnrolRefusal::InvalidName,
            "{name:?}"
        );
    }
    let once = core
        .token(|options| {
            options.single_use = true;
            options
                .labels
                .insert("site".to_owned(), "berlin".to_owned());
        })
        .await;
    enrol(&core.address(), &once, "e1").await.unwrap();
    assert_eq!(refusal(&once, "e2").await, EnrolRefusal::UsedToken);
    assert_eq!(core.sync.edge("e1").unwrap().labels["site"], "berlin");
    for name in ["e2", "e3"] {
        enrol(&core.address(), &good, name).await.unwrap();
    }
    assert_eq!(core.sync.edges().len(), 3);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_again_voids_the_former_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let old = core.enrol("e1").await;
    let (_connection, mut events) = core.connect(&old, PRODUCER).await.unwrap();
    let new = core.enrol("e1").await;
    let Event::Closed(Lost::ByCore {
        code: CloseCode::Revoked,
        ..
    }) = events.next().await
    else {
        panic!("still open")
    };
    let refused = core.connect(&old, PRODUCER).await.err();
    assert!(
        matches!(
            refused,
            Some(ConnectError::Refused(HelloRefused {
                code: HelloRefusal::CertificateReplaced,
                ..
            }))
        ),
        "{refused:?}"
    );
    core.connect(&new, PRODUCER).await.unwrap();

    // A copied data directory shows itself by its producer id.
    let other = core.enrol("e2").await;
    let refused = core.connect(&other, PRODUCER).await.err();
    assert!(
        matches!(
            refused,
            Some(ConnectError::Refused(HelloRefused {
                code: HelloRefusal::ProducerTaken,
                ..
            }))
        ),
        "{refused:?}"
    );
    // And nobody connects under another's name.
    let disguised = Identity {
        edge: "e1".to_owned(),
        ..other
    };
    assert!(core.connect(&disguised, PRODUCER + 0x100).await.is_err());
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    let (_first, mut first_events) = core.connect(&identity, PRODUCER).await.unwrap();
    let (second, mut second_events) = core.connect(&identity, PRODUCER).await.unwrap();
    let Event::Closed(Lost::ByCore {
        code: CloseCode::TakenOver,
        ..
    }) = first_events.next().await
    else {
        panic!("two")
    };
    second
        .send_batch(frame(1, &batch(PRODUCER, 0, &[record("plant/a", b"x")])))
        .await
        .unwrap();
    assert_eq!(second_events.next().await, Event::Ack { lane: 0, frame: 1 });
    assert!(core.sync.edge("e1").unwrap().connected_since_ms.is_some());
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_survives_and_is_never_replaced_silently() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    let identity = core.enrol("e1").await;
    core.stop().await;

    let core = Core::start(dir.path(), "127.0.0.1:0").await;
    core.connect(&identity, PRODUCER).await.unwrap();
    let (ctx, file) = (core.ctx.clone(), dir.path().join("sync-ca.pem"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(&file).unwrap();
    let error = cloud_sync::start(
        ctx,
        "127.0.0.1:0".parse().unwrap(),
        cloud_sync::TlsListen::Same,
        TIMING,
    )
    .err()
    .unwrap()
    .to_string();
    assert!(
        error.contains("missing") && error.contains("backup"),
        "{error}"
    );
    core.stop().await;
}
