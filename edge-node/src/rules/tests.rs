use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use mqtt_broker::backend::Message;
use mqtt_codec::{QoS, TopicName};
use settings::Flags;

use super::*;
use crate::config::EdgeSettings;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags<EdgeSettings>,
}

fn rules(text: &str) -> Result<Rules, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let lanes = "[[lane]]\nname = 'bulk'\n[[lane]]\nname = 'alarms'\n";
    file.write_all(format!("data-dir = '/x'\n{lanes}{text}").as_bytes())
        .unwrap();
    let args = ["x".as_ref(), "--config".as_ref(), file.path().as_os_str()];
    let loaded = Args::parse_from(args).flags.load_with(|_| None);
    let settings = loaded.map_err(|error| error.to_string())?.settings;
    let lanes = crate::lanes::lanes(&settings.lane, settings.outbox_size)
        .map_err(|error| error.to_string())?;
    Rules::new(&settings.rule, &lanes, "gw-7").map_err(|error| error.to_string())
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn message(name: &str, payload: &str) -> Message {
    Message {
        topic: topic(name),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
        origin: None,
        number: None,
        properties: Default::default(),
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = rules(
        "[[rule]]\nfilter = 'alarms/#'\nlane = 'alarms'\n\
         [[rule]]\nfilter = 'site/private/#'\nforward = false\n\
         [[rule]]\nfilter = 'site/+/log'\nstream = 'logs'\nkey = '{2}'\nretain = 'drop'\n\
         [[rule]]\nfilter = 'site/#'\ntopic = '{1}/{edge}/{rest}'\n",
    )
    .unwrap();
    let shown = |name: &str| {
        let topic = topic(name);
        rules.forward(&topic).map(|forward| {
            let address = forward.address(&topic).unwrap();
            let stream = address.stream.as_str().to_owned();
            (forward.lane, stream, address.key, forward.is_plain())
        })
    };
    let some =
        |lane, stream: &str, key: &str, plain| Some((lane, stream.into(), key.into(), plain));
    assert_eq!(shown("alarms/fire"), some(1, "alarms", "alarms/fire", true));
    assert_eq!(shown("site/private/key"), None);
    assert_eq!(shown("site/a/log"), some(0, "logs", "a", false));
    assert_eq!(
        shown("site/a/temp"),
        some(0, "site", "site/gw-7/a/temp", false)
    );
    assert_eq!(shown("other/x"), some(0, "other", "other/x", true));
    let retain = |name| rules.forward(&topic(name)).unwrap().retain;
    assert_eq!(
        (retain("site/a/log"), retain("site/a")),
        (Retain::Drop, Retain::Keep)
    );
    assert!(rules.need_local() && !rules.reduce());
    assert!(!self::rules("").unwrap().need_local());
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (text, expected) in [
        (
            "[[rule]]\nfilter = 'a/#/b'",
            "`[[rule]] filter` = \"a/#/b\"",
        ),
        (
            "[[rule]]\nfilter = '#'\nlane = 'alarm'",
            "there is no such lane, but bulk, alarms",
        ),
        (
            "[[rule]]\nfilter = '#'\ntopic = '{device}'",
            "{device} is not known",
        ),
        (
            "[[rule]]\nfilter = '#'\nstream = 'a/b'",
            "character '/' is not allowed",
        ),
        (
            "[[rule]]\nfilter = '#'\nforward = false\nlane = 'bulk'",
            "what is not forwarded",
        ),
        (
            "[[rule]]\nfilter = '#'\nevery = '10s'\nwindow = '1m'",
            "only one of",
        ),
        (
            "[[rule]]\nfilter = '#'\nfield = 'x'",
            "it is for `on-change` and `window`",
        ),
        (
            "[[rule]]\nfilter = '#'\nevery = '10s'\nfield = 'x'",
            "does not look into messages",
        ),
        (
            "[[rule]]\nfilter = '#'\nevery = '1ms'",
            "expected 100ms to 7d",
        ),
        (
            "[[rule]]\nfilter = '#'\non-change = '-1'",
            "expected `any`, a number like 0.5",
        ),
        (
            "[[rule]]\nfilter = '#'\nwindw = '1m'",
            "did you mean `window`?",
        ),
    ] {
        let error = rules(text).unwrap_err();
        assert!(
            error.contains(expected) && error.contains("line "),
            "{text}: {error}"
        );
    }
}

struct Bench {
    reducer: Reducer,
    at: u64,
}

impl Bench {
    fn new(rule: &str) -> Bench {
        let rules = rules(&format!("[[rule]]\nfilter = 's/#'\n{rule}")).unwrap();
        assert!(rules.need_local() && rules.reduce());
        Bench {
            reducer: Reducer::new(Arc::new(rules)),
            at: 0,
        }
    }

    fn offer(&mut self, name: &str, payload: &str, time: i64) -> Vec<String> {
        let mut out = Vec::new();
        self.reducer
            .offer(self.at, &message(name, payload), time, &mut out);
        self.at += 1;
        texts(out)
    }

    fn due(&mut self, now: i64) -> Vec<String> {
        let mut out = Vec::new();
        self.reducer.due(now, &mut out);
        texts(out)
    }

    /// Ends the process and starts it again.
    fn restart(&mut self) -> Vec<u64> {
        let rules = self.reducer.rules();
        let (reducer, places) = Reducer::restore(rules, &self.reducer.snapshot()).unwrap();
        self.reducer = reducer;
        places
    }
}

fn texts(out: Vec<Output>) -> Vec<String> {
    let text = |output: Output| {
        let payload = String::from_utf8(output.message.payload.to_vec()).unwrap();
        format!("{} {payload}", output.time)
    };
    out.into_iter().map(text).collect()
}

#[test]
fn on_change_lets_pass_what_leaves_the_dead_band() {
    for (rule, steps) in [
        (
            "on-change = 0.5",
            &[
                ("20", true),
                ("20.5", false),
                ("20.51", true),
                ("20.1", false),
                ("off", true),
                ("off", false),
                ("20", true),
            ][..],
        ),
        (
            "on-change = '10%'",
            &[
                ("100", true),
                ("109", false),
                ("110.5", true),
                ("-3", true),
                ("-3.2", false),
                ("0", true),
                ("0", false),
                ("0.001", true),
            ],
        ),
        (
            "on-change = 'any'",
            &[
                ("on", true),
                ("on", false),
                ("off", true),
                ("1", true),
                ("1.0", false),
            ],
        ),
        (
            "on-change = 1\nfield = 'v.t'",
            &[
                ("{\"v\":{\"t\":1}}", true),
                ("{\"v\":{\"t\":1.5},\"n\":2}", false),
                ("{\"v\":{\"t\":\"bad\"}}", true),
                ("{\"v\":{}}", true),
                ("{\"v\":{\"t\":1}}", true),
            ],
        ),
    ] {
        let mut bench = Bench::new(rule);
        for (n, (payload, passes)) in steps.iter().enumerate() {
            let out = bench.offer("s/x", payload, n as i64);
            assert_eq!(!out.is_empty(), *passes, "{rule}: step {n}, {payload}");
            bench.restart();
        }
    }
    // Each topic has a value of its own.
    let mut bench = Bench::new("on-change = 1");
    assert_eq!(bench.offer("s/x", "1", 0).len(), 1);
    assert_eq!(bench.offer("s/y", "1", 0).len(), 1);
    assert_eq!(bench.reducer.next_due(), None);
}

#[test]
fn every_sends_the_first_at_once_and_the_last_at_the_end() {
    let mut bench = Bench::new("every = '10s'");
    assert_eq!(bench.offer("s/x", "a", 1_000), ["1000 a"]);
    assert_eq!(bench.reducer.next_due(), None);
    assert!(bench.offer("s/x", "b", 2_000).is_empty());
    assert!(bench.offer("s/x", "c", 3_000).is_empty());
    assert_eq!(bench.reducer.next_due(), Some(11_000));
    assert!(bench.due(10_999).is_empty());
    assert_eq!(bench.due(11_000), ["3000 c"]);
    assert_eq!(bench.reducer.next_due(), None);
    // The next interval began with what was sent at the end of this one.
    assert!(bench.offer("s/x", "d", 12_000).is_empty());
    assert_eq!(bench.offer("s/x", "e", 21_000), ["21000 e"]);
    assert!(bench.due(60_000).is_empty(), "d was older than e");
    // A clock that was set back does not keep anything waiting.
    assert_eq!(bench.offer("s/x", "f", 500), ["500 f"]);
    // What waits at the end of the process is a place in the log.
    assert!(bench.offer("s/x", "g", 600).is_empty());
    assert_eq!(bench.reducer.oldest_waiting(), Some(6));
    assert_eq!(bench.restart(), [6]);
    let mut out = Vec::new();
    bench.reducer.supply(6, &message("s/x", "g"), 600, &mut out);
    assert!(out.is_empty());
    assert_eq!(bench.due(10_500), ["600 g"]);
}

#[test]
fn what_began_blind_goes_on_at_the_right_time() {
    let mut bench = Bench::new("window = '10s'\nfield = 't'");
    bench.offer("s/x", "{\"t\":3}", 25_000);
    bench.reducer.shift(1_000_003);
    assert_eq!(bench.reducer.next_due(), Some(1_030_003));
    let first = r#"1030003 {"topic":"s/x","start":1020003,"end":1030003,"count":1,"min":3.0,"max":3.0,"mean":3.0,"last":3.0,"ignored":0}"#;
    assert_eq!(bench.offer("s/x", "{\"t\":4}", 1_027_000), [first]);
    assert_eq!(bench.reducer.next_due(), Some(1_030_000));

    let mut bench = Bench::new("every = '10s'");
    assert_eq!(bench.offer("s/x", "a", 5_000_000_000).len(), 1);
    assert!(bench.offer("s/x", "b", 5_000_001_000).is_empty());
    bench.reducer.shift(-5_000_000_000);
    assert!(bench.due(9_999).is_empty());
    assert_eq!(bench.due(10_000), ["1000 b"]);
}

#[test]
fn a_window_is_one_report() {
    let mut bench = Bench::new("window = '10s'\nfield = 't'");
    for (time, payload) in [
        (20_100, "{\"t\":3}"),
        (21_000, "{\"t\":-1.5}"),
        (22_000, "nothing"),
        (29_999, "{\"t\":4}"),
    ] {
        assert!(bench.offer("s/x", payload, time).is_empty());
        bench.restart();
    }
    assert_eq!(bench.reducer.next_due(), Some(30_000));
    let first = r#"30000 {"topic":"s/x","start":20000,"end":30000,"count":3,"min":-1.5,"max":4.0,"mean":1.8333333333333333,"last":4.0,"ignored":1}"#;
    // A message of the next window ends this one, whatever the clock says.
    assert_eq!(bench.offer("s/x", "no number", 31_000), [first]);
    let second = r#"40000 {"topic":"s/x","start":30000,"end":40000,"count":0,"ignored":1}"#;
    assert_eq!(bench.due(40_000), [second]);
    assert!(
        bench.due(1_000_000).is_empty(),
        "an empty window says nothing"
    );
    // Large numbers stay numbers.
    for payload in ["{\"t\":1e308}", "{\"t\":1e308}"] {
        bench.offer("s/x", payload, 50_000);
        bench.restart();
    }
    assert!(bench.due(60_000)[0].contains("\"count\":2"));
}

#[test]
fn what_clears_a_retained_message_is_not_reduced() {
    for rule in ["on-change = 1", "every = '10s'", "window = '10s'"] {
        let mut bench = Bench::new(rule);
        for n in 0..2 {
            let mut out = Vec::new();
            let clear = Message {
                retain: true,
                ..message("s/x", "")
            };
            bench.reducer.offer(n, &clear, 0, &mut out);
            assert_eq!(out.len(), 1, "{rule}");
        }
    }
}

#[test]
fn more_topics_than_are_kept_end_the_silent_ones_early() {
    let mut bench = Bench::new("window = '1h'");
    let mut reports = 0;
    for n in 0..crate::limits::REDUCED_TOPICS + 10 {
        reports += bench.offer(&format!("s/{n}"), "1", 5).len();
    }
    assert_eq!(reports, 10);
    assert_eq!(bench.due(i64::MAX).len(), crate::limits::REDUCED_TOPICS);
    let mut bench = Bench::new("every = '1h'");
    let large = "x".repeat(1024 * 1024);
    let mut sent = 0;
    for name in ["s/a", "s/b", "s/c", "s/d"] {
        for _ in 0..2 {
            sent += bench.offer(name, &large, 5).len();
        }
    }
    assert_eq!(sent, 4 + 2, "the first of each, and two that did not fit");
}

#[test]
fn state_of_another_rule_ends_at_once() {
    let mut bench = Bench::new("window = '10s'");
    bench.offer("s/x", "7", 20_000);
    let bytes = bench.reducer.snapshot();
    for other in ["every = '10s'", "window = '20s'"] {
        let rules = Arc::new(rules(&format!("[[rule]]\nfilter = 's/#'\n{other}")).unwrap());
        let (mut reducer, _) = Reducer::restore(rules, &bytes).unwrap();
        let mut out = Vec::new();
        reducer.due(40_000, &mut out);
        assert_eq!(out.len(), 1, "{other}");
        assert!(texts(out)[0].contains("\"count\":1"));
    }
    let rules = Arc::new(rules("[[rule]]\nfilter = 's/#'\nwindow = '10s'").unwrap());
    assert!(Reducer::restore(rules.clone(), b"{}").is_err());
    assert!(Reducer::restore(rules, br#"{"version":9,"topics":[]}"#).is_err());
}
