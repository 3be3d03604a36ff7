//! The suite of the port: every cold store has to pass it, the ones of the kernel and ours alike.

use std::sync::Arc;

use crate::support;
use crate::support::azure_server::{AzureServer, CONTAINER};
use crate::support::{pattern, servers};
use bytes::Bytes;
use cold_store::{Checked, check, open};
use kernel::ports::MemoryColdStore;
use kernel::ports::cold::{ColdError, ColdStore, MIN_PART_BYTES, Upload};

type Store = Arc<dyn ColdStore>;

async fn write(store: &Store, key: &str, parts: &[Vec<u8>]) {
    let mut upload = store.upload(key).await.unwrap();
    for part in parts {
        // In two pieces, as batches come.
        let (first, second) = part.split_at(part.len() / 3);
        let pieces = vec![
            Bytes::copy_from_slice(first),
            Bytes::copy_from_slice(second),
        ];
        upload.part(pieces).await.unwrap();
    }
    upload.finish().await.unwrap();
}

async fn read(store: &Store, key: &str) -> Vec<u8> {
    let size = store.size(key).await.unwrap();
    store.get(key, 0..size).await.unwrap().to_vec()
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    let found = store.list(prefix).await.unwrap();
    let mut keys: Vec<String> = found.into_iter().map(|o| o.key).collect();
    keys.sort();
    keys
}

async fn small_objects(store: &Store) {
    let first = Bytes::from_static(b"first");
    store.create("log/epochs/1", first.clone()).await.unwrap();
    let again = store.create("log/epochs/1", Bytes::from_static(b"second"));
    assert_eq!(
        again.await,
        Err(ColdError::Exists("log/epochs/1".to_owned()))
    );
    assert_eq!(read(store, "log/epochs/1").await, b"first");
    store
        .create("log/epochs/empty", Bytes::new())
        .await
        .unwrap();
    assert_eq!(store.size("log/epochs/empty").await, Ok(0));
    assert_eq!(store.get("log/epochs/empty", 0..0).await, Ok(Bytes::new()));
}

async fn only_one_of_many_creates(store: &Store) {
    let tries = (0..8).map(|number: u8| {
        let store = store.clone();
        tokio::spawn(async move {
            let body = Bytes::copy_from_slice(&[number; 64]);
            (number, store.create("log/epochs/race", body).await)
        })
    });
    let mut winners = Vec::new();
    for task in tries.collect::<Vec<_>>() {
        match task.await.unwrap() {
            (number, Ok(())) => winners.push(number),
            (_, Err(ColdError::Exists(_))) => {}
            (number, other) => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(read(store, "log/epochs/race").await, [winners[0]; 64]);
}

async fn large_objects(store: &Store) {
    let parts = [
        pattern(MIN_PART_BYTES, 1),
        pattern(MIN_PART_BYTES + 77, 2),
        pattern(1000, 3),
    ];
    let whole = parts.concat();
    let key = "log/segments/0000000100000001.segment";
    write(store, key, &parts).await;
    assert_eq!(store.size(key).await, Ok(whole.len() as u64));
    assert!(read(store, key).await == whole);
    let borders = [
        0..1,
        0..MIN_PART_BYTES,
        MIN_PART_BYTES - 1..MIN_PART_BYTES + 1,
        MIN_PART_BYTES * 2..MIN_PART_BYTES * 2 + 100,
        whole.len() - 1..whole.len(),
        whole.len()..whole.len(),
    ];
    for range in borders {
        let wanted = range.start as u64..range.end as u64;
        let got = store.get(key, wanted).await.unwrap();
        assert!(got == whole[range.clone()], "{range:?}");
    }
    let size = whole.len() as u64;
    for range in [
        0..size + 1,
        size..size + 1,
        size + 5..size + 9,
        size - 1..size + 1,
    ] {
        let got = store.get(key, range.clone()).await;
        assert!(
            matches!(got, Err(ColdError::Refused(_))),
            "{range:?}: {got:?}"
        );
    }
}

async fn small_and_empty_uploads(store: &Store) {
    write(store, "log/segments/small.segment", &[pattern(10, 5)]).await;
    assert_eq!(
        read(store, "log/segments/small.segment").await,
        pattern(10, 5)
    );
    write(store, "log/segments/empty.segment", &[]).await;
    assert_eq!(store.size("log/segments/empty.segment").await, Ok(0));
}

async fn unfinished_uploads_are_not_seen(store: &Store) {
    let key = "log/segments/never.segment";
    let mut upload: Box<dyn Upload> = store.upload(key).await.unwrap();
    let part = Bytes::from(pattern(MIN_PART_BYTES, 9));
    upload.part(vec![part.clone()]).await.unwrap();
    assert!(matches!(store.size(key).await, Err(ColdError::NotFound(_))));
    assert!(!keys(store, "log/segments/").await.contains(&key.to_owned()));
    upload.abort().await.unwrap();
    assert!(matches!(store.size(key).await, Err(ColdError::NotFound(_))));

    let mut dropped = store.upload(key).await.unwrap();
    dropped.part(vec![part]).await.unwrap();
    drop(dropped);
    assert!(matches!(store.size(key).await, Err(ColdError::NotFound(_))));
}

async fn what_is_not_there(store: &Store) {
    let missing = "log/segments/missing.segment";
    assert_eq!(
        store.size(missing).await,
        Err(ColdError::NotFound(missing.to_owned()))
    );
    assert_eq!(
        store.get(missing, 0..10).await,
        Err(ColdError::NotFound(missing.to_owned()))
    );
    assert_eq!(store.delete(missing).await, Ok(()));
    assert_eq!(store.list("nobody/segments/").await, Ok(Vec::new()));
}

async fn lists_and_deletes(store: &Store) {
    for number in 0..20 {
        let key = format!("other/segments/{number:02}.segment");
        store
            .create(&key, Bytes::from(vec![1; number]))
            .await
            .unwrap();
    }
    // A key whose first letters are the prefix's belongs to somebody else.
    store
        .create("other/segments-old/x", Bytes::new())
        .await
        .unwrap();
    let found = store.list("other/segments/").await.unwrap();
    assert_eq!(found.len(), 20, "{found:?}");
    for object in &found {
        let number: u64 = object.key["other/segments/".len()..][..2].parse().unwrap();
        assert_eq!(object.bytes, number);
    }
    store.delete("other/segments/07.segment").await.unwrap();
    store.delete("other/segments/07.segment").await.unwrap();
    let left = keys(store, "other/segments/").await;
    assert!(left.len() == 19 && !left.contains(&"other/segments/07.segment".to_owned()));
    // Without a prefix: whatever there is.
    let all = keys(store, "").await;
    assert!(left.iter().all(|key| all.contains(key)));
    assert!(all.contains(&"other/segments-old/x".to_owned()));
}

async fn suite(store: Store) {
    small_objects(&store).await;
    only_one_of_many_creates(&store).await;
    large_objects(&store).await;
    small_and_empty_uploads(&store).await;
    unfinished_uploads_are_not_seen(&store).await;
    what_is_not_there(&store).await;
    lists_and_deletes(&store).await;
    assert_eq!(check(&*store).await, Ok(Checked { exclusive: true }));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_the_kernel() {
    suite(Arc::new(MemoryColdStore::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    suite(open("memory:", support::patience()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let root = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a/cold", root.path().display());
    let store = open(&url, support::patience()).unwrap();
    assert_eq!((store.location(), store.is_local()), (url.clone(), true));
    suite(store).await;
    let left: Vec<_> = std::fs::read_dir(root.path().join("a/cold/.uploads"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_and_google() {
    for server in servers() {
        let url = server.url(server.address(), "some/prefix");
        let store = open(&url, support::patience()).unwrap();
        let (place, _) = url.split_once('?').unwrap();
        let location = format!("{place} at http://{}", server.address());
        assert_eq!((store.location(), store.is_local()), (location, false));
        suite(store).await;
        // And without a prefix, where the other's keys are seen with their whole name.
        let whole = open(&server.url(server.address(), ""), support::patience()).unwrap();
        suite(whole.clone()).await;
        let others = whole.list("some/prefix/other/segments/").await.unwrap();
        assert_eq!(others.len(), 19);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azure() {
    let Some(server) = AzureServer::start() else {
        return;
    };
    let missing = open(&server.url("missing", "some/prefix"), support::patience()).unwrap();
    let error = check(&*missing).await.unwrap_err().to_string();
    assert!(error.contains("404 ContainerNotFound"), "{error}");
    server.create_container();
    let store = open(&server.url(CONTAINER, "some/prefix"), support::patience()).unwrap();
    assert!(!store.is_local());
    suite(store).await;
    suite(open(&server.url(CONTAINER, ""), support::patience()).unwrap()).await;
}
