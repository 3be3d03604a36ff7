//! Sessions that are behind read by themselves.

use crate::client::*;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test(start_paused = true)]
async fn who_was_away_reads_only_what_is_for_it() {
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("t/+/mine", 1).await;
    client.subscribe("t/plain", 1).await;
    client.disconnect().await;
    let mut sender = server.clean("s").await;
    for n in 0..2_000 {
        let topic = match n % 200 {
            0 => "t/x/mine".to_owned(),
            1 => "t/plain".to_owned(),
            _ => format!("t/{n}"),
        };
        sender.publish(&topic, &n.to_string(), 1).await;
    }
    let (mut client, present) = server.persistent("c").await;
    assert!(present);
    for n in 0..10 {
        assert_eq!(client.take().await, (200 * n).to_string());
        assert_eq!(client.take().await, (200 * n + 1).to_string());
    }
    client.nothing().await;
    assert_eq!(server.memory.messages_read.load(Relaxed), 20);
}

#[tokio::test(start_paused = true)]
async fn what_is_subscribed_to_during_a_read_is_not_missed() {
    let server = Server::start().await;
    let (mut client, _) = server.persistent("c").await;
    client.subscribe("t/a", 1).await;
    client.disconnect().await;
    let mut sender = server.clean("s").await;
    sender.publish("t/a", "1", 1).await;
    server.memory.reads_wait.send_replace(true);
    let (mut client, _) = server.persistent("c").await;
    // It is being read now for the one filter, and when that goes on, there is more to be read.
    client.subscribe("t/b", 1).await;
    sender.publish("t/b", "2", 1).await;
    sender.publish("t/a", "3", 1).await;
    server.memory.reads_wait.send_replace(false);
    for text in ["1", "2", "3"] {
        assert_eq!(client.take().await, text);
    }
    client.nothing().await;
}
