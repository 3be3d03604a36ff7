//! `bench kernel`: figures of the core beside those of the machine. `bench instructions`: instructions per operation.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bench::kernel_figures::{ALL, Measurement};
use bench::machine::Machine;
use bench::report::{self, Report};
use bench::run::Run;
use bench::{instructions, page, scratch};
use clap::{Args, Parser};

/// Measures Towline. Each figure stands beside what the machine itself gives, taken in turns with it.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/run")]
enum Command {
    /// The log: append, read, recovery, queues, routers, tables
    Kernel(KernelArgs),
    /// Instructions per append and per fetch, by callgrind, compared with docs/reference/performance.md
    Instructions(instructions::Options),
}

#[derive(Debug, Args)]
struct KernelArgs {
    /// Writes all figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Puts the figures into docs/reference/performance.md, or a page with the same marks
    #[arg(long, value_name = "FILE")]
    markdown: Option<Option<PathBuf>>,
    /// Less data, fewer turns: a minute instead of several
    #[arg(long)]
    quick: bool,
    /// Only these measurements (may be given several times)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where data goes, on the device to be measured
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Kernel(args) => kernel(&args),
        Command::Instructions(options) => instructions::run(&options),
    }
}

fn kernel(args: &KernelArgs) -> Result<ExitCode> {
    let chosen = chosen(&args.only)?;
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut run = Run::new(&dir, args.quick)?;
    clean_up_when_told_to_stop(&run);
    let machine = Machine::look(&dir, args.quick);
    println!("{}\n", machine.text());
    for measurement in chosen {
        let first = run.figures.len();
        (measurement.measure)(&mut run)
            .with_context(|| format!("measuring {}", measurement.name))?;
        println!("{}", report::table(&run.figures[first..]));
    }
    let figures = std::mem::take(&mut run.figures);
    let missed = figures.iter().filter(|f| f.met == Some(false)).count();
    let asked = figures.iter().filter(|f| f.met.is_some()).count();
    println!("{} of {asked} goals met", asked - missed);
    let report = Report { machine, figures };
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_string_pretty(&report)?)
            .with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &args.markdown {
        let file = file.clone().unwrap_or_else(page::path);
        page::replace(&file, "kernel", &report::markdown(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Measurement>> {
    let known = || ALL.iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
    for name in names {
        if !ALL.iter().any(|measurement| measurement.name == name) {
            bail!("there is no measurement {name}; there are {}", known());
        }
    }
    let chosen = ALL
        .iter()
        .filter(|m| names.is_empty() || names.iter().any(|name| name == m.name));
    Ok(chosen.collect())
}

/// After Ctrl-C, or when asked by the system, nothing stays behind.
fn clean_up_when_told_to_stop(run: &Run) {
    use tokio::signal::unix::{SignalKind, signal};
    let root = run.scratch.root().to_owned();
    run.runtime.spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        scratch::remove(&root);
        std::process::exit(130);
    });
}
