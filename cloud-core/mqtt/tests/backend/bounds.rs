//! What is kept does not grow without end.

use super::*;

#[tokio::test]
async fn all_retained_messages_have_a_bound_in_bytes_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let large: &'static str = "x".repeat(600).leak();
    let limits = mqtt::RetainedLimits {
        all_bytes: 1_000,
        ..Default::default()
    };
    for restarted in [false, true] {
        let ctx = open(dir.path());
        let backend = backend(&ctx).with_retained_limits(limits);
        if !restarted {
            backend.publish(retained("r/1", large), None).await.unwrap();
        }
        let one_more = backend.publish(retained("r/2", large), None).await;
        assert!(matches!(one_more, Err(PublishError::QuotaExceeded(_))));
        backend.publish(retained("r/1", large), None).await.unwrap();
    }
}

#[tokio::test]
async fn packet_ids_of_clients_without_a_session_are_deleted_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let session = SavedSession {
        epoch: 1,
        checkpoints: vec![],
        bytes: Bytes::new(),
    };
    let names = ["clean", "stored", "clean 2"].map(ClientId::new);
    {
        let ctx = open(dir.path());
        let backend = backend(&ctx);
        backend.save_session(&names[1], session).await.unwrap();
        for client in &names {
            for n in 1..1_000 {
                let exactly_once = Some((client.clone(), id(n)));
                backend
                    .publish(publish("t", "x"), exactly_once)
                    .await
                    .unwrap();
            }
        }
    }
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    backend.forget_unreleased_of_nobody().await.unwrap();
    for (client, left) in names.iter().zip([0, 999, 0]) {
        assert_eq!(
            backend.unreleased(client).await.unwrap().len(),
            left,
            "{client}"
        );
    }
    assert_eq!(ctx.kernel.table_len("mqtt.unreleased"), 999);
}
