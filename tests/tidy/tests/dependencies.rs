//! What we depend on: `deny.toml`, checked without `cargo deny`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Package;
use tidy::{assert_none, metadata, policy, policy_list, read};

/// Third-party packages of all targets that are built for.
fn packages() -> BTreeMap<String, Package> {
    let mut all = BTreeMap::new();
    for target in policy_list(&policy(), "graph", "targets") {
        let metadata = metadata(target.as_str().unwrap_or_default());
        let used: BTreeSet<_> = metadata
            .resolve
            .iter()
            .flat_map(|resolve| &resolve.nodes)
            .map(|node| node.id.clone())
            .collect();
        for package in metadata
            .packages
            .into_iter()
            .filter(|package| package.source.is_some() && used.contains(&package.id))
        {
            all.insert(format!("{}@{}", package.name, package.version), package);
        }
    }
    all
}

#[test]
fn licences_are_of_the_list() {
    let policy = policy();
    let allowed: Vec<String> = policy_list(&policy, "licenses", "allow")
        .iter()
        .filter_map(|name| name.as_str())
        .map(str::to_owned)
        .collect();
    let mut broken = Vec::new();
    for (name, package) in packages() {
        let licence = package.license.unwrap_or_default();
        if !permits(&licence, &allowed) {
            broken.push(format!("{name}: {licence:?}"));
        }
    }
    assert_none("Licences that are not in deny.toml:", broken);
}

/// Whether an SPDX expression can be fulfilled with the allowed licences. `/` is the old way to write OR.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    either(&mut rest, allowed) && rest.is_empty()
}

fn either(words: &mut &[&str], allowed: &[String]) -> bool {
    let mut ok = both(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        // Not `||`: the other side has to be read in any case.
        ok |= both(words, allowed);
    }
    ok
}

fn both(words: &mut &[&str], allowed: &[String]) -> bool {
    let mut ok = one(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        ok &= one(words, allowed);
    }
    ok
}

fn one(words: &mut &[&str], allowed: &[String]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let ok = either(words, allowed);
            match *words {
                [")", rest @ ..] => {
                    *words = rest;
                    ok
                }
                _ => false,
            }
        }
        [name, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{name} WITH {exception}"))
        }
        [name, rest @ ..] => {
            *words = rest;
            allowed.iter().any(|allowed| allowed == name)
        }
        [] => false,
    }
}

#[test]
fn expressions_are_read_as_spdx_says() {
    let allowed = [
        "MIT".to_owned(),
        "ISC".to_owned(),
        "Apache-2.0 WITH LLVM-exception".to_owned(),
    ];
    for (expression, permitted) in [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("GPL-3.0 OR MIT AND OpenSSL", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("Apache-2.0", false),
        ("", false),
        ("MIT)", false),
    ] {
        assert_eq!(permits(expression, &allowed), permitted, "{expression:?}");
    }
}

#[test]
fn everything_comes_from_crates_io() {
    let foreign = packages().into_iter().filter(|(_, package)| {
        package.source.as_ref().is_some_and(|source| {
            source.repr != "registry+https://github.com/rust-lang/crates.io-index"
        })
    });
    assert_none(
        "Packages from elsewhere:",
        foreign.map(|(name, _)| name).collect(),
    );
}

#[test]
fn two_versions_of_one_crate_have_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for package in packages().into_values() {
        versions
            .entry(package.name.to_string())
            .or_default()
            .insert(package.version);
    }
    let policy = policy();
    let mut skipped = BTreeMap::new();
    for entry in policy_list(&policy, "bans", "skip") {
        let text = |key: &str| {
            entry
                .get(key)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        skipped.insert(text("crate"), text("reason"));
    }
    let mut broken = Vec::new();
    for (name, mut versions) in versions {
        // The newest is the one to stay.
        versions.pop_last();
        for version in versions {
            match skipped.remove(&format!("{name}@{version}")) {
                Some(reason) if !reason.is_empty() => {}
                _ => broken.push(format!(
                    "{name}@{version} beside a newer one: see `cargo tree -i {name}@{version}`"
                )),
            }
        }
    }
    broken.extend(
        skipped
            .into_keys()
            .map(|name| format!("{name} is in the list and not in the tree")),
    );
    assert_none("deny.toml [bans] skip:", broken);
}

#[test]
fn every_dependency_has_its_line_of_why() {
    let manifest: toml::Table = read("Cargo.toml").text.parse().expect("Cargo.toml");
    let dependencies = manifest["workspace"]["dependencies"]
        .as_table()
        .expect("workspace.dependencies")
        .clone();
    let page = read("docs/design/dependencies.md");
    let mut broken = Vec::new();
    for (name, value) in dependencies {
        if value.get("path").is_none() && !page.text.contains(&format!("| `{name}` | ")) {
            broken.push(name);
        }
    }
    assert_none("Not in docs/design/dependencies.md:", broken);
}

#[test]
fn what_holds_promised_data_is_pinned() {
    let manifest = read("Cargo.toml").text;
    assert!(
        manifest.contains("sled = \"=0.34.7\""),
        "sled is pinned exactly: an upgrade is a decision, with the kill tests run"
    );
}
