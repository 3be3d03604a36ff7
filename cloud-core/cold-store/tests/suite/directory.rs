//! What a directory has to do beyond the suite.

use crate::support::pattern;
use bytes::Bytes;
use cold_store::{Patience, open};
use kernel::ports::cold::{ColdError, MIN_PART_BYTES};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not() {
    let root = tempfile::tempdir().unwrap();
    let url = format!("file://{}", root.path().display());
    let store = open(&url, Patience::default()).unwrap();
    let mut upload = store.upload("log/segments/1").await.unwrap();
    let part = Bytes::from(pattern(MIN_PART_BYTES, 1));
    upload.part(vec![part.clone()]).await.unwrap();
    // Nobody holds the lock of this one.
    std::fs::write(root.path().join(".uploads/left"), b"half an object").unwrap();

    let second = open(&url, Patience::default()).unwrap();
    assert!(!root.path().join(".uploads/left").exists());
    upload.part(vec![Bytes::from_static(b"end")]).await.unwrap();
    upload.finish().await.unwrap();
    let size = part.len() as u64 + 3;
    assert_eq!(second.size("log/segments/1").await, Ok(size));
}

#[tokio::test]
async fn what_is_made_is_for_its_owner_only_and_the_users_own_directory_stays_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let open_to_all = Permissions::from_mode(0o777);
    std::fs::set_permissions(root.path(), open_to_all).unwrap();
    let store = open(
        &format!("file://{}", root.path().display()),
        Patience::default(),
    )
    .unwrap();
    let object = Bytes::from_static(b"x");
    store.create("log/epoch", object.clone()).await.unwrap();
    let mut upload = store.upload("log/segments/1").await.unwrap();
    upload.part(vec![object]).await.unwrap();
    upload.finish().await.unwrap();
    for (path, expected) in [
        ("", 0o777),
        (".uploads", 0o700),
        ("log", 0o700),
        ("log/segments", 0o700),
        ("log/epoch", 0o600),
        ("log/segments/1", 0o600),
    ] {
        let found = std::fs::metadata(root.path().join(path)).unwrap();
        let mode = found.permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{path}: {mode:o}");
    }
}

#[tokio::test]
async fn keys_stay_inside() {
    let root = tempfile::tempdir().unwrap();
    let inside = root.path().join("cold");
    let store = open(&format!("file://{}", inside.display()), Patience::default()).unwrap();
    std::fs::write(root.path().join("secret"), b"x").unwrap();
    for key in [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "a//b",
        "",
        ".uploads/x",
        "a\0b",
    ] {
        let got = store.get(key, 0..1).await;
        assert!(
            matches!(got, Err(ColdError::Refused(_))),
            "{key:?}: {got:?}"
        );
        let made = store.create(key, Bytes::new()).await;
        assert!(
            matches!(made, Err(ColdError::Refused(_))),
            "{key:?}: {made:?}"
        );
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = open(
        &format!("file://{}/cold", file.display()),
        Patience::default(),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("cannot use the directory"),
        "{error}"
    );
}

#[tokio::test]
async fn a_part_and_the_end_can_be_repeated() {
    let root = tempfile::tempdir().unwrap();
    let store = open(
        &format!("file://{}", root.path().display()),
        Patience::default(),
    )
    .unwrap();
    let mut upload = store.upload("log/segments/1").await.unwrap();
    let part = Bytes::from(pattern(MIN_PART_BYTES, 1));
    upload.part(vec![part.clone()]).await.unwrap();
    // A name that is a directory cannot be taken.
    let name = root.path().join("log/segments/1");
    std::fs::create_dir(&name).unwrap();
    assert!(upload.finish().await.is_err());
    std::fs::remove_dir(&name).unwrap();
    upload.finish().await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(
        store.get("log/segments/1", 0..part.len() as u64).await,
        Ok(part)
    );
    assert!(matches!(
        upload.part(vec![]).await,
        Err(ColdError::Refused(_))
    ));
}
