//! The keys that tokens are signed with: where they come from, and keeping them fresh.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use frontend::identity::Jwt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a server may take for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Largest set of keys, in bytes.
const LARGEST_SET: usize = 1024 * 1024;
/// Between two looks at the source, however many tokens name a key that is not known.
const LEAST_PAUSE: Duration = Duration::from_secs(10);

enum Source {
    File(PathBuf),
    Url(String),
}

impl Source {
    async fn read(&self) -> Result<Vec<u8>> {
        match self {
            Source::File(path) => tokio::fs::read(path)
                .await
                .with_context(|| format!("cannot read {}", path.display())),
            Source::Url(url) => fetch(url)
                .await
                .with_context(|| format!("cannot fetch {url}")),
        }
    }
}

async fn fetch(url: &str) -> Result<Vec<u8>> {
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
    let mut answer = client.get(url).send().await?.error_for_status()?;
    let mut set = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if set.len() + chunk.len() > LARGEST_SET {
            bail!("the set of keys is larger than {LARGEST_SET} bytes");
        }
        set.extend_from_slice(&chunk);
    }
    Ok(set)
}

async fn load(source: &Source, jwt: &Jwt) -> Result<()> {
    let usable = jwt.set_keys(&source.read().await?)?;
    if usable == 0 {
        bail!("none of the keys is an RSA or EC key, or a secret of at least 32 bytes");
    }
    tracing::debug!(usable, "keys of tokens read");
    Ok(())
}

/// Reads the keys, and reads them again `every` so often and when a token names one that is not known. A file has to be there at the
/// start; a server that does not answer keeps nobody from starting: its tokens are refused until it does.
pub async fn start(
    jwt: Arc<Jwt>,
    keys: &str,
    every: Duration,
    shutdown: CancellationToken,
) -> Result<()> {
    let source = if keys.starts_with("https://") || keys.starts_with("http://") {
        // An error is that another part of this process has chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Source::Url(keys.to_owned())
    } else {
        Source::File(keys.into())
    };
    let first = load(&source, &jwt).await;
    if let Err(error) = &first {
        match source {
            Source::File(_) => return first.with_context(|| format!("jwt-keys = {keys}")),
            Source::Url(_) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "tokens are refused until their keys can be had"
                );
            }
        }
    }
    tokio::spawn(async move {
        let mut failed = first.is_err();
        loop {
            let read_at = Instant::now();
            let wait = if failed { LEAST_PAUSE } else { every };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(read_at + wait) => {}
                () = jwt.unknown_key() => tokio::time::sleep_until(read_at + LEAST_PAUSE).await,
            }
            let read = load(&source, &jwt).await;
            failed = read.is_err();
            if let Err(error) = read {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the keys of tokens could not be read again: those known from before hold"
                );
            }
        }
    });
    Ok(())
}
