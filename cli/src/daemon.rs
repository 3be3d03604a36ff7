//! A daemon of ours run as a child process: start it, wait for its ready line, stop it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a daemon may take from its start to its ready line. Recovery reads the log, so this is generous.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a daemon may take to flush after SIGTERM before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// What to run and how.
pub struct Launch<'a> {
    pub program: &'a Path,
    pub arguments: Vec<String>,
    /// The enrolment token, for an edge. Not an argument: those can be read by every user of the machine.
    pub token: Option<String>,
    /// Where its log lines (standard error) go; appended.
    pub log: PathBuf,
}

/// A running daemon that has said that it is ready.
pub struct Daemon {
    child: Child,
    name: String,
    ready: BTreeMap<String, String>,
}

impl Daemon {
    /// Starts the program and returns when it has printed its ready line.
    ///
    /// The child gets a process group of its own, so that Ctrl-C reaches only us and we can stop the daemons in order.
    pub async fn start(launch: Launch<'_>) -> Result<Daemon> {
        let name = launch
            .program
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&launch.log)
            .with_context(|| format!("can not open the log file {}", launch.log.display()))?;
        let log_start = log.metadata().map(|m| m.len()).unwrap_or(0);
        let mut command = Command::new(launch.program);
        // Our own settings are ours: what a child is to know is in its arguments.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(settings::ENV_PREFIX) {
                command.env_remove(variable);
            }
        }
        if let Some(token) = &launch.token {
            command.env("TOWLINE_TOKEN", token);
        }
        let mut child = command
            .args(&launch.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can not run {}", launch.program.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("the child has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(READY_WITHIN, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix("ready") {
                    return Ok(Some(parse_ready(rest)));
                }
            }
            std::io::Result::Ok(None)
        })
        .await;
        let why = match first {
            Ok(Ok(Some(ready))) => {
                // Keep the pipe drained for as long as the daemon lives.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Daemon { child, name, ready });
            }
            Ok(Ok(None)) => match child.wait().await {
                Ok(status) => format!("it stopped with {status}"),
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not ready within {READY_WITHIN:?}"),
        };
        bail!(
            "{name} did not start: {why}.\n{}\nIts log: {}",
            tail_of(&launch.log, log_start),
            launch.log.display()
        );
    }

    /// The address that the ready line names for a listener, if it is open.
    pub fn address(&self, listener: &str) -> Result<&str> {
        self.ready
            .get(listener)
            .map(String::as_str)
            .with_context(|| format!("{} has no listener for {listener}", self.name))
    }

    /// The address of a listener that may be off.
    pub fn open(&self, listener: &str) -> Option<&str> {
        self.ready
            .get(listener)
            .map(String::as_str)
            .filter(|a| *a != "off")
    }

    /// Resolves when the daemon has stopped by itself.
    pub async fn stopped(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// SIGTERM, then waits until it has flushed and gone. An exit status other than 0 is an error.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        match tokio::time::timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => bail!("{} stopped with {status}", self.name),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                let name = self.name.clone();
                self.kill().await?;
                bail!("{name} did not stop within {STOP_WITHIN:?} and was killed")
            }
        }
    }

    /// SIGKILL: what a crash looks like.
    pub async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            // The only failure is that it is gone already, which is what the caller wants.
            let _ = kill_process(pid, signal);
        }
    }
}

/// `mqtt=127.0.0.1:1883 kafka=off` as a map.
fn parse_ready(line: &str) -> BTreeMap<String, String> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .collect()
}

/// The last lines that were logged since `from`, for an error message.
fn tail_of(log: &Path, from: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let new = text.get(from as usize..).unwrap_or_default();
    let new = String::from_utf8_lossy(new);
    let lines: Vec<&str> = new.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_a_map_of_listeners() {
        let ready = parse_ready(" mqtt=127.0.0.1:1883 kafka=off admin=[::1]:8484");
        assert_eq!(ready["mqtt"], "127.0.0.1:1883");
        assert_eq!(ready["kafka"], "off");
        assert_eq!(ready["admin"], "[::1]:8484");
    }

    #[tokio::test]
    async fn a_daemon_that_dies_before_it_is_ready_is_an_error_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let error = Daemon::start(Launch {
            program: Path::new("/bin/sh"),
            arguments: vec!["-c".into(), "echo the disk is on fire >&2; exit 3".into()],
            token: None,
            log: dir.path().join("log"),
        })
        .await
        .err()
        .unwrap()
        .to_string();
        assert!(error.contains("the disk is on fire"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[tokio::test]
    async fn a_daemon_that_ignores_nothing_stops_on_sigterm() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(Launch {
            program: Path::new("/bin/sh"),
            arguments: vec![
                "-c".into(),
                "trap 'exit 0' TERM; echo ready mqtt=127.0.0.1:1; while :; do sleep 0.05; done"
                    .into(),
            ],
            token: None,
            log: dir.path().join("log"),
        })
        .await
        .unwrap();
        assert_eq!(daemon.address("mqtt").unwrap(), "127.0.0.1:1");
        daemon.stop().await.unwrap();
    }
}
