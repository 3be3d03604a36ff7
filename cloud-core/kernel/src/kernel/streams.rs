//! Streams: made, found, changed, deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use record::{Namespace, StreamAddress};
use tokio::sync::watch;
use uuid::Uuid;

use super::Kernel;
use crate::entry::{Command, Entry, Outcome};
use crate::error::{AlterStreamError, CreateStreamError, DeleteStreamError, WriteError};
use crate::limits;
use crate::stream::{Stream, StreamId, StreamSpec};
use crate::stream_config::StreamSetting;

impl Kernel {
    /// Creates a stream.
    pub async fn create_stream(
        &self,
        address: &StreamAddress,
        spec: StreamSpec,
    ) -> Result<Arc<Stream>, CreateStreamError> {
        let partitions = if spec.partitions == 0 {
            self.core.config.default_partitions
        } else {
            spec.partitions
        };
        if partitions > limits::MAX_PARTITIONS {
            return Err(CreateStreamError::Partitions(partitions));
        }
        check_config(&spec.config)
            .map_err(|(key, reason)| CreateStreamError::Config { key, reason })?;
        let exists = || CreateStreamError::Exists(address.to_string());
        if self.stream(address).is_some() {
            return Err(exists());
        }
        let command = Command::CreateStream {
            address: address.clone(),
            uuid: Uuid::new_v4(),
            partitions,
            config: spec.config,
        };
        match self.write(Entry::new().with(command)).await?.first() {
            // Gone again already: somebody deletes as fast as we create, and the caller's stream is deleted.
            Some(Outcome::StreamCreated(id)) => self
                .stream_by_id(*id)
                .ok_or(CreateStreamError::Write(WriteError::Closed)),
            _ => Err(exists()),
        }
    }

    /// The stream of that name; made with the defaults if it is missing.
    pub async fn ensure_stream(
        &self,
        address: &StreamAddress,
    ) -> Result<Arc<Stream>, CreateStreamError> {
        loop {
            if let Some(stream) = self.stream(address) {
                return Ok(stream);
            }
            match self.create_stream(address, StreamSpec::default()).await {
                // Somebody else was faster.
                Err(CreateStreamError::Exists(_)) => {}
                other => return other,
            }
        }
    }

    /// Deletes a stream and its records.
    pub async fn delete_stream(&self, address: &StreamAddress) -> Result<(), DeleteStreamError> {
        let unknown = || DeleteStreamError::Unknown(address.to_string());
        let stream = self.stream(address).ok_or_else(unknown)?.id;
        // It makes room: a full log must not be in its way. The same holds for settings of retention.
        match self
            .write_urgent(Entry::new().with(Command::DeleteStream { stream }))
            .await?
            .first()
        {
            Some(Outcome::Done) => Ok(()),
            _ => Err(unknown()),
        }
    }

    /// Raises the number of partitions to `total`.
    pub async fn add_partitions(
        &self,
        address: &StreamAddress,
        total: u32,
    ) -> Result<Arc<Stream>, AlterStreamError> {
        let stream = self
            .stream(address)
            .ok_or_else(|| AlterStreamError::Unknown(address.to_string()))?;
        let refuse = |current| AlterStreamError::Partitions {
            current,
            requested: total,
        };
        if total <= stream.partitions || total > limits::MAX_PARTITIONS {
            return Err(refuse(stream.partitions));
        }
        let outcomes = self
            .write(Entry::new().with(Command::AddPartitions {
                stream: stream.id,
                partitions: total,
            }))
            .await?;
        let stream = self
            .stream_by_id(stream.id)
            .ok_or_else(|| AlterStreamError::Unknown(address.to_string()))?;
        match outcomes.first() {
            Some(Outcome::Done) => Ok(stream),
            _ => Err(refuse(stream.partitions)),
        }
    }

    /// Replaces the configuration of a stream.
    pub async fn alter_stream_config(
        &self,
        address: &StreamAddress,
        config: BTreeMap<String, String>,
    ) -> Result<Arc<Stream>, AlterStreamError> {
        let unknown = || AlterStreamError::Unknown(address.to_string());
        check_config(&config).map_err(|(key, reason)| AlterStreamError::Config { key, reason })?;
        let stream = self.stream(address).ok_or_else(unknown)?.id;
        self.write_urgent(Entry::new().with(Command::AlterStream { stream, config }))
            .await?;
        self.stream_by_id(stream).ok_or_else(unknown)
    }

    /// The stream of that name.
    pub fn stream(&self, address: &StreamAddress) -> Option<Arc<Stream>> {
        self.core.state.directory.read().find(address).cloned()
    }

    /// The stream of that number.
    pub fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.core.state.stream(id)
    }

    /// All streams of a namespace, by name.
    pub fn streams(&self, namespace: &Namespace) -> Vec<Arc<Stream>> {
        let directory = self.core.state.directory.read();
        let Some(names) = directory.by_name.get(namespace) else {
            return Vec::new();
        };
        names
            .values()
            .filter_map(|id| directory.by_id.get(id).cloned())
            .collect()
    }

    /// A generation that moves when a stream is created, deleted or altered.
    pub fn watch_streams(&self) -> watch::Receiver<u64> {
        self.core.state.streams_changed.subscribe()
    }
}

/// What the kernel enforces must be what can be enforced; the other keys are their owner's.
fn check_config(config: &BTreeMap<String, String>) -> Result<(), (String, String)> {
    if config.len() > limits::MAX_STREAM_CONFIG_KEYS {
        return Err((
            String::new(),
            format!("more than {} keys", limits::MAX_STREAM_CONFIG_KEYS),
        ));
    }
    for (key, value) in config {
        if key.is_empty()
            || key.len() > limits::MAX_STREAM_CONFIG_BYTES
            || value.len() > limits::MAX_STREAM_CONFIG_BYTES
        {
            return Err((
                key.chars().take(64).collect(),
                format!(
                    "must be 1 to {} bytes long",
                    limits::MAX_STREAM_CONFIG_BYTES
                ),
            ));
        }
        if let Some(setting) = StreamSetting::find(key)
            && let Err(allowed) = setting.check(value)
        {
            return Err((key.clone(), format!("{value:?} must be {allowed}")));
        }
    }
    Ok(())
}
