//! What an edge could not read at its starts and has set aside: asked of it once for each of its starts, and kept with it.
//!
//! The edge counts, durably, and names the file in which it does; what its counts have grown by since it was asked last is added here. So each
//! thing is counted once, whatever is asked twice or dies in between.

use std::collections::HashMap;

use bytes::Bytes;
use frontend::Context;
use kernel::{Command, Entry};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sync_quic::{AnswerStatus, EdgeConnection, Hello};

use crate::frontend::Sync;
use crate::limits;
use crate::queries::{Queries, QueryError};
use crate::time::now_ms;

/// The kernel table. Key: `EDGE`. Value: JSON of [`Row`].
const TABLE: &str = "sync.set_aside";

/// How much of what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub ledgers: u64,
    /// Single values of a ledger.
    pub values: u64,
    pub segments: u64,
    pub identities: u64,
}

impl Counts {
    fn each(self, other: Counts, op: fn(u64, u64) -> u64) -> Counts {
        Counts {
            ledgers: op(self.ledgers, other.ledgers),
            values: op(self.values, other.values),
            segments: op(self.segments, other.segments),
            identities: op(self.identities, other.identities),
        }
    }
}

/// What was set aside on all disks that an edge ever had.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    #[serde(flatten)]
    pub counts: Counts,
    /// When the core heard of the last, milliseconds since 1970.
    pub last_ms: i64,
}

/// What an edge answers.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Said {
    /// Of the file that counts: another one begins at nothing.
    #[serde(default)]
    id: String,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Row {
    said: Said,
    /// What it said before that, with other disks: the newest first.
    #[serde(default)]
    earlier: Vec<Said>,
    all: SetAside,
}

impl Row {
    /// False: there is nothing new.
    fn hear(&mut self, said: Said, now_ms: i64) -> bool {
        let mut known = std::iter::once(&self.said).chain(&self.earlier);
        let before = known.find(|known| known.id == said.id);
        let before = before.map_or_else(Counts::default, |known| known.counts);
        let more = said.counts.each(before, u64::saturating_sub);
        if more == Counts::default() {
            return false;
        }
        self.all.counts = self.all.counts.each(more, u64::saturating_add);
        self.all.last_ms = now_ms;
        self.earlier.retain(|earlier| earlier.id != said.id);
        let said = Said {
            // Of one file the counts only grow.
            counts: said.counts.each(before, u64::max),
            ..said
        };
        let last = std::mem::replace(&mut self.said, said);
        if last.id != self.said.id && !last.id.is_empty() {
            self.earlier.insert(0, last);
            self.earlier.truncate(limits::SET_ASIDE_DISKS);
        }
        true
    }
}

/// The last start of each edge that has answered since the core was started.
#[derive(Default)]
pub(crate) struct Asked(Mutex<HashMap<String, u64>>);

fn row(ctx: &Context, edge: &str) -> Option<Row> {
    let row = ctx.kernel.table_get(TABLE, edge.as_bytes())?;
    serde_json::from_slice(&row).ok()
}

/// `None`: nothing ever was.
pub(crate) fn of(ctx: &Context, edge: &str) -> Option<SetAside> {
    row(ctx, edge).map(|row| row.all)
}

/// Asks an edge that has been started since it was asked, and notes what is new.
pub(crate) async fn ask(
    sync: &Sync,
    hello: &Hello,
    connection: &EdgeConnection,
    queries: &Queries,
) {
    let edge = &hello.edge;
    if sync.asked.0.lock().get(edge) == Some(&hello.nonce) {
        return;
    }
    let answer = queries.ask(connection, "set-aside", Bytes::new(), limits::QUERY_TIMEOUT);
    match answer.await {
        Ok(json) => match serde_json::from_slice::<Said>(&json) {
            Ok(said) if said.id.len() > limits::MAX_SET_ASIDE_ID => {
                tracing::warn!(%edge, "the name of what the edge counts with is too long")
            }
            Ok(said) => {
                if let Err(error) = note(sync, edge, said).await {
                    // It is asked again over its next connection.
                    return tracing::warn!(%edge, %error, "what the edge has set aside is not noted");
                }
            }
            Err(error) => {
                tracing::warn!(%edge, %error, "what the edge says of what it has set aside is not understood")
            }
        },
        // Of a version that does not count.
        Err(QueryError::Refused {
            status: AnswerStatus::UnknownQuery,
            ..
        }) => {}
        Err(_) => return,
    }
    sync.asked.0.lock().insert(edge.clone(), hello.nonce);
}

async fn note(sync: &Sync, edge: &str, said: Said) -> Result<(), String> {
    // A connection that took over may bring the same.
    let _held = sync.registry.changing(edge).await;
    let mut row = row(&sync.ctx, edge).unwrap_or_default();
    if !row.hear(said, now_ms()) {
        return Ok(());
    }
    tracing::warn!(%edge, all = ?row.all.counts, "the edge could not read a part of what it had stored, and has set it aside");
    let json = serde_json::to_vec(&row).map_err(|error| error.to_string())?;
    let mut entry = Entry::new();
    entry.push(Command::TablePut {
        table: TABLE.into(),
        key: edge.to_owned().into(),
        value: json.into(),
    });
    let written = sync.ctx.kernel.write(entry).await;
    written.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_counted_once_over_answers_and_disks() {
        let mut row = Row::default();
        let said = |id: &str, ledgers, segments| Said {
            id: id.into(),
            counts: Counts {
                ledgers,
                segments,
                ..Counts::default()
            },
        };
        assert!(!row.hear(said("", 0, 0), 1));
        assert!(row.hear(said("a", 1, 0), 2));
        assert!(!row.hear(said("a", 1, 0), 3));
        assert!(row.hear(said("a", 1, 2), 4));
        // Another disk begins anew, and the first one again is none that was added.
        assert!(row.hear(said("b", 1, 0), 5));
        let SetAside { counts, last_ms } = row.all;
        assert_eq!((counts.ledgers, counts.segments, last_ms), (2, 2, 5));
        // Two disks in turns.
        assert!(!row.hear(said("a", 1, 2), 6) && !row.hear(said("b", 1, 0), 6));
        assert!(row.hear(said("a", 2, 2), 7) && !row.hear(said("b", 1, 0), 8));
        assert_eq!(row.all.counts.ledgers, 3);
        for n in 0..10 {
            assert!(row.hear(said(&n.to_string(), 1, 0), 9));
        }
        assert_eq!(row.earlier.len(), limits::SET_ASIDE_DISKS);
        let text = serde_json::to_string(&row).unwrap();
        let again: Row = serde_json::from_str(&text).unwrap();
        assert_eq!(again.all, row.all);
        let before = r#"{"said":{"id":"x","ledgers":1},"all":{"ledgers":1,"values":0,"segments":0,"identities":0,"last_ms":1}}"#;
        let mut row: Row = serde_json::from_str(before).unwrap();
        assert!(!row.hear(said("x", 1, 0), 2));
        let said: Said = serde_json::from_str(r#"{"id":"x","values":3,"later":1}"#).unwrap();
        assert_eq!((said.counts.values, said.counts.ledgers), (3, 0));
    }
}
