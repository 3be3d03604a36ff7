//! What only shows between two steps of the writer.

use std::sync::Arc;
use std::task::{Context, Waker};

use record::{Namespace, StreamAddress, StreamName};
use tokio::sync::oneshot::error::TryRecvError;

use crate::ports::MemoryColdStore;
use crate::{Kernel, KernelConfig, Ports, StreamSpec};

#[test]
fn the_last_checkpoint_is_made_after_what_is_held_back() {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::system(dir.path(), Arc::new(MemoryColdStore::default())).unwrap();
    let config = KernelConfig {
        wal_file_bytes: 4096,
        wal_bytes: 4 * 4096,
        group_bytes: 4096,
        reader_threads: 0,
        ..KernelConfig::default()
    };
    let (kernel, mut stepper) = Kernel::open_stepped(ports, config).unwrap();
    let name = StreamName::new("s").unwrap();
    let address = StreamAddress::new(Namespace::default(), name);
    let mut created = Box::pin(kernel.create_stream(&address, StreamSpec::default()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(created.as_mut().poll(&mut context).is_pending());
    // Every file holds something that lives, so that none is freed.
    let mut builder = record::BatchBuilder::new();
    let record = record::NewRecord {
        timestamp: 1,
        key: None,
        value: Some(vec![b'v'; 3000].into()),
        headers: Vec::new(),
    };
    builder.push(&record).unwrap();
    let batch = builder.build().unwrap();
    while stepper.step() {}
    let partition = kernel.stream(&address).unwrap().id.partition(0);
    let append = || kernel.append(partition, batch.clone(), crate::SequenceRule::None);
    let sent: Vec<_> = (0..8).map(|_| append()).collect();
    while stepper.step() {}
    let (_, bytes) = kernel.core.intake.depth();
    assert!(bytes > 0, "nothing is held back");
    let mut last = kernel
        .core
        .snapshots
        .request(true, bytes::BytesMut::new())
        .unwrap();
    while stepper.step() {}
    assert_eq!(last.try_recv().err(), Some(TryRecvError::Empty));
    // Others need not wait.
    let mut other = kernel
        .core
        .snapshots
        .request(false, bytes::BytesMut::new())
        .unwrap();
    while stepper.step() {}
    assert!(other.try_recv().is_ok());
    // What waits is answered, with a refusal here, and then it is made.
    kernel.core.intake.close();
    while stepper.step() {}
    assert_eq!(kernel.core.intake.depth(), (0, 0));
    assert!(last.try_recv().is_ok());
    drop(sent);
}
