//! Instructions per operation. Each scenario is run twice under callgrind, with N and with 2 N operations: the difference is what N cost,
//! whatever the start cost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::figure::number;
use crate::machine::Machine;
use crate::page;

/// Name, number of operations, what one is.
pub const SCENARIOS: &[(&str, u64, &str)] = &[
    ("append-one", 2000, "append of a batch of one 1 KiB record"),
    (
        "append-64k",
        300,
        "append of a batch of 63 1 KiB records (64 KiB)",
    ),
    (
        "append-sequence",
        2000,
        "append of a batch of one 1 KiB record whose producer sequence is checked",
    ),
    (
        "append-together",
        2000,
        "append of a batch of one 1 KiB record, 64 in one group",
    ),
    (
        "fetch-one",
        2000,
        "fetch of one batch of 1 KiB from the tail",
    ),
    ("fetch-1m", 500, "fetch of 16 batches (1 MiB) from the tail"),
    (
        "fetch-wal",
        300,
        "fetch of one batch of 64 KiB from a WAL file",
    ),
    (
        "wait",
        2000,
        "waiting at the end for one append of 1 KiB, and fetching it",
    ),
];

/// What became more expensive by this is said.
const WORSE: f64 = 1.10;

/// Options of the command.
#[derive(Debug, Args)]
pub struct Options {
    /// Puts the new numbers into docs/reference/performance.md
    #[arg(long)]
    write: bool,
    /// Keeps the profiles in this directory, for callgrind_annotate
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
    /// Only these scenarios (may be given several times)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// Counts, prints, compares.
pub fn run(options: &Options) -> Result<ExitCode> {
    ensure!(
        options.only.is_empty() || !options.write,
        "--write needs all scenarios: leave --only out"
    );
    let program = std::env::current_exe()?.with_file_name("bench-steps");
    let page = page::path();
    let text = fs::read_to_string(&page).unwrap_or_default();
    let before = numbers(page::part(&text, "instructions"));
    let mut lines = String::from("| operation | instructions | name |\n|---|---:|---|\n");
    let mut worse = Vec::new();
    for (name, times, what) in SCENARIOS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let profiles = options.profiles.as_deref();
        let once = count(&program, name, *times, None)?;
        let twice = count(&program, name, times * 2, profiles)?;
        let each = twice.saturating_sub(once) / times;
        lines += &format!("| {what} | {} | `{name}` |\n", number(each as f64));
        let was = before.get(*name).copied();
        let change = was.map(|was| each as f64 / was as f64);
        println!(
            "{name:16} {each:>9} instructions{}   {what}",
            change.map_or(String::new(), |c| format!("  {:+6.1} %", (c - 1.0) * 100.0))
        );
        if change.is_some_and(|change| change > WORSE) {
            worse.push(format!(
                "{name}: {} instructions, {} before",
                each,
                was.unwrap_or(0)
            ));
        }
    }
    if options.write {
        let machine = Machine::look(Path::new("."), false);
        let head = format!(
            "Counted {} UTC, commit {}, {}, {}.\n\n",
            machine.date, machine.commit, machine.rustc, machine.processor
        );
        page::replace(&page, "instructions", &(head + &lines))?;
    }
    if worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nMore than 10 % worse than in {}:", page.display());
    worse.iter().for_each(|line| println!("  {line}"));
    Ok(ExitCode::FAILURE)
}

/// The instructions of one run.
fn count(program: &Path, name: &str, times: u64, profiles: Option<&Path>) -> Result<u64> {
    let out = match profiles {
        Some(dir) => {
            fs::create_dir_all(dir)?;
            dir.join(format!("{name}.callgrind"))
        }
        None => PathBuf::from("/dev/null"),
    };
    let output = Command::new("valgrind")
        // Else a copy, or zeroes, are one instruction for every byte to valgrind.
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824",
        )
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(name)
        .arg(times.to_string())
        .output()
        .context("cannot run valgrind: is it installed?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name} under valgrind failed:\n{said}"
    );
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.with_context(|| format!("valgrind does not say what it counted:\n{said}"))
}

/// The numbers of the part of the page, by name.
fn numbers(part: &str) -> BTreeMap<String, u64> {
    part.lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let digits: String = cells.get(2)?.chars().filter(char::is_ascii_digit).collect();
            Some((
                cells.get(3)?.trim_matches('`').to_owned(),
                digits.parse().ok()?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_read_as_it_is_written() {
        let part = format!("| append | {} | `append-one` |\n", super::number(123_456.0));
        let numbers = super::numbers(&part);
        assert_eq!(numbers.get("append-one"), Some(&123_456));
    }
}
