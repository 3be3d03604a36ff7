//! The URL of a cold store.

use std::path::PathBuf;

use url::Url;

use crate::error::OpenError;

/// Where a cold store is, as its URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `file:///path`
    Directory(PathBuf),
    /// `memory:`
    Memory,
    /// `s3://bucket/prefix?endpoint=URL&region=NAME&virtual-hosted=true`
    S3 {
        /// The bucket.
        bucket: String,
        /// First parts of every key; empty, or without a slash at its ends.
        prefix: String,
        /// Another server than Amazon's.
        endpoint: Option<Url>,
        /// The region; none: what the environment says, or `us-east-1`.
        region: Option<String>,
        /// Whether the bucket is in the host name; none: in the path.
        virtual_hosted: Option<bool>,
    },
    /// `gs://bucket/prefix?endpoint=URL`
    Google {
        /// The bucket.
        bucket: String,
        /// As for S3.
        prefix: String,
        /// Another server than Google's.
        endpoint: Option<Url>,
    },
    /// `az://container/prefix?account=NAME&endpoint=URL`
    Azure {
        /// The container.
        container: String,
        /// As for S3.
        prefix: String,
        /// The storage account; none: what the environment says.
        account: Option<String>,
        /// Another server than Azure's.
        endpoint: Option<Url>,
    },
}

impl Place {
    /// Understands a URL, or says what is wrong with it. The message never holds a password.
    pub fn parse(text: &str) -> Result<Place, OpenError> {
        let wrong = |reason: String| Err(OpenError::Url(reason));
        let Ok(url) = Url::parse(text) else {
            return wrong(
                "not a URL. It is one of file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, memory:"
                    .to_owned(),
            );
        };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong(format!(
                "credentials do not belong in the URL (it would be logged and shown). Set them in the environment: {}",
                credentials_of(url.scheme())
            ));
        }
        if url.fragment().is_some() || url.port().is_some() {
            return wrong(format!(
                "{text} has a port or a #fragment, which mean nothing here"
            ));
        }
        let mut asked = Asked::read(&url)?;
        let place = match url.scheme() {
            "memory" => Place::Memory,
            "file" => match url.to_file_path() {
                Ok(path) if path.parent().is_some() => Place::Directory(path),
                _ => {
                    return wrong(format!(
                        "{text} names no directory. Write file:///path with three slashes"
                    ));
                }
            },
            "s3" => Place::S3 {
                bucket: host(&url, "bucket")?,
                prefix: prefix(&url)?,
                endpoint: asked.address("endpoint")?,
                region: asked.take("region"),
                virtual_hosted: asked.boolean("virtual-hosted")?,
            },
            "gs" => Place::Google {
                bucket: host(&url, "bucket")?,
                prefix: prefix(&url)?,
                endpoint: asked.address("endpoint")?,
            },
            "az" => Place::Azure {
                container: host(&url, "container")?,
                prefix: prefix(&url)?,
                account: asked.take("account"),
                endpoint: asked.address("endpoint")?,
            },
            other => {
                return wrong(format!(
                    "{other}:// is no cold store. Use file, s3, gs, az or memory (S3-compatible servers: s3://bucket?endpoint=http://host:port)"
                ));
            }
        };
        asked.nothing_left(url.scheme())?;
        Ok(place)
    }

    /// The place for people: nothing secret is in it.
    pub(crate) fn describe(&self) -> String {
        let with = |scheme: &str, bucket: &str, prefix: &str, endpoint: &Option<Url>| {
            let slash = if prefix.is_empty() { "" } else { "/" };
            let at = endpoint
                .as_ref()
                .map(|e| format!(" at {}", e.as_str().trim_end_matches('/')))
                .unwrap_or_default();
            format!("{scheme}://{bucket}{slash}{prefix}{at}")
        };
        match self {
            Place::Directory(path) => format!("file://{}", path.display()),
            Place::Memory => crate::MEMORY.to_owned(),
            Place::S3 {
                bucket,
                prefix,
                endpoint,
                ..
            } => with("s3", bucket, prefix, endpoint),
            Place::Google {
                bucket,
                prefix,
                endpoint,
            } => with("gs", bucket, prefix, endpoint),
            Place::Azure {
                container,
                prefix,
                endpoint,
                ..
            } => with("az", container, prefix, endpoint),
        }
    }
}

/// Environment variables that a kind of store takes its credentials from.
pub(crate) fn credentials_of(scheme: &str) -> &'static str {
    match scheme {
        "gs" => "GOOGLE_APPLICATION_CREDENTIALS (a file) or GOOGLE_SERVICE_ACCOUNT_KEY",
        "az" => {
            "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, or AZURE_CLIENT_ID and its companions"
        }
        _ => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    }
}

fn host(url: &Url, what: &str) -> Result<String, OpenError> {
    match url.host_str() {
        Some(host) if !host.is_empty() => Ok(host.to_owned()),
        _ => Err(OpenError::Url(format!(
            "{0}:// names no {what}. Write {0}://{what}/prefix",
            url.scheme()
        ))),
    }
}

fn prefix(url: &Url) -> Result<String, OpenError> {
    let prefix = url.path().trim_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '=');
    if !prefix.chars().all(plain) || prefix.contains("//") {
        return Err(OpenError::Url(format!(
            "the prefix {prefix} may hold only letters, digits, - _ . = and single slashes"
        )));
    }
    Ok(prefix.to_owned())
}

/// The part of a URL after `?`.
struct Asked {
    pairs: Vec<(String, String)>,
}

impl Asked {
    fn read(url: &Url) -> Result<Asked, OpenError> {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(OpenError::Url(format!("{name} is there twice")));
            }
        }
        Ok(Asked { pairs })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    fn boolean(&mut self, name: &str) -> Result<Option<bool>, OpenError> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(OpenError::Url(format!("{name} is true or false"))),
        }
    }

    fn address(&mut self, name: &str) -> Result<Option<Url>, OpenError> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        match Url::parse(&text) {
            Ok(url)
                if matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none() =>
            {
                Ok(Some(url))
            }
            _ => Err(OpenError::Url(format!(
                "{name} is http://host:port or https://host:port, without credentials"
            ))),
        }
    }

    fn nothing_left(self, scheme: &str) -> Result<(), OpenError> {
        let known = match scheme {
            "s3" => "endpoint, region and virtual-hosted",
            "gs" => "endpoint",
            "az" => "account and endpoint",
            _ => "nothing",
        };
        match self.pairs.first() {
            // The value is not repeated: somebody may have put a secret there.
            Some((name, _)) => Err(OpenError::Url(format!(
                "{name} is unknown; after ? there may be {known}. Credentials are set in the environment: {}",
                credentials_of(scheme)
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_may_be() {
        let s3 = Place::parse(
            "s3://bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu-west-1&virtual-hosted=false",
        )
        .unwrap();
        let Place::S3 {
            bucket,
            prefix,
            endpoint,
            region,
            virtual_hosted,
        } = &s3
        else {
            panic!("{s3:?}")
        };
        assert_eq!((bucket.as_str(), prefix.as_str()), ("bucket", "a/b"));
        assert_eq!(
            endpoint.as_ref().unwrap().as_str(),
            "http://127.0.0.1:9000/"
        );
        assert_eq!(
            (region.as_deref(), *virtual_hosted),
            (Some("eu-west-1"), Some(false))
        );
        assert_eq!(s3.describe(), "s3://bucket/a/b at http://127.0.0.1:9000");
        assert_eq!(
            Place::parse("file:///var/lib/cold").unwrap(),
            Place::Directory("/var/lib/cold".into())
        );
        assert_eq!(Place::parse("memory:").unwrap(), Place::Memory);
        assert_eq!(Place::parse("gs://b").unwrap().describe(), "gs://b");
        assert_eq!(
            Place::parse("az://c/p?account=acc").unwrap().describe(),
            "az://c/p"
        );
    }

    #[test]
    fn what_is_wrong_is_said_without_secrets() {
        let table = [
            ("/var/lib/cold", "not a URL"),
            ("ftp://host/x", "ftp:// is no cold store"),
            ("s3:///prefix", "names no bucket"),
            ("s3://bucket?secret=hunter2", "secret is unknown"),
            ("s3://key:hunter2@bucket", "AWS_ACCESS_KEY_ID"),
            (
                "s3://b?endpoint=http://u:hunter2@h:1",
                "without credentials",
            ),
            ("s3://b?endpoint=localhost", "http://host:port"),
            ("s3://b?virtual-hosted=yes", "true or false"),
            ("s3://b?region=a&region=b", "twice"),
            ("s3://b/a//b", "single slashes"),
            ("s3://b/a%20b", "only letters"),
            ("file:///", "names no directory"),
            ("file:///a?x=1", "x is unknown"),
            ("gs://b?region=x", "region is unknown"),
        ];
        for (url, expected) in table {
            let error = Place::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }
}
