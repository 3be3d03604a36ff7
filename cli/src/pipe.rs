//! A reader that has enough, as in `towline debug wal FILE | head`.

use std::panic::{self, PanicHookInfo};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell shows for a program that was ended by SIGPIPE.
const STATUS: u8 = 128 + 13;

/// Runs the program; when nobody reads its output any more it ends without a word. `println!` panics then, which would be a backtrace; as the panic
/// unwinds, daemons that were started are stopped as ever.
pub fn end_quietly(program: fn() -> ExitCode) -> ExitCode {
    let nobody_reads = Arc::new(AtomicBool::new(false));
    let (seen, usual) = (nobody_reads.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        if is_broken_pipe(info) {
            seen.store(true, Ordering::Relaxed);
        } else {
            usual(info);
        }
    }));
    match panic::catch_unwind(program) {
        Ok(status) => status,
        Err(_) if nobody_reads.load(Ordering::Relaxed) => ExitCode::from(STATUS),
        Err(panic) => panic::resume_unwind(panic),
    }
}

fn is_broken_pipe(info: &PanicHookInfo<'_>) -> bool {
    info.payload_as_str().is_some_and(|said| {
        said.starts_with("failed printing to stdout") && said.contains("Broken pipe")
    })
}
