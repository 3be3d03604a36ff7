//! Lists of sections in the file: their order, their defaults, and what is said about mistakes in them.

use std::io::Write;

use clap::Parser;
use settings::{Flags, Loaded, Rate, SettingsError, Size};

settings::choices! {
    /// What goes when a lane is full.
    pub enum Evict {
        Oldest = "oldest",
        Reject = "reject",
    }
}

settings::settings! {
    struct Lane {
        name: String;
        priority: u8 = "4";
        size: Option<Size>;
        evict: Evict = "reject";
        link_rate: Option<Rate>;
    }
}

settings::settings! {
    struct Example {
        name: Option<String>;
    }
    lists {
        /// Lanes
        lane: Lane;
        topic_rule: Rule;
    }
}

settings::settings! {
    struct Rule {
        filter: String;
    }
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags<Example>,
}

fn load(text: &str) -> Result<Loaded<Example>, SettingsError> {
    let mut config = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    config.write_all(text.as_bytes()).unwrap();
    let args = Args::parse_from(["x".as_ref(), "--config".as_ref(), config.path().as_os_str()]);
    args.flags.load_with(|_| None)
}

fn message(error: &SettingsError) -> String {
    let text = error.to_string();
    match text.find(".toml") {
        Some(at) => {
            let start = text[..at].rfind([' ']).map_or(0, |space| space + 1);
            format!("{}FILE{}", &text[..start], &text[at + 5..])
        }
        None => text,
    }
}

const GOOD: &str = "
name = 'edge'
[[lane]]
name = 'alarms'
priority = 9

[[topic-rule]]
filter = 'a/#'

[[lane]]
name = 'bulk'
evict = 'oldest'
size = '2MiB'
link-rate = '8kbit/s'

[[topic-rule]]
filter = '#'
";

#[test]
fn sections_come_in_the_order_of_the_file_with_their_defaults() {
    let settings = load(GOOD).unwrap().settings;
    assert_eq!(settings.name.as_deref(), Some("edge"));
    let [alarms, bulk] = &settings.lane[..] else {
        panic!("{:?}", settings.lane)
    };
    assert_eq!(alarms.settings.name, "alarms");
    assert_eq!(alarms.settings.priority, 9);
    assert_eq!(
        (alarms.settings.size, alarms.settings.evict),
        (None, Evict::Reject)
    );
    assert_eq!(bulk.settings.priority, 4);
    assert_eq!(bulk.settings.size, Some(Size(2 << 20)));
    assert_eq!(bulk.settings.evict, Evict::Oldest);
    assert_eq!(bulk.settings.link_rate, Some(Rate(1000)));
    assert!(bulk.has("evict") && !bulk.has("priority"));
    let filters: Vec<_> = settings
        .topic_rule
        .iter()
        .map(|rule| &rule.settings.filter)
        .collect();
    assert_eq!(filters, ["a/#", "#"]);
    assert!(load("").unwrap().settings.lane.is_empty());
    // What a program finds itself is said with the place.
    assert_eq!(
        message(&bulk.wrong_key("name", "another lane has this name")),
        "`[[lane]] name` = \"bulk\", set by FILE, line 11: another lane has this name"
    );
    assert_eq!(
        message(&bulk.wrong_key("nothing", "odd")),
        "[[lane]] at FILE, line 10: odd"
    );
}

#[test]
fn mistakes_are_told_with_place_and_remedy() {
    for (file, expected) in [
        (
            "[[lane]]\nname = 'a'\n\n[[lane]]\nname = 'b'\npiority = 3\n",
            "FILE, line 6: unknown key `[[lane]] piority`; did you mean `priority`?",
        ),
        (
            "[[lanes]]\nname = 'a'",
            "FILE, line 1: unknown key `lanes`; did you mean `lane`?",
        ),
        (
            "[lane]\nname = 'a'",
            "FILE, line 1: `lane` is a list: each of its sections begins with a line [[lane]]",
        ),
        (
            "\nlane = 'a'",
            "FILE, line 2: `lane` is a list: each of its sections begins with a line [[lane]]",
        ),
        (
            "lane = [1]",
            "FILE, line 1: `lane` is a list: each of its sections begins with a line [[lane]]",
        ),
        (
            "[[lane]]\nname = 'a'\n[[lane]]\npriority = 1",
            "`[[lane]] name` is required: write `name = ...` into the section at FILE, line 3",
        ),
        (
            "[[lane]]\nname = 'a'\npriority = 1000",
            "`[[lane]] priority` = \"1000\", set by FILE, line 3: expected a whole number from 0 to 255",
        ),
        (
            "[[lane]]\nname = 'a'\nevict = 'some'",
            "`[[lane]] evict` = \"some\", set by FILE, line 3: expected one of: oldest, reject",
        ),
        (
            "[[lane]]\nname = ['a']",
            "FILE, line 2: `[[lane]] name` must be a text, a number or true/false, not array",
        ),
        (
            "[[name]]\nx = 1",
            "FILE, line 1: `name` must be a text, a number or true/false, not array",
        ),
    ] {
        assert_eq!(message(&load(file).unwrap_err()), expected);
    }
}
