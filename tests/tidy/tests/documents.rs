//! The pages say what is there.

use std::collections::BTreeSet;
use std::path::Path;

use tidy::{CODE, Text, assert_none, read, root, rust_files};

/// Pages whose paths are checked.
const PAGES: [&str; 2] = ["docs/ARCHITECTURE.md", "docs/PATH-OF-A-MESSAGE.md"];

/// Whatever looks like a path of ours: it begins with a top-level folder, or it is a page or a source file.
fn paths(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| c.is_whitespace() || "`()[],;|\"'<>…".contains(c);
    text.split(ends)
        .map(|word| {
            word.split('#')
                .next()
                .unwrap_or_default()
                .trim_end_matches(['.', ':', '!', '?'])
        })
        .filter(|word| !word.contains(['*', '{', '$']) && !word.contains("://"))
        .filter(|word| {
            let mut parts = word.split('/');
            let first = parts.next().unwrap_or_default();
            let ours = (CODE.contains(&first) || first == "docs") && parts.next().is_some();
            ours || (word.ends_with(".rs") && word.contains('/')) || word.ends_with(".md")
        })
        .collect()
}

#[test]
fn named_files_exist() {
    let mut broken = Vec::new();
    for page in PAGES {
        let text = read(page).text;
        let folder = root().join(Path::new(page).parent().unwrap_or(Path::new("")));
        for path in paths(&text) {
            // With a line number: `src/lib.rs:12`.
            let file = path.split(':').next().unwrap_or_default();
            if !root().join(file).exists() && !folder.join(file).exists() {
                broken.push(format!("{page} names {path}"));
            }
        }
    }
    assert_none("Pages name files that do not exist:", broken);
}

#[test]
fn paths_are_found_in_prose() {
    let text = "See `cloud-core/kernel/src/lib.rs`, [x](reference/a.md#b) and https://x/y.md; not and/or, a.rs or cloud-core.";
    let found: Vec<_> = paths(text).into_iter().collect();
    assert_eq!(found, ["cloud-core/kernel/src/lib.rs", "reference/a.md"]);
}

/// Names of metrics in a source file: whole string literals.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split("\"towline_")
        .skip(1)
        .filter_map(|rest| {
            let (name, _) = rest.split_once('"')?;
            let plain = name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            (plain && !name.is_empty()).then(|| format!("towline_{name}"))
        })
        .collect()
}

#[test]
fn every_metric_has_its_line() {
    let page = read("docs/reference/metrics.md").text;
    let mut broken = Vec::new();
    for file in CODE
        .into_iter()
        .flat_map(rust_files)
        .filter(Text::is_source)
    {
        let program: Vec<&str> = file.program_lines().map(|(_, line)| line).collect();
        for name in metrics(&program.join("\n")) {
            if !page.contains(&format!("`{name}`")) {
                broken.push(format!("{name} ({})", file.path));
            }
        }
    }
    assert_none("Not in docs/reference/metrics.md:", broken);
}
