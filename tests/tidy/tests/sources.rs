//! What may not stand in our sources.

use tidy::{CODE, Text, assert_none, rust_files};

fn all() -> impl Iterator<Item = Text> {
    CODE.into_iter().flat_map(rust_files)
}

/// Files of delivery paths that may sleep, and why. Delivery is pushed by commits, never polled.
const MAY_SLEEP: &[(&str, &str)] = &[
    (
        "cloud-core/kafka/src/group/coordinator.rs",
        "session and rebalance timeouts are times of the protocol (JoinGroup)",
    ),
    (
        "bridge/mqtt-broker/src/deadlines.rs",
        "wills and session expiry are times of the protocol (MQTT 5, 3.1.3.2.2 and 3.1.2.11.2)",
    ),
    (
        "bridge/mqtt-broker/src/connection.rs",
        "keep-alive is a time of the protocol (MQTT 5, 3.1.2.10), and a token says until when its connection may last",
    ),
    (
        "bridge/mqtt-broker/src/held.rs",
        "who is above a quota and brings a will is let in later",
    ),
    (
        "bridge/mqtt-broker/src/progress.rs",
        "positions of sessions that get nothing are saved at intervals; no message waits for it",
    ),
    (
        "bridge/mqtt-broker/src/sys.rs",
        "$SYS values are published at intervals that are configured",
    ),
    (
        "bridge/mqtt-broker/src/unsettled.rs",
        "what found no room waits before it is tried again",
    ),
    (
        "bridge/mqtt-broker/src/sweeping.rs",
        "retained messages that have expired are deleted now and then; no message waits for it",
    ),
    (
        "bridge/mqtt-broker/src/later.rs",
        "a delayed message is due at a time that its publisher gave",
    ),
    (
        "cloud-core/kafka/src/connection.rs",
        "who has not said who it is in time is disconnected, and who is above a quota is read later",
    ),
    (
        "cloud-core/amqp/src/connection.rs",
        "heartbeats are times of the protocol (AMQP 0-9-1, 4.2.7)",
    ),
];

#[test]
fn delivery_is_never_polled() {
    let paths = [
        "bridge/mqtt-broker",
        "cloud-core/mqtt",
        "cloud-core/kafka",
        "cloud-core/amqp",
        "cloud-core/sync",
        "cloud-core/kernel",
    ];
    let mut broken = Vec::new();
    let mut sleepers = Vec::new();
    for file in paths
        .into_iter()
        .flat_map(rust_files)
        .filter(Text::is_source)
    {
        let found = sleeps(&file);
        if !MAY_SLEEP.iter().any(|(path, _)| *path == file.path) {
            broken.extend(found);
        } else if !found.is_empty() {
            sleepers.push(file.path);
        }
    }
    assert_none(
        "A sleep in a delivery path (wait for a commit instead, or give a reason in MAY_SLEEP):",
        broken,
    );
    for (path, _) in MAY_SLEEP {
        assert!(
            sleepers.iter().any(|sleeper| sleeper == path),
            "{path} is in MAY_SLEEP and does not sleep"
        );
    }
}

/// Lines of a program that let time pass.
fn sleeps(file: &Text) -> Vec<String> {
    let words = [
        "sleep(",
        "sleep_until(",
        "sleep_ms(",
        "sleep as ",
        "interval(",
        "interval_at(",
        "park_timeout(",
        "recv_timeout(",
        "wait_timeout(",
        "spin_loop(",
    ];
    let mut found = Vec::new();
    for (number, line) in file.program_lines() {
        let code = line.split("//").next().unwrap_or_default();
        if words.iter().any(|word| code.contains(word)) {
            found.push(format!("{}:{number}: {}", file.path, line.trim()));
        }
    }
    found
}

#[test]
fn a_sleep_is_found() {
    let lines = |text: &str| {
        let text = text.to_owned();
        let path = "cloud-core/kernel/src/x.rs".to_owned();
        sleeps(&Text { path, text }).len()
    };
    for wrong in [
        "tokio::time::sleep(Duration::from_millis(5)).await;",
        "    std::thread::sleep(tick);",
        "let mut tick = interval(Duration::from_secs(1));",
        "tokio::time::sleep_until(at).await; // a comment",
        "use tokio::time::sleep as pause;",
        "receiver.recv_timeout(tick)",
        "#[cfg(test)]\nmod tests;\nfn f() { sleep(tick) }",
        "#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests;\nfn f() { sleep(tick) }",
        "#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn f() { sleep(tick) }",
    ] {
        assert_eq!(lines(wrong), 1, "{wrong}");
    }
    for right in [
        "// no sleep( here",
        "/// Sleeps until there is something (see sleep(3)).",
        "self.kernel.wait_past(&positions).await;",
        "fn pushed() {}\n#[cfg(test)]\nmod tests { fn t() { sleep(tick) } }",
        "fn pushed() {}\n#[cfg(test)]\nmod tests {\n    fn t() {\n        sleep(tick)\n    }\n}",
    ] {
        assert_eq!(lines(right), 0, "{right}");
    }
}

#[test]
fn nothing_is_left_for_later() {
    // In pieces, so that this file does not find itself.
    let words = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
    ];
    let mut broken = Vec::new();
    for file in all() {
        for (index, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{}: {}", file.path, index + 1, line.trim()));
            }
        }
    }
    assert_none("Left for later:", broken);
}

#[test]
fn long_files_have_a_reason() {
    const LONG: usize = 600;
    let mut broken = Vec::new();
    for file in all() {
        let lines = file.text.lines().count();
        let reason = file
            .text
            .lines()
            .take(5)
            .any(|line| line.starts_with("// long: "));
        if lines > LONG && !reason {
            broken.push(format!("{}: {lines} lines", file.path));
        }
    }
    assert_none(
        "Files over 600 lines: split them, or say why at the top (`// long: reason`):",
        broken,
    );
}

#[test]
fn names_say_what_is_inside() {
    let empty = ["utils", "util", "common", "manager", "helpers", "misc"];
    let mut broken = Vec::new();
    for file in all() {
        let parts = file.path.trim_end_matches(".rs").split('/');
        if parts.into_iter().any(|part| empty.contains(&part)) {
            broken.push(file.path);
        }
    }
    assert_none("Names that say nothing:", broken);
}

#[test]
fn libraries_branch_on_their_own_errors() {
    let mut broken = Vec::new();
    for file in all().filter(Text::is_source) {
        let binary = [
            "cli/",
            "cloud-core/server/",
            "edge-node/src/",
            "bridge/daemon/",
        ]
        .iter()
        .any(|path| file.path.starts_with(path));
        if !binary && file.text.contains("anyhow::") {
            broken.push(file.path);
        }
    }
    assert_none("anyhow in a library:", broken);
}
