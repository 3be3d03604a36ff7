//! What a process uses, from /proc.

use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time of all its threads since it began.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).context(path)?;
    // Behind the name, which may have anything in it.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let mut ticks = fields.split(' ').skip(11);
    let mut next = || -> Result<u64> { Ok(ticks.next().context("a short line")?.parse()?) };
    let ticks = next()? + next()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// Resident memory, bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).context(path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.context("no VmRSS")?.trim();
    let kib: u64 = line.trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
