//! Memory, counted allocation by allocation: in a process of its own, since counting takes time.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::figure::{Figure, Goal};
use crate::run::Run;

pub fn measure(run: &mut Run) -> Result<()> {
    const GROUP: &str = "memory";
    let program = std::env::current_exe()?.with_file_name("bench-memory");
    let output = Command::new(&program)
        .args(run.quick.then_some("--quick"))
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{} failed", program.display());
    let found: BTreeMap<String, f64> = serde_json::from_slice(&output.stdout)?;
    let value = |name: &str| found.get(name).copied().context(name.to_owned());
    run.add(
        Figure::new(
            GROUP,
            "a partition that was never written",
            value("partition")?,
            "bytes",
        )
        .goal(Goal::AtMost(2048.0)),
    );
    run.add(
        Figure::new(
            GROUP,
            "a partition with one batch, no longer in the tail",
            value("partition-written")?,
            "bytes",
        )
        .goal(Goal::AtMost(2048.0)),
    );
    let messages = value("queue-messages")?;
    run.add(
        Figure::new(
            GROUP,
            format!("a queue of {} million ready messages", messages / 1e6),
            value("queue-bytes")? / 1_048_576.0,
            "MiB",
        )
        .goal(Goal::AtMost(64.0 * messages / 1e7)),
    );
    for (name, what) in [
        ("append-one", "append one 1 KiB record"),
        ("append-64k", "append a 64 KiB batch"),
        ("fetch-one", "fetch one batch of 1 KiB from the tail"),
        ("fetch-1m", "fetch 1 MiB (16 batches) from the tail"),
    ] {
        run.add(
            Figure::new(
                GROUP,
                format!("allocations: {what}"),
                value(&format!("{name}-allocations"))?,
                "allocations",
            )
            .note(format!("{:.0} bytes", value(&format!("{name}-bytes"))?)),
        );
    }
    Ok(())
}
