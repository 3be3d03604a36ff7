//! The rules of the house, as tests: `cargo test -p tidy`. Here is only what the tests look with.
//!
//! A rule that fails prints every place that breaks it, and what to do. An exception is written next to the rule, with its reason.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The folders with code of ours.
pub const CODE: [&str; 6] = [
    "edge-node",
    "cloud-core",
    "bridge",
    "cli",
    "arm-builds",
    "tests",
];

/// A text file: its path from the root, and what is in it.
pub struct Text {
    pub path: String,
    pub text: String,
}

/// Reads a file of the workspace; a missing one fails the test that wants it.
pub fn read(path: &str) -> Text {
    let text =
        fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Text {
        path: path.to_owned(),
        text,
    }
}

/// All Rust files below a folder, build output left out.
pub fn rust_files(folder: &str) -> Vec<Text> {
    let mut found = Vec::new();
    collect(&root(), &root().join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Text>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            let name = entry.file_name();
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                collect(root, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            found.push(Text { path, text });
        }
    }
}

impl Text {
    /// Whether the file is part of a program and not of its tests, benches or examples.
    pub fn is_source(&self) -> bool {
        let beside = ["/tests/", "/benches/", "/examples/"];
        let named = ["/tests.rs", "_tests.rs"];
        !self.path.starts_with("tests/")
            && !beside.iter().any(|folder| self.path.contains(folder))
            && !named.iter().any(|name| self.path.ends_with(name))
    }

    /// Lines of the program with their numbers, from 1: without the items that are only there for tests.
    pub fn program_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut item = Item::Program;
        let lines = self.text.lines().enumerate();
        lines.filter_map(move |(index, line)| item.keeps(line).then_some((index + 1, line)))
    }
}

/// Where a line stands.
enum Item {
    Program,
    /// After `#[cfg(test)]`, in an item that is not over, in so many braces.
    Test(usize),
}

impl Item {
    /// Whether the line is of the program; goes on behind it. Braces in texts are counted, too: unit tests are at the end of a file, where that ends
    /// nothing too early.
    fn keeps(&mut self, line: &str) -> bool {
        let code = line.trim();
        match self {
            Item::Program if code == "#[cfg(test)]" => *self = Item::Test(0),
            Item::Program => return true,
            Item::Test(_) if code.starts_with("#[") => {}
            Item::Test(depth) => {
                *depth += code.matches(['{', '(']).count();
                *depth = depth.saturating_sub(code.matches(['}', ')']).count());
                if *depth == 0 && code.ends_with(['}', ';', ',']) {
                    *self = Item::Program;
                }
            }
        }
        false
    }
}

/// The dependency graph as it is built for one target.
pub fn metadata(target: &str) -> Metadata {
    MetadataCommand::new()
        .current_dir(root())
        .other_options([
            "--locked".to_owned(),
            "--filter-platform".to_owned(),
            target.to_owned(),
        ])
        .exec()
        .unwrap_or_else(|error| panic!("cargo metadata: {error}"))
}

/// `deny.toml`, which `cargo deny` reads too.
pub fn policy() -> toml::Table {
    read("deny.toml")
        .text
        .parse()
        .unwrap_or_else(|error| panic!("deny.toml: {error}"))
}

/// A list of `deny.toml`, by its path.
pub fn policy_list(policy: &toml::Table, section: &str, key: &str) -> Vec<toml::Value> {
    let list = policy
        .get(section)
        .and_then(|section| section.get(key))
        .and_then(toml::Value::as_array);
    list.unwrap_or_else(|| panic!("deny.toml has no list {section}.{key}"))
        .clone()
}

/// Fails with all the places at once.
#[track_caller]
pub fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}\n  {}\n", broken.join("\n  "));
}
