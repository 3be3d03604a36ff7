//! What the figures were taken on.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// What one must know to compare figures with those of another day.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// UTC, to the minute.
    pub date: String,
    /// Commit of the source, with a `+` when it was changed since.
    pub commit: String,
    pub rustc: String,
    pub cores: usize,
    pub processor: String,
    pub memory_gib: u64,
    pub kernel: String,
    /// Of the directory that the run wrote to.
    pub file_system: String,
    /// Load average over a minute before the run: above 0.5, others had work, too.
    pub load_before: f64,
    pub quick: bool,
}

impl Machine {
    /// Looks around.
    pub fn look(dir: &Path, quick: bool) -> Machine {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let kib = field(&memory, "MemTotal")
            .trim_end_matches(" kB")
            .parse::<u64>();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let changed = !output("git", &["status", "--porcelain"]).is_empty();
        Machine {
            date: output("date", &["-u", "+%Y-%m-%d %H:%M"]),
            commit: output("git", &["rev-parse", "--short", "HEAD"])
                + if changed { "+" } else { "" },
            rustc: output("rustc", &["--version"]),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&cpu, "model name"),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            kernel: output("uname", &["-r"]),
            file_system: output("stat", &["-f", "-c", "%T", &dir.to_string_lossy()]),
            load_before: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            quick,
        }
    }

    /// In a sentence.
    pub fn text(&self) -> String {
        format!(
            "{} UTC, commit {}, {}; {} cores ({}), {} GiB, Linux {}, {}; load before the run {:.2}{}",
            self.date,
            self.commit,
            self.rustc,
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.file_system,
            self.load_before,
            if self.quick { "; quick run" } else { "" }
        )
    }
}

/// First line of what a program says; empty when it cannot be run.
fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().to_owned()
}
