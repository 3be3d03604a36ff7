use std::path::PathBuf;

use crate::Origin;

/// Each says what is wrong, who set it, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}, line {line}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}, line {line}: unknown key `{key}`{}", path.display(), suggestion(did_you_mean.as_deref()))]
    UnknownKey {
        path: PathBuf,
        line: usize,
        key: String,
        did_you_mean: Option<String>,
    },
    #[error("{}, line {line}: `{key}` must be a text, a number or true/false, not {found}", path.display())]
    NotScalar {
        path: PathBuf,
        line: usize,
        key: String,
        found: &'static str,
    },
    #[error("{}, line {line}: `{key}` is a list: each of its sections begins with a line [[{key}]]", path.display())]
    NotSections {
        path: PathBuf,
        line: usize,
        key: String,
    },
    #[error("`{key}` = {value:?}, set by {origin}: {reason}")]
    Invalid {
        key: String,
        value: String,
        origin: Origin,
        reason: String,
    },
    #[error(
        "`{key}` is required: give --{key}, set {env}, or write `{key} = ...` into the configuration file"
    )]
    Missing { key: String, env: String },
    #[error("`[[{list}]] {key}` is required: write `{key} = ...` into the section at {origin}")]
    MissingInSection {
        list: String,
        key: String,
        origin: Origin,
    },
    /// What a program finds wrong with a section as a whole.
    #[error("[[{list}]] at {origin}: {reason}")]
    Section {
        list: String,
        origin: Origin,
        reason: String,
    },
    #[error("the environment variable {name} is not valid UTF-8")]
    NotUnicode { name: String },
}

fn suggestion(key: Option<&str>) -> String {
    key.map(|key| format!("; did you mean `{key}`?"))
        .unwrap_or_default()
}
