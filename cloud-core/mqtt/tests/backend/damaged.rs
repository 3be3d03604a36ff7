//! Values that can not be read.

use kernel::Entry;
use mqtt_broker::Backend;
use mqtt_broker::backend::{ClientId, SavedSession};
use record::Namespace;

use super::{backend, open};

#[tokio::test]
async fn a_session_that_can_not_be_read_is_there_and_can_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    let client = ClientId::new("c");
    let key = format!("{}\0c", Namespace::default());
    for damaged in [&b""[..], b"\x01\0", b"\x02 of a later version"] {
        let damage = Entry::new().put("mqtt.sessions", key.clone(), damaged.to_vec());
        ctx.kernel.write(damage).await.unwrap();
        let stored = backend.load_session(&client).await.unwrap().unwrap();
        assert!(mqtt_session::Session::from_bytes(client.clone(), stored.bytes).is_err());
        assert!(backend.sessions().await.unwrap().is_empty());
        let next = SavedSession {
            epoch: 1,
            ..SavedSession::default()
        };
        let saved = backend.save_session(&client, next.clone()).await;
        saved.unwrap();
        assert_eq!(backend.load_session(&client).await.unwrap(), Some(next));
    }
}
