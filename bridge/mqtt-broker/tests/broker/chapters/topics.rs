//! Topic names and topic filters (section 4.7).

use super::*;

/// [MQTT-4.7.3-4]: characters that look the same are not the same; nothing is normalised, trimmed or folded
#[tokio::test(start_paused = true)]
async fn topics_are_compared_byte_by_byte() {
    let names = [
        "\u{e9}",
        "e\u{301}",
        "\u{feff}t",
        "t",
        "t ",
        " t",
        "T",
        "t/",
        "/t",
        "//t",
        "\u{ff54}",
        "ACCOUNTS",
        "Accounts",
        "$t",
    ];
    for version in BOTH {
        let server = Server::start().await;
        let mut sender = server.clean("s").await;
        for filter in names {
            let (mut client, _) = server.connect(clean(version, "c")).await;
            client.subscribe(filter, 1).await;
            for name in names {
                sender.publish(name, name, 1).await;
            }
            assert_eq!(client.take().await, filter);
            client.nothing().await;
        }
    }
}

/// [MQTT-4.7.2-1]
#[tokio::test(start_paused = true)]
async fn a_wildcard_in_front_does_not_match_a_dollar() {
    for version in BOTH {
        let server = Server::start().await;
        let mut sender = server.clean("s").await;
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client
            .send(subscribe(
                1,
                &[("#", 0), ("+/x", 0), ("+/#", 0), ("$own/+", 0)],
            ))
            .await;
        client.receive().await;
        for name in ["$own", "$own/x", "$/x", "own/x"] {
            sender.publish(name, name, 1).await;
        }
        let mut got = [client.take().await, client.take().await];
        got.sort();
        assert_eq!(got, ["$own/x", "own/x"]);
        client.nothing().await;
    }
}

/// [MQTT-4.7.1-2] and [MQTT-4.7.1-3] of 3.1.1, [MQTT-4.7.1-1] and [MQTT-4.7.1-2] of 5; [MQTT-4.7.3-1], [MQTT-4.7.3-3]: the longest that can be said
#[tokio::test(start_paused = true)]
async fn the_longest_topic() {
    let name = "x/".repeat(32_767) + "x";
    assert_eq!(name.len(), 65_535);
    for version in BOTH {
        let server = Server::start().await;
        let (mut client, _) = server.connect(clean(version, "c")).await;
        client.subscribe(&name, 1).await;
        client.publish(&name, "there", 0).await;
        assert_eq!(client.take().await, "there");
        let (mut wild, _) = server.connect(clean(version, "w")).await;
        wild.subscribe("x/+/#", 1).await;
        client.publish(&name, "again", 0).await;
        assert_eq!(wild.take().await, "again");
    }
}
