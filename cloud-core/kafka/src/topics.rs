//! Topics by name and by id: streams of one namespace.

use std::collections::HashMap;
use std::sync::Arc;

use kernel::{Kernel, PartitionId, Stream, StreamId};
use parking_lot::Mutex;
use record::{AddressError, Namespace, StreamAddress, StreamName};
use uuid::Uuid;

/// Looks topics up.
pub struct Topics {
    kernel: Kernel,
    namespace: Namespace,
    /// Topic ids as of a generation of the kernel's set of streams.
    by_uuid: Mutex<(Option<u64>, HashMap<Uuid, StreamId>)>,
}

impl Topics {
    pub fn new(kernel: Kernel, namespace: Namespace) -> Topics {
        Topics {
            kernel,
            namespace,
            by_uuid: Mutex::default(),
        }
    }

    /// The address of a topic; an error when Kafka does not allow the name.
    pub fn address(&self, name: &str) -> Result<StreamAddress, AddressError> {
        Ok(StreamAddress::new(
            self.namespace.clone(),
            StreamName::new(name)?,
        ))
    }

    pub fn by_name(&self, name: &str) -> Option<Arc<Stream>> {
        self.kernel.stream(&self.address(name).ok()?)
    }

    pub fn by_uuid(&self, uuid: Uuid) -> Option<Arc<Stream>> {
        let generation = *self.kernel.watch_streams().borrow();
        let mut known = self.by_uuid.lock();
        if known.0 != Some(generation) {
            let ids = self
                .kernel
                .streams(&self.namespace)
                .iter()
                .map(|stream| (stream.uuid, stream.id))
                .collect();
            *known = (Some(generation), ids);
        }
        let id = *known.1.get(&uuid)?;
        drop(known);
        self.kernel.stream_by_id(id)
    }

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Stream>> {
        self.kernel.streams(&self.namespace)
    }

    /// The topic a partition belongs to, if it is one of these.
    pub fn of_partition(&self, partition: PartitionId) -> Option<Arc<Stream>> {
        self.kernel
            .stream_by_id(partition.stream)
            .filter(|stream| stream.address.namespace == self.namespace)
    }
}

/// The partition with this index.
pub fn partition(stream: &Stream, index: i32) -> Option<PartitionId> {
    let index = u32::try_from(index)
        .ok()
        .filter(|index| *index < stream.partitions)?;
    Some(stream.id.partition(index))
}

/// The leader epoch of a topic's partitions: the one their batches carry. A topic that is deleted and made again has a higher epoch than
/// before, which is what lets an old client notice.
pub fn leader_epoch(stream: &Stream) -> i32 {
    stream.id.partition(0).leader_epoch()
}
