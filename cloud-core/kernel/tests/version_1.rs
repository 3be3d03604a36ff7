//! A data directory of format 1, as the version before wrote it, is opened and written on: `tests/version-1` is one that was killed.

use std::path::Path;
use std::sync::Arc;

use kernel::ports::Disk;
use kernel::{CursorName, HolderId, QueueName, SequenceRule};
use sim::batches::{address, batch, produced, values};
use sim::disk::SimDisk;
use sim::stepped::{drive, open};

#[test]
fn a_data_directory_of_format_1_is_opened() {
    let disk = SimDisk::default();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/version-1");
    for directory in ["wal", "checkpoint"] {
        disk.create_dir(directory).unwrap();
        for entry in std::fs::read_dir(root.join(directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let file = disk.create(&format!("{directory}/{name}")).unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            file.write_at(0, &[&bytes]).unwrap();
        }
    }
    for life in 0..2 {
        let (kernel, mut stepper) = open(&disk).unwrap();
        let stream = kernel.stream(&address("s")).unwrap();
        let (p, q) = (stream.id.partition(0), stream.id.partition(1));
        assert_eq!(kernel.watermarks(p).unwrap().log_start, 2);
        let found = drive(&mut stepper, values(&kernel, p, 2));
        let expected: Vec<String> = (2..20 + life).map(|n| format!("{n:0200}")).collect();
        assert_eq!(found, expected);
        let found = drive(&mut stepper, values(&kernel, q, 0));
        assert_eq!(found.len() as i64, 20 + life);
        assert_eq!(kernel.table_get("t", b"k").as_deref(), Some(&b"v"[..]));
        let cursor = kernel.cursor(&CursorName::from("g"));
        assert_eq!(cursor.first().map(|c| c.offset), Some(5));
        let queue = kernel.queue(&QueueName::from("q"), Arc::new(()));
        let left = drive(
            &mut stepper,
            queue.acquire(HolderId(1), usize::MAX, usize::MAX),
        );
        assert_eq!(left.first().map(|a| a.id.offset), Some(3));
        assert_eq!(left.len() as i64, 17 + life);
        drop(queue);
        // The producer goes on where it was.
        let value = format!("{:0200}", 20 + life);
        let sequence = 20 + i32::try_from(life).unwrap();
        let sent = produced(7, 0, sequence, &[&value]);
        let appended = drive(&mut stepper, kernel.append(p, sent, SequenceRule::Strict)).unwrap();
        assert!(!appended.duplicate);
        drive(
            &mut stepper,
            kernel.append(q, batch(&["new"]), SequenceRule::None),
        )
        .unwrap();
        drive(&mut stepper, kernel.maintain());
    }
}
