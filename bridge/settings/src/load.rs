//! Puts the layers on top of each other.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::{Declaration, Flags, Key, SettingsError, Value, file};

/// Who set a value; reads well after "set by".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Environment(String),
    File {
        path: PathBuf,
        line: usize,
    },
    Default,
    /// Nobody.
    Unset,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(key) => write!(f, "the flag --{key}"),
            Origin::Environment(name) => write!(f, "the environment variable {name}"),
            Origin::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Origin::Default => f.write_str("default"),
            Origin::Unset => f.write_str("nobody"),
        }
    }
}

/// Settings, and who set each of them.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    pub settings: T,
    origins: HashMap<String, Origin>,
}

impl<T> Loaded<T> {
    /// Who set `key` (as written in the file), for messages like "cannot listen on X, set by Y".
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Unset)
    }
}

/// Every value as text, with its origin, before it is parsed.
#[derive(Debug)]
pub struct Values(HashMap<String, (String, Origin)>);

impl Values {
    /// The value of the key that belongs to the Rust field `field`.
    pub fn get<V: Value>(&self, field: &str) -> Result<V, SettingsError> {
        let key = Key::new(field, "", None, false);
        let Some((value, origin)) = self.0.get(&key.name) else {
            let env = key.env();
            return V::absent().ok_or(SettingsError::Missing { key: key.name, env });
        };
        V::parse(value).map_err(|reason| SettingsError::Invalid {
            key: key.name,
            value: value.clone(),
            origin: origin.clone(),
            reason,
        })
    }
}

pub(crate) fn load<T: Declaration>(
    flags: &Flags<T>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Loaded<T>, SettingsError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let keys = T::keys();
    let mut values: HashMap<String, (String, Origin)> = HashMap::new();

    for key in &keys {
        if let Some(default) = key.default {
            values.insert(key.name.clone(), (default.to_owned(), Origin::Default));
        }
    }
    let config = flags
        .config
        .clone()
        .or_else(|| variable(&format!("{}CONFIG", crate::ENV_PREFIX)).map(PathBuf::from));
    if let Some(path) = config {
        for file::Entry { key, value, line } in file::read(&path, &keys)? {
            values.insert(
                key,
                (
                    value,
                    Origin::File {
                        path: path.clone(),
                        line,
                    },
                ),
            );
        }
    }
    for key in &keys {
        let name = key.env();
        if let Some(value) = variable(&name) {
            let value = value
                .into_string()
                .map_err(|_| SettingsError::NotUnicode { name: name.clone() })?;
            values.insert(key.name.clone(), (value, Origin::Environment(name)));
        }
        if let Some(value) = flags.given.get(&key.name) {
            values.insert(
                key.name.clone(),
                (value.clone(), Origin::Flag(key.name.clone())),
            );
        }
    }

    let values = Values(values);
    let settings = T::from_values(&values)?;
    Ok(Loaded {
        settings,
        origins: values
            .0
            .into_iter()
            .map(|(key, (_, origin))| (key, origin))
            .collect(),
    })
}
