//! A multipart upload whose parts and end can be repeated.

use std::sync::Arc;

use bytes::Bytes;
use kernel::ports::cold::{ColdError, ColdFuture, MIN_PART_BYTES, Upload};
use object_store::multipart::{MultipartStore, PartId};
use object_store::{MultipartId, ObjectStore, PutPayload};

use crate::limits;
use crate::remote::Shared;
use crate::retry::Patience;

pub(crate) struct RemoteUpload<S: ObjectStore + MultipartStore> {
    shared: Arc<Shared<S>>,
    key: String,
    /// `None` when the upload has ended, one way or the other.
    id: Option<MultipartId>,
    parts: Vec<PartId>,
    bytes: u64,
    /// The last part was smaller than [`MIN_PART_BYTES`], so none may follow.
    ended: bool,
}

impl<S: ObjectStore + MultipartStore> RemoteUpload<S> {
    pub async fn begin(shared: Arc<Shared<S>>, key: String) -> Result<Self, ColdError> {
        let (call, path) = (shared.call("begin", &key), shared.path(&key)?);
        // A begin whose answer is lost leaves an upload without parts behind, which costs nothing.
        let id = shared
            .patience
            .persist(&call, 0, |_| {
                let (store, call, path) = (&shared.store, &call, &path);
                async move {
                    let begun = store.create_multipart(path).await;
                    begun.map_err(|e| call.failed(&e))
                }
            })
            .await;
        let id = Some(missing_is_refused(id, &call)?);
        Ok(RemoteUpload {
            shared,
            key,
            id,
            parts: Vec::new(),
            bytes: 0,
            ended: false,
        })
    }

    async fn part(&mut self, bytes: Vec<Bytes>) -> Result<(), ColdError> {
        let call = self.shared.call("write", &self.key);
        let Some(id) = &self.id else {
            return Err(call.refused("the upload has ended"));
        };
        if self.ended {
            return Err(call.refused("a part of less than 5 MiB must be the last"));
        }
        let number = self.parts.len();
        if number >= limits::MAX_PARTS {
            return Err(call.refused(format_args!("more than {} parts", limits::MAX_PARTS)));
        }
        let path = self.shared.path(&self.key)?;
        let length: u64 = bytes.iter().map(|b| b.len() as u64).sum();
        let payload = PutPayload::from_iter(bytes);
        // A part of the same number takes the place of one whose answer was lost.
        let part = self
            .shared
            .patience
            .persist(&call, length, |_| {
                let (store, call, path, payload) =
                    (&self.shared.store, &call, &path, payload.clone());
                async move {
                    let put = store.put_part(path, id, number, payload).await;
                    put.map_err(|e| call.failed(&e))
                }
            })
            .await;
        let part = missing_is_refused(part, &call)?;
        self.parts.push(part);
        self.bytes += length;
        self.ended = length < MIN_PART_BYTES as u64;
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ColdError> {
        let call = self.shared.call("finish", &self.key);
        let Some(id) = &self.id else {
            return Err(call.refused("the upload has ended"));
        };
        if self.parts.is_empty() {
            // An upload of no parts cannot be completed.
            return self.shared.put(&self.key, Vec::new()).await;
        }
        let path = self.shared.path(&self.key)?;
        let patience = Patience {
            attempt: self.shared.patience.finish,
            ..self.shared.patience
        };
        let finished = patience
            .persist(&call, 0, |_| {
                let (store, call, path, parts) =
                    (&self.shared.store, &call, &path, self.parts.clone());
                async move {
                    let completed = store.complete_multipart(path, id, parts).await;
                    completed.map(drop).map_err(|e| call.failed(&e))
                }
            })
            .await;
        match finished {
            // The upload is gone: an attempt whose answer was lost has finished it, or somebody has removed it.
            Err(ColdError::NotFound(_)) => match self.shared.size(&self.key).await {
                Ok(size) if size == self.bytes => {}
                Ok(size) => {
                    return Err(call.refused(format_args!(
                        "the upload is gone, and the object has {size} bytes, not {}. It has to be written anew",
                        self.bytes
                    )));
                }
                Err(ColdError::NotFound(_)) => {
                    return Err(call.refused(
                        "the upload is gone (a lifecycle rule of the bucket?). It has to be written anew",
                    ));
                }
                Err(error) => return Err(error),
            },
            finished => finished?,
        }
        self.id = None;
        Ok(())
    }

    async fn abort(&mut self) -> Result<(), ColdError> {
        let Some(id) = &self.id else {
            return Ok(());
        };
        let call = self.shared.call("abort", &self.key);
        let path = self.shared.path(&self.key)?;
        let aborted = self
            .shared
            .patience
            .persist(&call, 0, |_| {
                let (store, call, path) = (&self.shared.store, &call, &path);
                async move {
                    let aborted = store.abort_multipart(path, id).await;
                    aborted.map_err(|e| call.failed(&e))
                }
            })
            .await;
        match aborted {
            Ok(()) | Err(ColdError::NotFound(_)) => {
                self.id = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// An upload that is not there is no object that is not there: it does not come back.
fn missing_is_refused<T>(
    result: Result<T, ColdError>,
    call: &crate::error::Call<'_>,
) -> Result<T, ColdError> {
    match result {
        Err(ColdError::NotFound(_)) => Err(call.refused(
            "the bucket or the upload is not there. Create the bucket, or have the object written anew",
        )),
        result => result,
    }
}

impl<S: ObjectStore + MultipartStore> Upload for RemoteUpload<S> {
    fn part(&mut self, bytes: Vec<Bytes>) -> ColdFuture<'_, ()> {
        Box::pin(RemoteUpload::part(self, bytes))
    }

    fn finish(&mut self) -> ColdFuture<'_, ()> {
        Box::pin(RemoteUpload::finish(self))
    }

    fn abort(&mut self) -> ColdFuture<'_, ()> {
        Box::pin(RemoteUpload::abort(self))
    }
}

impl<S: ObjectStore + MultipartStore> Drop for RemoteUpload<S> {
    /// Parts of an upload that nobody ends cost money for ever.
    fn drop(&mut self) {
        let (Some(id), Ok(path)) = (self.id.take(), self.shared.path(&self.key)) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let shared = self.shared.clone();
            runtime.spawn(async move {
                // One attempt: what stays is the business of a lifecycle rule.
                let aborting = shared.store.abort_multipart(&path, &id);
                let _ = tokio::time::timeout(shared.patience.attempt, aborting).await;
            });
        }
    }
}
