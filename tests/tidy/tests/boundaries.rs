//! Which crate of ours may know which, and what a crate must never know.

use std::collections::BTreeMap;
use std::process::Command;

use tidy::{assert_none, metadata, policy, policy_list, root, rust_files};

/// Who may import whom. `record` imports nothing; front ends import `frontend`, `kernel` and their codec, never each other; the edge and the
/// bridge never import the core; only the server sees all of the core; nobody imports the server.
const ALLOWED: &[(&str, &[&str])] = &[
    ("record", &[]),
    ("router", &[]),
    ("settings", &[]),
    ("transport", &[]),
    ("admin-api", &[]),
    (
        "admin-http",
        &["admin-api", "credentials", "mqtt-broker", "mqtt-codec"],
    ),
    ("access-rules", &[]),
    ("credentials", &[]),
    ("quota", &["access-rules", "settings"]),
    ("mqtt-codec", &[]),
    ("mqtt-session", &["mqtt-codec"]),
    // Whom a quota is about, in its own tests only.
    (
        "mqtt-broker",
        &[
            "access-rules",
            "mqtt-codec",
            "mqtt-session",
            "quota",
            "record",
            "router",
            "settings",
            "transport",
        ],
    ),
    ("sync", &["record"]),
    ("sync-quic", &["record", "sync"]),
    // The simulator in the kernel's own tests only.
    ("kernel", &["record", "sim"]),
    ("cold-store", &["kernel"]),
    ("verification", &["admin-api", "kernel"]),
    (
        "frontend",
        &[
            "access-rules",
            "credentials",
            "kernel",
            "quota",
            "record",
            "transport",
        ],
    ),
    (
        "mqtt",
        &[
            "access-rules",
            "credentials",
            "frontend",
            "kernel",
            "mqtt-broker",
            "mqtt-codec",
            "mqtt-session",
            "quota",
            "record",
            "sim", // as in the kernel: in its own tests only
        ],
    ),
    (
        "kafka",
        &[
            "access-rules",
            "credentials",
            "frontend",
            "kernel",
            "quota",
            "record",
        ],
    ),
    (
        "amqp",
        &["access-rules", "frontend", "kernel", "quota", "record"],
    ),
    (
        "cloud-sync",
        &[
            "credentials",
            "frontend",
            "kernel",
            "record",
            "sync",
            "sync-quic",
        ],
    ),
    (
        "cloud-core",
        &[
            "access-rules",
            "admin-api",
            "admin-http",
            "amqp",
            "cloud-sync",
            "cold-store",
            "frontend",
            "kafka",
            "kernel",
            "mqtt",
            "mqtt-broker",
            "mqtt-codec",
            "quota",
            "record",
            "settings",
            "transport",
            "verification",
        ],
    ),
    ("store", &["record"]),
    (
        "edge-node",
        &[
            "access-rules",
            "admin-api",
            "admin-http",
            "credentials",
            "mqtt-broker",
            "mqtt-codec",
            "mqtt-session",
            "quota",
            "record",
            "settings",
            "store",
            "sync",
            "sync-quic",
            "transport",
        ],
    ),
    // The kernel, the record format and the cold store for what works on files while no core runs: `towline debug`,
    // `towline storage verify --data-dir`. Everything else asks a core through the admin API.
    (
        "cli",
        &[
            "admin-api",
            "cold-store",
            "credentials",
            "kernel",
            "record",
            "settings",
            "verification",
        ],
    ),
    (
        "bench",
        &[
            "cold-store",
            "kernel",
            "record",
            "router",
            "sync",
            "sync-quic",
        ],
    ),
    (
        "fuzz",
        &[
            "amqp",
            "kafka",
            "kernel",
            "mqtt-broker",
            "mqtt-codec",
            "mqtt-session",
            "record",
            "sync",
            "sync-quic",
            "transport",
        ],
    ),
    ("interop", &["record"]),
    ("sim", &["kernel", "record", "store"]),
    ("tidy", &[]),
];

const HOST: &str = "x86_64-unknown-linux-gnu";

#[test]
fn our_crates_import_only_what_the_table_allows() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let metadata = metadata(HOST);
    let ours: Vec<_> = metadata.workspace_packages();
    let mut broken = Vec::new();
    for package in &ours {
        let name = package.name.as_str();
        let Some(may) = allowed.get(name) else {
            broken.push(format!(
                "{name} is not in the table: add a line that says what it may import"
            ));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some())
        {
            if !may.contains(&dependency.name.as_str()) {
                broken.push(format!("{name} must not import {}", dependency.name));
            }
        }
    }
    for (name, _) in ALLOWED {
        if !ours.iter().any(|package| package.name.as_str() == *name) {
            broken.push(format!("{name} is in the table and not in the workspace"));
        }
    }
    assert_none("Direction of imports (docs/ARCHITECTURE.md):", broken);
}

#[test]
fn only_the_wrapper_names_what_it_wraps() {
    let metadata = metadata(HOST);
    let mut broken = Vec::new();
    for entry in policy_list(&policy(), "bans", "deny") {
        let banned = entry
            .get("crate")
            .and_then(|name| name.as_str())
            .unwrap_or_default();
        let wrappers: Vec<_> = entry
            .get("wrappers")
            .and_then(|wrappers| wrappers.as_array())
            .map(|wrappers| wrappers.iter().filter_map(|name| name.as_str()).collect())
            .unwrap_or_default();
        for package in metadata.workspace_packages() {
            let names = package
                .dependencies
                .iter()
                .any(|dependency| dependency.name == banned);
            if names && !wrappers.contains(&package.name.as_str()) {
                broken.push(format!(
                    "{} names {banned}; only {wrappers:?} may",
                    package.name
                ));
            }
        }
        // A banned crate that comes in by way of somebody else counts too.
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        for node in nodes {
            let user = &metadata[&node.id];
            let uses = node
                .deps
                .iter()
                .any(|dependency| metadata[&dependency.pkg].name.as_str() == banned);
            if uses && !wrappers.contains(&user.name.as_str()) && user.source.is_some() {
                broken.push(format!("{} brings {banned}", user.name));
            }
        }
    }
    assert_none("deny.toml [bans] deny:", broken);
}

#[test]
fn the_edge_stays_small() {
    // Not from the metadata: there the features of the whole workspace are joined, and the edge is built alone.
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "-p",
            "edge-node",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--target",
            "all",
        ])
        .current_dir(root())
        .output()
        .expect("cargo tree");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8_lossy(&output.stdout);
    let too_much = ["rdkafka", "openraft", "object_store", "aws-lc"];
    let broken = tree
        .lines()
        .filter(|line| too_much.iter().any(|name| line.starts_with(name)));
    assert_none(
        "These do not belong on an edge:",
        broken.map(str::to_owned).collect(),
    );
}

#[test]
fn the_kernel_knows_no_protocol() {
    let mut broken = Vec::new();
    for file in rust_files("cloud-core/kernel/src") {
        for (number, line) in file.program_lines() {
            // Comments may compare; names and text may not.
            let code = line
                .split("//")
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            if ["mqtt", "kafka", "amqp"]
                .iter()
                .any(|word| code.contains(word))
            {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none("A protocol's name in the kernel:", broken);
}

#[test]
fn the_command_line_opens_files_of_a_core_only_where_no_core_runs() {
    let offline = ["cli/src/debug/", "cli/src/storage/offline.rs"];
    let mut broken = Vec::new();
    for file in rust_files("cli/src") {
        if offline.iter().any(|path| file.path.starts_with(path)) {
            continue;
        }
        for (number, line) in file.program_lines() {
            let code = line.split("//").next().unwrap_or_default();
            if ["kernel::", "cold_store::", "record::"]
                .iter()
                .any(|word| code.contains(word))
            {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none(
        "A running core is asked through the admin API (its files are opened by cli/src/debug and cli/src/storage/offline.rs only):",
        broken,
    );
}

#[test]
fn the_kernel_touches_disk_network_and_time_only_through_its_ports() {
    let mut broken = Vec::new();
    for file in rust_files("cloud-core/kernel/src")
        .iter()
        .filter(|file| file.is_source() && !file.path.contains("/src/ports"))
    {
        for (number, line) in file.program_lines() {
            let code = line.split("//").next().unwrap_or_default();
            let words = [
                "std::fs",
                "fs::",
                "SystemTime",
                "Instant",
                "std::net",
                "tokio::net",
                "tokio::time",
            ];
            if words.iter().any(|word| code.contains(word)) {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none(
        "Disk, network or time in the kernel outside src/ports:",
        broken,
    );
}
