//! The keys that tokens are signed with: where they come from, and keeping them fresh.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use frontend::identity::Jwt;
use reqwest::{Client, Url};
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
    Url(Url),
}

impl Source {
    /// An error does not hold the URL: it may have a password.
    fn parse(keys: &str) -> Result<Source> {
        if !keys.starts_with("https://") && !keys.starts_with("http://") {
            return Ok(Source::File(keys.into()));
        }
        let url = Url::parse(keys).context("jwt-keys is no URL")?;
        if !url.username().is_empty() || url.password().is_some() {
            bail!(
                "jwt-keys: credentials do not belong in the URL (it is logged). Sets of keys are public; one that is not can be a file"
            );
        }
        Ok(Source::Url(url))
    }

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

/// Where the URL says https, nothing is asked without it, however the server redirects: whoever is on the way could give keys of his own.
fn client_for(url: &Url) -> reqwest::Result<Client> {
    Client::builder()
        .timeout(ANSWER_WITHIN)
        .https_only(url.scheme() == "https")
        .build()
}

async fn fetch(url: &Url) -> Result<Vec<u8>> {
    let client = client_for(url)?;
    let mut answer = client.get(url.clone()).send().await?.error_for_status()?;
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
    let source = Source::parse(keys)?;
    if let Source::Url(_) = source {
        // An error is that another part of this process has chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_by_https_asks_nobody_without() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = format!("http://{}/keys", plain.local_addr().unwrap());
        let url = Url::parse("https://identity.example/keys").unwrap();
        // Nothing redirects here: it is asked for what a redirect would lead to.
        let refused = client_for(&url).unwrap().get(&there).send().await;
        assert!(refused.unwrap_err().is_builder());
        // The address is one that can be asked, by who may.
        let asked = async {
            let plain = client_for(&Url::parse(&there).unwrap()).unwrap();
            plain.get(&there).send().await.is_err()
        };
        let accepted = async { drop(plain.accept().await.unwrap()) };
        // Where nobody asks, nobody is accepted.
        let both = tokio::time::timeout(ANSWER_WITHIN, async { tokio::join!(asked, accepted) });
        assert_eq!(both.await, Ok((true, ())));
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_told() {
        for keys in [
            "https://core:hush@identity.example/keys",
            "http://hush@identity.example/keys",
            "https://core:hush@[identity/keys",
        ] {
            let Err(error) = Source::parse(keys) else {
                panic!("{keys}");
            };
            let said = format!("{error:#}");
            assert!(
                said.contains("jwt-keys") && !said.contains("hush"),
                "{said}"
            );
        }
        assert!(matches!(
            Source::parse("/etc/keys.json"),
            Ok(Source::File(_))
        ));
        assert!(matches!(
            Source::parse("https://identity.example/keys"),
            Ok(Source::Url(_))
        ));
    }
}
