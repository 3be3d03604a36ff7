//! The cold store: which one, and whether it answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cold_store::Patience;
use kernel::ports::ColdStore;
use tokio_util::sync::CancellationToken;

use crate::config::CoreSettings;
use crate::data_dir::DataDir;

/// The directory of the data directory that is used where no URL is given.
const DIRECTORY: &str = "cold";
/// Pause between two looks at a store that did not answer.
const CHECK_AGAIN: Duration = Duration::from_secs(30);

/// Opens what `cold-url` names. That it answers is not needed for a start, see [`check`].
pub fn open(settings: &CoreSettings, data_dir: &DataDir) -> Result<Arc<dyn ColdStore>> {
    let store = match &settings.cold_url {
        Some(url) => cold_store::open(url, Patience::default()),
        None => cold_store::open_directory(&data_dir.path.join(DIRECTORY)),
    };
    store.context("cannot open the cold store")
}

/// Looks whether the store answers and keeps its word, until it did. Hot data is written and read meanwhile.
pub async fn check(store: Arc<dyn ColdStore>, shutdown: CancellationToken) {
    let location = store.location();
    if location == cold_store::MEMORY {
        tracing::warn!(
            "cold-url is memory: what is sealed is forgotten when this process ends. For tests only"
        );
    }
    let mut complained = false;
    loop {
        match cold_store::check(&*store).await {
            Ok(checked) => {
                if !checked.exclusive {
                    tracing::warn!(
                        %location,
                        "the cold store creates objects over existing ones (it ignores If-None-Match): two cores that run on copies of one \
                         data directory would not notice each other. Never start a copy beside the original"
                    );
                }
                if complained {
                    tracing::warn!(%location, "the cold store answers again");
                } else {
                    tracing::info!(%location, "the cold store answers");
                }
                return;
            }
            Err(error) if !complained => {
                complained = true;
                tracing::error!(
                    %location, %error,
                    "the cold store can not be used. New records are safe in the write-ahead log as long as that has room (wal-size), older ones \
                     cannot be read until it can"
                );
            }
            Err(error) => {
                tracing::debug!(%location, %error, "the cold store still can not be used")
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(CHECK_AGAIN) => {}
        }
    }
}
