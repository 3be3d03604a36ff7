//! Feeds: which there are for a filter, what is read from them, and waiting for more.

use super::*;

#[tokio::test]
async fn the_first_level_names_the_feeds_and_a_wildcard_takes_all() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    for topic in ["a/1", "b/1", "/empty", "ä/1"] {
        backend.publish(publish(topic, "x"), None).await.unwrap();
    }
    for (text, feeds) in [
        ("a/#", 1),
        ("a", 1),
        ("b/+", 1),
        ("/+", 1),
        ("ä/1", 1),
        ("c/#", 0),
        ("#", 4),
        ("+/1", 4),
    ] {
        assert_eq!(backend.feeds_for(&filter(text)).len(), feeds, "{text}");
    }
}

#[tokio::test]
async fn a_wait_ends_with_a_message_and_with_a_new_stream() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = Arc::new(backend(&ctx));
    backend.publish(publish("a/1", "x"), None).await.unwrap();
    for topic in ["a/2", "new/1"] {
        let generation = backend.feeds_generation();
        let at = backend.feeds_for(&filter("a/#"));
        let waiting = tokio::spawn({
            let backend = backend.clone();
            async move { backend.wait(&at, generation).await }
        });
        backend.publish(publish(topic, "y"), None).await.unwrap();
        waiting.await.unwrap();
    }
}

#[tokio::test]
async fn records_that_retention_removed_are_counted_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    for n in 0..10 {
        backend
            .publish(publish("a/1", n.to_string()), None)
            .await
            .unwrap();
    }
    let address = StreamAddress::new(Namespace::default(), StreamName::new("a").unwrap());
    let stream = ctx.kernel.stream(&address).unwrap();
    ctx.kernel.trim(stream.id.partition(0), 7).await.unwrap();
    let (feed, _) = backend.feeds_for(&filter("a/#"))[0];
    let read = backend
        .read(feed, Position(2), 1024, &everything)
        .await
        .unwrap();
    assert_eq!((read.lost, read.messages[0].0), (5, Position(7)));
}

#[tokio::test]
async fn only_what_is_wanted_is_given_and_the_rest_passed() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = open(dir.path());
    let backend = backend(&ctx);
    for topic in ["a/1", "a/2", "a", "a/1"] {
        backend.publish(publish(topic, topic), None).await.unwrap();
    }
    let (feed, end) = backend.feeds_for(&filter("a/#"))[0];
    let places = |read: FeedRead| -> Vec<u64> {
        assert_eq!((read.next, read.lost), (end, 0));
        read.messages.into_iter().map(|(at, _)| at.0).collect()
    };
    let first = |_: Position, topic: &str| topic == "a/1";
    let read = backend.read(feed, Position::START, 1024, &first).await;
    assert_eq!(places(read.unwrap()), [0, 3]);
    let later = |at: Position, topic: &str| at > Position(1) && topic != "a/2";
    let read = backend.read(feed, Position::START, 1024, &later).await;
    assert_eq!(places(read.unwrap()), [2, 3]);
    let nothing = |_: Position, _: &str| false;
    let read = backend.read(feed, Position(1), 1024, &nothing).await;
    assert!(places(read.unwrap()).is_empty());
}
