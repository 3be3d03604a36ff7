//! Questions to an edge about itself, over the connection that it has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sync_quic::{AnswerFrame, AnswerStatus, Answers, EdgeConnection, QueryFrame};
use tokio::sync::{Semaphore, oneshot};

use crate::limits;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the edge is not connected")]
    NotConnected,
    #[error("the edge did not answer within {} s", limits::QUERY_TIMEOUT.as_secs())]
    Timeout,
    #[error(
        "{} questions to this edge are open already",
        sync::limits::MAX_QUERIES
    )]
    Busy,
    #[error(
        "the question is longer than {} bytes",
        sync::limits::MAX_QUERY_ARGUMENTS
    )]
    TooLong,
    /// The edge says why.
    #[error("{status}: {reason}")]
    Refused {
        status: AnswerStatus,
        reason: String,
    },
}

/// The open questions of one connection.
pub(crate) struct Queries {
    last_id: AtomicU32,
    open: Mutex<HashMap<u32, oneshot::Sender<AnswerFrame>>>,
    room: Semaphore,
}

impl Default for Queries {
    fn default() -> Self {
        Queries {
            last_id: AtomicU32::new(0),
            open: Mutex::default(),
            room: Semaphore::new(sync::limits::MAX_QUERIES),
        }
    }
}

impl Queries {
    /// Hands answers to those who wait for them, until the edge breaks the rules; never ends otherwise.
    pub(crate) async fn run(&self, mut answers: Answers) -> String {
        while let Some(answer) = answers.next().await {
            // One that comes too late is nobody's; its place was free when it was given up.
            if let Some(waiting) = self.open.lock().remove(&answer.id) {
                let _ = waiting.send(answer);
            } else if answer.id > self.last_id.load(Ordering::Relaxed) {
                return format!("answer {} to no question", answer.id);
            }
        }
        // The connection is over: whoever sees that ends all of it.
        std::future::pending().await
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(
        &self,
        connection: &EdgeConnection,
        what: &str,
        arguments: Bytes,
        wait: Duration,
    ) -> Result<Bytes, QueryError> {
        if what.len() > sync::limits::MAX_QUERY_NAME
            || arguments.len() > sync::limits::MAX_QUERY_ARGUMENTS
        {
            return Err(QueryError::TooLong);
        }
        let _room = self.room.try_acquire().map_err(|_| QueryError::Busy)?;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (answered, answer) = oneshot::channel();
        self.open.lock().insert(id, answered);
        let _given_up = GivenUp(self, id);
        connection.query(QueryFrame {
            id,
            what: what.to_owned(),
            arguments,
        });
        let answer = tokio::select! {
            answer = tokio::time::timeout(wait, answer) => answer,
            _ = connection.closed() => return Err(QueryError::NotConnected),
        };
        let answer = answer
            .map_err(|_| QueryError::Timeout)?
            .map_err(|_| QueryError::NotConnected)?;
        match answer.status {
            AnswerStatus::Answered => Ok(answer.json),
            status => Err(QueryError::Refused {
                status,
                reason: serde_json::from_slice(&answer.json)
                    .unwrap_or_else(|_| String::from_utf8_lossy(&answer.json).into_owned()),
            }),
        }
    }
}

/// Forgets a question when whoever asked it is gone.
struct GivenUp<'a>(&'a Queries, u32);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.open.lock().remove(&self.1);
    }
}
