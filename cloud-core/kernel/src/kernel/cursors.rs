//! Cursors: committed positions of named groups.

use bytes::Bytes;

use super::Kernel;
use crate::entry::{Command, CursorName, CursorPosition, Entry, Outcome};
use crate::error::WriteError;
use crate::stream::PartitionId;

impl Kernel {
    /// Sets positions of a group, durably: partition, next offset, the owner's note.
    pub async fn cursor_commit(
        &self,
        group: &CursorName,
        positions: Vec<(PartitionId, i64, Bytes)>,
    ) -> Result<(), WriteError> {
        let positions = positions
            .into_iter()
            .map(|(partition, offset, metadata)| CursorPosition {
                partition,
                offset,
                metadata,
                committed_at: 0,
            })
            .collect();
        self.write(Entry::new().with(Command::CursorCommit {
            group: group.clone(),
            positions,
        }))
        .await?;
        Ok(())
    }

    /// Positions of a group, by partition; empty when there is none.
    pub fn cursor(&self, group: &CursorName) -> Vec<CursorPosition> {
        self.core
            .state
            .cursors
            .read()
            .get(group)
            .map(|positions| positions.values().cloned().collect())
            .unwrap_or_default()
    }

    /// All groups that have positions.
    pub fn cursors(&self) -> Vec<CursorName> {
        self.core.state.cursors.read().keys().cloned().collect()
    }

    /// Deletes a group; false when there was none.
    pub async fn cursor_delete(&self, group: &CursorName) -> Result<bool, WriteError> {
        let command = Command::CursorDelete {
            group: group.clone(),
            partitions: None,
        };
        Ok(self.write(Entry::new().with(command)).await?.first() == Some(&Outcome::Done))
    }
}
