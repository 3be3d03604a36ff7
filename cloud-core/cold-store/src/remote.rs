//! Objects in a cloud, or in memory, through object_store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use kernel::ports::cold::{ColdError, ColdFuture, ColdObject, ColdStore, Upload};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::error::Call;
use crate::remote_upload::RemoteUpload;
use crate::retry::Patience;

/// A store behind object_store. Clones are the same store.
pub(crate) struct RemoteStore<S> {
    pub shared: Arc<Shared<S>>,
}

pub(crate) struct Shared<S> {
    pub store: S,
    /// First parts of every key; empty, or ending with a slash.
    pub prefix: String,
    pub location: String,
    pub local: bool,
    pub patience: Patience,
}

impl<S: ObjectStore + MultipartStore> Shared<S> {
    pub fn path(&self, key: &str) -> Result<Path, ColdError> {
        Path::parse(format!("{}{key}", self.prefix))
            .map_err(|_| ColdError::Refused(format!("{key} is no key of an object")))
    }

    pub fn call<'a>(&'a self, verb: &'static str, key: &'a str) -> Call<'a> {
        Call {
            verb,
            key,
            location: &self.location,
        }
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<(), ColdError> {
        let (call, path) = (self.call("create", key), self.path(key)?);
        let mut asked_before = false;
        let created = self
            .patience
            .persist(&call, bytes.len() as u64, |attempt| {
                asked_before = attempt > 0;
                let payload = PutPayload::from_bytes(bytes.clone());
                let options = PutOptions::from(PutMode::Create);
                let (call, path) = (&call, &path);
                async move {
                    let put = self.store.put_opts(path, payload, options).await;
                    put.map(drop).map_err(|e| call.failed(&e))
                }
            })
            .await;
        match created {
            // An earlier attempt may have done it, and its answer have been lost.
            Err(ColdError::Exists(_)) if asked_before => {
                let there = self.size(key).await?;
                if there == bytes.len() as u64 && self.get(key, 0..there).await? == bytes {
                    Ok(())
                } else {
                    Err(ColdError::Exists(key.to_owned()))
                }
            }
            decided => decided,
        }
    }

    /// Writes a whole object, whatever was there.
    pub async fn put(&self, key: &str, bytes: Vec<Bytes>) -> Result<(), ColdError> {
        let (call, path) = (self.call("write", key), self.path(key)?);
        let length = bytes.iter().map(|b| b.len() as u64).sum();
        let payload = PutPayload::from_iter(bytes);
        self.patience
            .persist(&call, length, |_| {
                let (call, path, payload) = (&call, &path, payload.clone());
                async move {
                    let put = self.store.put(path, payload).await;
                    put.map(drop).map_err(|e| call.failed(&e))
                }
            })
            .await
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, ColdError> {
        let (call, path) = (self.call("read", key), self.path(key)?);
        if range.start >= range.end {
            // No store has a request for no bytes; that the range lies within the object is seen by its size.
            let size = self.size(key).await?;
            return if range.start == range.end && range.end <= size {
                Ok(Bytes::new())
            } else {
                Err(call.refused(format_args!("it has {size} bytes, not {range:?}")))
            };
        }
        let length = range.end - range.start;
        self.patience
            .persist(&call, length, |_| {
                let (call, path, range) = (&call, &path, &range);
                async move {
                    let options = GetOptions {
                        range: Some(GetRange::Bounded(range.clone())),
                        ..GetOptions::default()
                    };
                    let found = match self.store.get_opts(path, options).await {
                        Ok(found) => found,
                        Err(error) => return Err(call.failed(&error)),
                    };
                    let size = found.meta.size;
                    if found.range != *range {
                        return Err(
                            call.refused(format_args!("it has {size} bytes, not {range:?}"))
                        );
                    }
                    let bytes = found.bytes().await.map_err(|e| call.failed(&e))?;
                    if bytes.len() as u64 == length {
                        Ok(bytes)
                    } else {
                        Err(call.unavailable("the answer was cut short"))
                    }
                }
            })
            .await
    }

    pub async fn size(&self, key: &str) -> Result<u64, ColdError> {
        let (call, path) = (self.call("look up", key), self.path(key)?);
        self.patience
            .persist(&call, 0, |_| {
                let (call, path) = (&call, &path);
                async move {
                    let found = self.store.head(path).await;
                    found.map(|meta| meta.size).map_err(|e| call.failed(&e))
                }
            })
            .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ColdObject>, ColdError> {
        let key = prefix.trim_end_matches('/');
        let (call, path) = (self.call("list", key), self.path(key)?);
        self.patience
            .persist(&call, 0, |_| {
                let (call, path) = (&call, &path);
                async move {
                    let found = self.store.list(Some(path));
                    let found: Vec<_> = found.try_collect().await.map_err(|e| call.failed(&e))?;
                    Ok(found
                        .into_iter()
                        .filter_map(|meta| {
                            let key = meta.location.as_ref().strip_prefix(&self.prefix)?;
                            Some(ColdObject {
                                key: key.to_owned(),
                                bytes: meta.size,
                                written_at: meta.last_modified.timestamp_millis(),
                            })
                        })
                        .collect())
                }
            })
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), ColdError> {
        let (call, path) = (self.call("delete", key), self.path(key)?);
        self.patience
            .persist(&call, 0, |_| {
                let (call, path) = (&call, &path);
                async move {
                    let deleted = self.store.delete(path).await;
                    match deleted.map_err(|e| call.failed(&e)) {
                        Err(ColdError::NotFound(_)) => Ok(()),
                        deleted => deleted,
                    }
                }
            })
            .await
    }
}

impl<S: ObjectStore + MultipartStore> ColdStore for RemoteStore<S> {
    fn create(&self, key: &str, bytes: Bytes) -> ColdFuture<'_, ()> {
        let key = key.to_owned();
        Box::pin(async move { self.shared.create(&key, bytes).await })
    }

    fn upload(&self, key: &str) -> ColdFuture<'_, Box<dyn Upload>> {
        let key = key.to_owned();
        Box::pin(async move {
            let upload = RemoteUpload::begin(self.shared.clone(), key).await?;
            Ok(Box::new(upload) as Box<dyn Upload>)
        })
    }

    fn get(&self, key: &str, range: Range<u64>) -> ColdFuture<'_, Bytes> {
        let key = key.to_owned();
        Box::pin(async move { self.shared.get(&key, range).await })
    }

    fn size(&self, key: &str) -> ColdFuture<'_, u64> {
        let key = key.to_owned();
        Box::pin(async move { self.shared.size(&key).await })
    }

    fn list(&self, prefix: &str) -> ColdFuture<'_, Vec<ColdObject>> {
        let prefix = prefix.to_owned();
        Box::pin(async move { self.shared.list(&prefix).await })
    }

    fn delete(&self, key: &str) -> ColdFuture<'_, ()> {
        let key = key.to_owned();
        Box::pin(async move { self.shared.delete(&key).await })
    }

    fn is_local(&self) -> bool {
        self.shared.local
    }

    fn location(&self) -> String {
        self.shared.location.clone()
    }
}
