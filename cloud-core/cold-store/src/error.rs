//! Errors of stores in the words of the port, for people: which object, which store, what it said, and what to do.

use std::error::Error;

use kernel::ports::cold::ColdError;
use object_store::client::{HttpError, HttpErrorKind};

use crate::limits;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not understood.
    #[error("cold-url: {0}")]
    Url(String),
    /// The environment or the URL do not suffice, or contradict each other.
    #[error("cold store {location}: {reason}")]
    Settings {
        /// Which store.
        location: String,
        /// What is missing or wrong, and what to do.
        reason: String,
    },
    /// The directory cannot be used.
    #[error(
        "cannot use the directory {path} as cold store: {source}. It has to be writable, and on a file system with hard links"
    )]
    Directory {
        /// Which directory.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

const NO_CREDENTIALS: &str = "no credentials could be had. Set them in the environment of the core, or run it where the cloud provides them";
/// What object_store says when it is not the store that failed, but whoever should give the credentials: Google's and Azure's by its own words,
/// Amazon's by the address.
const OF_CREDENTIALS: [&str; 4] = [
    "Error performing token request",
    "Error getting token response body",
    "/latest/api/token ",
    "/latest/meta-data/iam/security-credentials",
];
/// What object_store says when the end of an upload failed.
const END_OF_UPLOAD: &str = "Error performing complete multipart request";

/// What was tried, for the message.
pub(crate) struct Call<'a> {
    pub verb: &'static str,
    pub key: &'a str,
    pub location: &'a str,
}

impl Call<'_> {
    /// An error that may pass.
    pub fn unavailable(&self, reason: impl std::fmt::Display) -> ColdError {
        ColdError::Unavailable(self.sentence(reason))
    }

    /// An error that stays.
    pub fn refused(&self, reason: impl std::fmt::Display) -> ColdError {
        ColdError::Refused(self.sentence(reason))
    }

    fn sentence(&self, reason: impl std::fmt::Display) -> String {
        let Call {
            verb,
            key,
            location,
        } = self;
        let space = if key.is_empty() { "" } else { " " };
        format!("cannot {verb}{space}{key} in {location}: {reason}")
    }

    /// The class of an error of object_store. Its own text is not passed on: it may hold addresses with tokens in them.
    pub fn failed(&self, error: &object_store::Error) -> ColdError {
        use object_store::Error as E;
        let text = chain(error);
        let said = Said::find(&text);
        // Before everything else: a status is not the store's then, and a 404 does not mean that an object is missing.
        if OF_CREDENTIALS.iter().any(|words| text.contains(words)) {
            return match said.status {
                Some(status) => self.unavailable(format_args!(
                    "{NO_CREDENTIALS} (who should give them answers {status})"
                )),
                None => self.unavailable(NO_CREDENTIALS),
            };
        }
        if said.code.as_deref() == Some("NoSuchBucket")
            || said.code.as_deref() == Some("ContainerNotFound")
        {
            return self.refused(format_args!(
                "{said}. Create it, or correct its name in cold-url"
            ));
        }
        match error {
            E::NotFound { .. } => ColdError::NotFound(self.key.to_owned()),
            // Somebody else writes that key at the moment: who was first is known later.
            E::AlreadyExists { .. }
                if said.code.as_deref() == Some("ConditionalRequestConflict") =>
            {
                self.unavailable(said)
            }
            E::AlreadyExists { .. } => ColdError::Exists(self.key.to_owned()),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => self.not_allowed(&said),
            E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::InvalidPath { .. }
            | E::Precondition { .. }
            | E::NotModified { .. }
            | E::UnknownConfigurationKey { .. } => self.refused(said),
            _ => self.by_status(error, &text, said),
        }
    }

    fn not_allowed(&self, said: &Said) -> ColdError {
        self.refused(format_args!(
            "{said}. Check the credentials in the environment of the core, and that they may read, write, list and delete there"
        ))
    }

    fn by_status(&self, error: &object_store::Error, text: &str, said: Said) -> ColdError {
        if let Some(http) = http_error(error) {
            return self.unavailable(match http.kind() {
                HttpErrorKind::Connect => {
                    "no connection. Is the endpoint right, and can it be reached from here?"
                }
                HttpErrorKind::Timeout => "no answer in time",
                _ => "the connection broke",
            });
        }
        match said.status {
            Some(408 | 425 | 429 | 500..=599) => self.unavailable(said),
            // Google's lists and ends of uploads come without a kind.
            Some(401 | 403) => self.not_allowed(&said),
            Some(404) if text.contains(END_OF_UPLOAD) => ColdError::NotFound(self.key.to_owned()),
            Some(301 | 307 | 308) => {
                self.refused(format_args!("{said}. Correct the region in cold-url"))
            }
            Some(_) => self.refused(said),
            // A store in memory knows no statuses.
            None if text.contains("Wanted range") => {
                self.refused("a range past the end of the object")
            }
            None if text.contains("redirect without LOCATION") => self.refused(
                "it answers with a redirection to nowhere. Correct the region in cold-url",
            ),
            None if text.contains("credential") || text.contains("token") => {
                self.unavailable(NO_CREDENTIALS)
            }
            None => self.unavailable(said),
        }
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push('\n');
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn http_error(error: &object_store::Error) -> Option<&HttpError> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http);
        }
        source = error.source();
    }
    None
}

/// What of the store's own words is fit to be shown: status, code and message, without the rest of the document, in which S3
/// repeats the access key and what was signed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
}

impl Said {
    fn find(text: &str) -> Said {
        Said {
            status: between(text, "status code: ", " ")
                .or_else(|| between(text, "status code: ", ":"))
                .and_then(|digits| digits.trim_end_matches(':').parse().ok()),
            code: between(text, "<Code>", "</Code>"),
            message: between(text, "<Message>", "</Message>"),
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.code, self.status) {
            (Some(code), Some(status)) => write!(f, "it answers {status} {code}")?,
            (Some(code), None) => write!(f, "it answers {code}")?,
            (None, Some(status)) => write!(f, "it answers {status}")?,
            (None, None) => write!(f, "it failed without saying why")?,
        }
        match &self.message {
            // Azure goes on with the number of the request and the time.
            Some(message) => {
                let first = message.lines().next().unwrap_or_default().trim();
                write!(f, " ({})", first.trim_end_matches('.'))
            }
            None => Ok(()),
        }
    }
}

fn between(text: &str, from: &str, to: &str) -> Option<String> {
    let start = text.find(from)? + from.len();
    let rest = text.get(start..)?;
    let found = rest.get(..rest.find(to)?)?.trim();
    (!found.is_empty() && found.len() <= limits::MAX_ERROR_BYTES).then(|| found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call<'_> = Call {
        verb: "read",
        key: "log/segments/1.segment",
        location: "s3://bucket",
    };

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn statuses_decide_whether_it_may_pass() {
        let status = |line: &str| {
            CALL.failed(&generic(&format!(
                "Server returned non-2xx status code: {line}: "
            )))
        };
        for line in [
            "500 Internal Server Error",
            "503 Service Unavailable",
            "429 Too Many Requests",
            "408 Request Timeout",
        ] {
            assert!(matches!(status(line), ColdError::Unavailable(_)), "{line}");
        }
        for line in [
            "400 Bad Request",
            "301 Moved Permanently",
            "416 Range Not Satisfiable",
            "411 Length Required",
        ] {
            assert!(matches!(status(line), ColdError::Refused(_)), "{line}");
        }
    }

    #[test]
    fn what_gives_credentials_is_not_the_store() {
        let token = "Error performing token request: Error performing GET http://metadata.google.internal/x in 1ms - Server returned non-2xx \
                     status code: 404 Not Found: ";
        let amazon = "Error performing GET http://169.254.169.254/latest/meta-data/iam/security-credentials/ in 1ms - Server returned non-2xx \
                      status code: 404 Not Found: ";
        for text in [token, amazon] {
            let error = CALL.failed(&generic(text));
            assert!(
                matches!(&error, ColdError::Unavailable(text) if text.contains("no credentials could be had") && text.contains("404")),
                "{error}"
            );
        }
    }

    #[test]
    fn messages_name_the_store_and_leak_nothing() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><Message>The \
                    signature does not match.</Message><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>";
        let error = CALL.failed(&object_store::Error::PermissionDenied {
            path: "x".into(),
            source: body.to_owned().into(),
        });
        let text = error.to_string();
        assert!(
            text.contains("s3://bucket") && text.contains("log/segments/1.segment"),
            "{text}"
        );
        assert!(
            text.contains("403 SignatureDoesNotMatch") && text.contains("credentials"),
            "{text}"
        );
        assert!(!text.contains("AKIASECRET"), "{text}");
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let error = CALL.failed(&object_store::Error::NotFound {
            path: "x".into(),
            source: "status code: 404 Not Found: <Code>NoSuchBucket</Code>".into(),
        });
        assert!(
            matches!(&error, ColdError::Refused(text) if text.contains("Create it")),
            "{error}"
        );
        let conflict = CALL.failed(&object_store::Error::AlreadyExists {
            path: "x".into(),
            source: "status code: 409 Conflict: <Code>ConditionalRequestConflict</Code>".into(),
        });
        assert!(matches!(conflict, ColdError::Unavailable(_)), "{conflict}");
    }
}
