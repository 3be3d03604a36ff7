//! A cold store in memory: for tests, and for cores that shall leave nothing behind.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::cold::{ColdError, ColdFuture, ColdObject, ColdStore, Upload};

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Objects in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryColdStore {
    objects: Objects,
}

struct MemoryUpload {
    objects: Objects,
    key: String,
    parts: BytesMut,
}

fn ready<T: Send + 'static>(result: Result<T, ColdError>) -> ColdFuture<'static, T> {
    Box::pin(std::future::ready(result))
}

impl ColdStore for MemoryColdStore {
    fn create(&self, key: &str, bytes: Bytes) -> ColdFuture<'_, ()> {
        let mut objects = self.objects.lock();
        if objects.contains_key(key) {
            return ready(Err(ColdError::Exists(key.to_owned())));
        }
        objects.insert(key.to_owned(), bytes);
        ready(Ok(()))
    }

    fn upload(&self, key: &str) -> ColdFuture<'_, Box<dyn Upload>> {
        ready(Ok(Box::new(MemoryUpload {
            objects: self.objects.clone(),
            key: key.to_owned(),
            parts: BytesMut::new(),
        })))
    }

    fn get(&self, key: &str, range: Range<u64>) -> ColdFuture<'_, Bytes> {
        let Some(object) = self.objects.lock().get(key).cloned() else {
            return ready(Err(ColdError::NotFound(key.to_owned())));
        };
        let wanted = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .filter(|(from, to)| from <= to && *to <= object.len());
        ready(match wanted {
            Some((from, to)) => Ok(object.slice(from..to)),
            None => Err(ColdError::Refused(format!(
                "{key} has {} bytes, not {range:?}",
                object.len()
            ))),
        })
    }

    fn size(&self, key: &str) -> ColdFuture<'_, u64> {
        let size = self.objects.lock().get(key).map(|o| o.len() as u64);
        ready(size.ok_or_else(|| ColdError::NotFound(key.to_owned())))
    }

    fn list(&self, prefix: &str) -> ColdFuture<'_, Vec<ColdObject>> {
        let objects = self.objects.lock();
        let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        ready(Ok(found
            .map(|(key, bytes)| ColdObject {
                key: key.clone(),
                bytes: bytes.len() as u64,
                written_at: 0,
            })
            .collect()))
    }

    fn delete(&self, key: &str) -> ColdFuture<'_, ()> {
        self.objects.lock().remove(key);
        ready(Ok(()))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn location(&self) -> String {
        "memory:".to_owned()
    }
}

impl Upload for MemoryUpload {
    fn part(&mut self, bytes: Vec<Bytes>) -> ColdFuture<'_, ()> {
        bytes
            .iter()
            .for_each(|part| self.parts.extend_from_slice(part));
        ready(Ok(()))
    }

    fn finish(&mut self) -> ColdFuture<'_, ()> {
        let object = self.parts.split().freeze();
        self.objects.lock().insert(self.key.clone(), object);
        ready(Ok(()))
    }

    fn abort(&mut self) -> ColdFuture<'_, ()> {
        self.parts.clear();
        ready(Ok(()))
    }
}
