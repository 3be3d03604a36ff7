//! What is measured of the kernel, one file each.

mod append;
mod durable;
mod memory;
mod partitions;
mod recovery;
mod router;
mod s3;
mod sealing;
mod tables;
mod tail;

use anyhow::Result;

use crate::device::WriteCounter;
use crate::figure::Figure;
use crate::run::Run;

/// What the device was given to write for what was appended, checkpoints and everything else included.
fn wear(group: &str, when: &str, written: u64, appended: u64, device: &WriteCounter) -> Figure {
    let what = format!("bytes written by bytes of batches appended, {when}");
    Figure::new(group, what, written as f64 / appended as f64, "×").note(device.source())
}

/// A measurement.
pub struct Measurement {
    /// What `--only` takes.
    pub name: &'static str,
    pub measure: fn(&mut Run) -> Result<()>,
}

/// All of them, in the order of the table.
pub const ALL: &[Measurement] = &[
    Measurement {
        name: "append",
        measure: append::measure,
    },
    Measurement {
        name: "sealing",
        measure: sealing::measure,
    },
    Measurement {
        name: "durable",
        measure: durable::measure,
    },
    Measurement {
        name: "page-cache",
        measure: append::page_cache,
    },
    Measurement {
        name: "tail",
        measure: tail::measure,
    },
    Measurement {
        name: "s3",
        measure: s3::measure,
    },
    Measurement {
        name: "recovery",
        measure: recovery::measure,
    },
    Measurement {
        name: "partitions",
        measure: partitions::measure,
    },
    Measurement {
        name: "memory",
        measure: memory::measure,
    },
    Measurement {
        name: "router",
        measure: router::measure,
    },
    Measurement {
        name: "tables",
        measure: tables::measure,
    },
];
