//! The session of a connection, kept while it goes on.

use crate::backend::{Backend, StorageError};
use crate::connection::Connection;
use crate::deadlines::{save, snapshot};
use futures_util::future::BoxFuture;
use std::future::pending;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// Gives the mark of what it saved.
pub(crate) type Saving = BoxFuture<'static, (u64, Result<(), StorageError>)>;

pub(crate) async fn next_saved(saving: &mut Option<Saving>) -> (u64, Result<(), StorageError>) {
    match saving {
        Some(future) => future.await,
        None => pending().await,
    }
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    pub(crate) fn begin_save(&mut self) {
        let (saved, mark) = snapshot(&mut self.session);
        let (broker, client) = (self.broker.clone(), self.session.client_id().clone());
        // In a task: the host may hold a lock for it that others wait for, and this connection polls it only while it waits for nothing else.
        let saving = tokio::spawn(async move { broker.backend.save_session(&client, saved).await });
        let saving = AbortOnDropHandle::new(saving);
        self.saving = Some(Box::pin(async move {
            let result = saving.await;
            let result = result.unwrap_or_else(|error| Err(StorageError(error.to_string())));
            (mark, result)
        }));
    }

    /// Waits for a save that is under way, then saves what is now: for SUBACK and UNSUBACK.
    pub(crate) async fn save_now(&mut self) -> Result<(), StorageError> {
        if let Some(saving) = self.saving.take() {
            let (mark, result) = saving.await;
            result?;
            self.session.saved(mark);
        }
        save(&self.broker, &mut self.session).await
    }

    pub(crate) fn checkpoint(&mut self) {
        self.broker
            .backend
            .progress(self.session.client_id(), &self.session.checkpoints());
        self.checkpoint_at = None;
        if !self.session.is_persistent() {
            self.session.mark_clean();
        } else if self.saving.is_none() {
            self.begin_save();
        }
    }
}
