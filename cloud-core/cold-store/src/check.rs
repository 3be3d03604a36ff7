//! Does the store answer, and does it keep its word about creating only what is not there?

use bytes::Bytes;
use kernel::ports::ColdStore;
use kernel::ports::cold::ColdError;
use uuid::Uuid;

/// Objects made to try the store; they are deleted at once.
const PROBES: &str = "towline-probe";

/// What was seen of a store that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Whether an object that exists is protected from being created again. Where it is not, two cores that run on copies of one data
    /// directory cannot be kept apart.
    pub exclusive: bool,
}

/// Writes, reads and deletes a small object. An error says why the store cannot be used now, or at all.
pub async fn check(store: &dyn ColdStore) -> Result<Checked, ColdError> {
    let key = format!("{PROBES}/{}", Uuid::new_v4());
    let body = Bytes::from_static(b"first");
    store.create(&key, body.clone()).await?;
    let checked = look(store, &key, &body).await;
    // Also after a failure; that one is what is told then.
    let deleted = store.delete(&key).await;
    let checked = checked?;
    deleted?;
    Ok(checked)
}

async fn look(store: &dyn ColdStore, key: &str, body: &Bytes) -> Result<Checked, ColdError> {
    let again = store.create(key, Bytes::from_static(b"other")).await;
    let found = store.get(key, 0..body.len() as u64).await?;
    match again {
        Err(ColdError::Exists(_)) => Ok(Checked {
            exclusive: found == *body,
        }),
        Ok(()) => Ok(Checked { exclusive: false }),
        Err(error) => Err(error),
    }
}
