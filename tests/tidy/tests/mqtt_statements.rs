//! `docs/reference/mqtt.md`: every normative statement of MQTT has a line, and the tests it names exist.

use std::collections::{BTreeMap, BTreeSet};

use tidy::{assert_none, read, root};

const PAGE: &str = "docs/reference/mqtt.md";

/// What the page abbreviates.
const FOLDERS: [(&str, &str); 4] = [
    ("codec/", "bridge/mqtt-codec/tests/vectors/"),
    ("broker/", "bridge/mqtt-broker/tests/broker/"),
    ("src/", "bridge/mqtt-broker/src/"),
    ("e2e/", "tests/e2e/"),
];

/// Appendix B of 3.1.1: each section with its first and last number.
const V311: &str = "1.5.3:1-3 2.2.2:1-2 2.3.1:1-7 3.1.0:1-2 3.1.2:1-24 3.1.3:1-11 3.1.4:1-5 3.2.0:1-1 3.2.2:1-6 3.3.1:1-12 3.3.2:1-3 \
    3.3.4:1-1 3.3.5:1-2 3.6.1:1-1 3.8.1:1-1 3.8.3:1-4 3.8.4:1-6 3.9.3:1-2 3.10.1:1-1 3.10.3:1-2 3.10.4:1-6 3.12.4:1-1 3.14.1:1-1 \
    3.14.4:1-3 4.1.0:1-2 4.3.1:1-1 4.3.2:1-2 4.3.3:1-2 4.4.0:1-1 4.5.0:1-2 4.6.0:1-6 4.7.1:1-3 4.7.2:1-1 4.7.3:1-4 4.8.0:1-2 \
    6.0.0:1-4 7.0.0:1-2 7.1.1:1-1 7.1.2:1-1";

/// Appendix B of 5.0. There is no 2.2.1-1.
const V5: &str = "1.5.4:1-3 1.5.5:1-1 1.5.7:1-1 2.1.3:1-1 2.2.1:2-6 2.2.2:1-1 3.1.0:1-2 3.1.2:1-30 3.1.3:1-12 3.1.4:1-6 3.2.0:1-2 \
    3.2.2:1-22 3.3.1:1-13 3.3.2:1-20 3.3.4:1-10 3.4.2:1-3 3.5.2:1-3 3.6.1:1-1 3.6.2:1-3 3.7.2:1-3 3.8.1:1-1 3.8.3:1-5 3.8.4:1-8 \
    3.9.2:1-2 3.9.3:1-2 3.10.1:1-1 3.10.3:1-2 3.10.4:1-6 3.11.2:1-2 3.11.3:1-2 3.12.4:1-1 3.14.0:1-1 3.14.1:1-1 3.14.2:1-4 \
    3.14.4:1-3 3.15.1:1-1 3.15.2:1-3 4.1.0:1-2 4.2.0:1-1 4.3.1:1-1 4.3.2:1-5 4.3.3:1-13 4.4.0:1-2 4.5.0:1-2 4.6.0:1-6 4.7.0:1-1 \
    4.7.1:1-2 4.7.2:1-1 4.7.3:1-4 4.8.2:1-6 4.9.0:1-3 4.12.0:1-7 4.12.1:1-2 4.13.1:1-1 4.13.2:1-1 6.0.0:1-4";

fn all(sections: &str) -> BTreeSet<String> {
    let mut numbers = BTreeSet::new();
    for section in sections.split_whitespace() {
        let (name, range) = section.split_once(':').expect("a section");
        let (first, last) = range.split_once('-').expect("a range");
        let (first, last): (u32, u32) =
            (first.parse().expect("first"), last.parse().expect("last"));
        numbers.extend((first..=last).map(|number| format!("{name}-{number}")));
    }
    numbers
}

/// A line of a table.
struct Row {
    v311: Vec<String>,
    v5: Vec<String>,
    shown: String,
}

fn rows(page: &str) -> Vec<Row> {
    let lines = page.lines().filter(|line| {
        line.starts_with('|') && !line.starts_with("|---") && !line.starts_with("| 3.1.1 |")
    });
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let [v311, v5, asked, shown] = cells[..] else {
                panic!("not four cells: {line}")
            };
            assert!(
                !asked.trim().is_empty() && !shown.trim().is_empty(),
                "{line}"
            );
            let numbers = |cell: &str| {
                let parts = cell.split(',').map(|part| part.trim().to_owned());
                parts.filter(|part| !part.is_empty()).collect()
            };
            Row {
                v311: numbers(v311),
                v5: numbers(v5),
                shown: shown.to_owned(),
            }
        })
        .collect()
}

#[test]
fn every_statement_has_one_line() {
    let page = read(PAGE).text;
    let rows = rows(&page);
    let mut broken = Vec::new();
    for (version, wanted, found) in [
        (
            "3.1.1",
            all(V311),
            rows.iter().flat_map(|row| &row.v311).collect::<Vec<_>>(),
        ),
        (
            "5.0",
            all(V5),
            rows.iter().flat_map(|row| &row.v5).collect(),
        ),
    ] {
        let mut seen = BTreeSet::new();
        for number in &found {
            if !wanted.contains(*number) {
                broken.push(format!("{version}: {number} is no statement"));
            } else if !seen.insert((*number).clone()) {
                broken.push(format!("{version}: {number} is there twice"));
            }
        }
        broken.extend(
            wanted
                .difference(&seen)
                .map(|number| format!("{version}: {number} is missing")),
        );
    }
    assert_none("Statements of MQTT in docs/reference/mqtt.md:", broken);
    let not_yet = rows.iter().filter(|row| row.shown.contains("*Not yet*"));
    let counts = format!(
        "**{} statements of 3.1.1, {} of 5.0, {} not yet.**",
        all(V311).len(),
        all(V5).len(),
        not_yet
            .map(|row| row.v311.len() + row.v5.len())
            .sum::<usize>()
    );
    assert!(page.contains(&counts), "{PAGE} must say: {counts}");
}

/// The names in a cell: what stands in backticks and has `::` in it.
fn named(shown: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = shown.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.rsplit_once("::"))
}

#[test]
fn every_named_test_exists() {
    let page = read(PAGE).text;
    let mut files: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut broken = Vec::new();
    for row in rows(&page) {
        let place = [row.v311.join(" "), row.v5.join(" ")].join(" ");
        let mut names = 0;
        for (file, test) in named(&row.shown) {
            names += 1;
            let path = FOLDERS
                .iter()
                .find_map(|(short, long)| Some(format!("{long}{}", file.strip_prefix(short)?)))
                .unwrap_or_else(|| file.to_owned());
            let text = files
                .entry(path.clone())
                .or_insert_with(|| std::fs::read_to_string(root().join(&path)).ok());
            let function = if path.ends_with(".py") { "def" } else { "fn" };
            match text {
                None => broken.push(format!("{place}: there is no file {path}")),
                Some(text) if !text.contains(&format!("{function} {test}(")) => {
                    broken.push(format!("{place}: there is no test {test} in {path}"));
                }
                Some(_) => {}
            }
        }
        let says_why = ["*Client*", "*Not yet*", "The bridge daemon"];
        if names == 0 && !says_why.iter().any(|why| row.shown.contains(why)) {
            broken.push(format!("{place}: neither a test nor why there is none"));
        }
    }
    assert_none("Tests that docs/reference/mqtt.md names:", broken);
}

#[test]
fn names_are_found_in_a_cell() {
    let found: Vec<_> = named("*Client*; `broker/a.rs::b`, `x`, `src/c.rs::d`").collect();
    assert_eq!(found, [("broker/a.rs", "b"), ("src/c.rs", "d")]);
    assert_eq!(
        all("1.2:3-4 5:1-1").into_iter().collect::<Vec<_>>(),
        ["1.2-3", "1.2-4", "5-1"]
    );
}
