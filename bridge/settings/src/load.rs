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

/// Every value as text, with its origin, before it is parsed: of the settings, or of one section of a list.
#[derive(Debug, Clone, Default)]
pub struct Values {
    values: HashMap<String, (String, Origin)>,
    lists: HashMap<String, Vec<Values>>,
    /// Of a section: the name of its list, and where it begins.
    section: Option<(String, Origin)>,
}

impl Values {
    /// The value of the key that belongs to the Rust field `field`.
    pub fn get<V: Value>(&self, field: &str) -> Result<V, SettingsError> {
        let key = Key::new(field, "", None, false);
        let Some((value, _)) = self.values.get(&key.name) else {
            return V::absent().ok_or_else(|| match &self.section {
                Some((list, origin)) => SettingsError::MissingInSection {
                    list: list.clone(),
                    key: key.name,
                    origin: origin.clone(),
                },
                None => SettingsError::Missing {
                    env: key.env(),
                    key: key.name,
                },
            });
        };
        V::parse(value).map_err(|reason| self.invalid(&key.name, reason))
    }

    /// The sections of the list that belongs to the Rust field `field`, in the order of the file.
    pub fn list<T: Declaration>(&self, field: &str) -> Result<Vec<Section<T>>, SettingsError> {
        let name = Key::new(field, "", None, false).name;
        let sections = self.lists.get(&name).into_iter().flatten();
        let parsed = sections.map(|values| {
            let settings = T::from_values(values)?;
            let values = values.clone();
            Ok(Section { settings, values })
        });
        parsed.collect()
    }

    fn invalid(&self, key: &str, reason: String) -> SettingsError {
        let (value, origin) = match self.values.get(key) {
            Some((value, origin)) => (value.clone(), origin.clone()),
            None => (String::new(), Origin::Unset),
        };
        let key = match &self.section {
            Some((list, _)) => format!("[[{list}]] {key}"),
            None => key.to_owned(),
        };
        SettingsError::Invalid {
            key,
            value,
            origin,
            reason,
        }
    }
}

/// One section of a list, and where it stands in the file.
#[derive(Debug, Clone)]
pub struct Section<T> {
    pub settings: T,
    values: Values,
}

impl<T> Section<T> {
    /// Has the file set this key? (As it is written there.)
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        matches!(self.values.values.get(key), Some((_, Origin::File { .. })))
    }

    /// An error about one key of this section, which the file may have set or left out.
    #[must_use]
    pub fn wrong_key(&self, key: &str, reason: impl Into<String>) -> SettingsError {
        if self.values.values.contains_key(key) {
            self.values.invalid(key, reason.into())
        } else {
            self.wrong(reason)
        }
    }

    /// An error about this section.
    #[must_use]
    pub fn wrong(&self, reason: impl Into<String>) -> SettingsError {
        let (list, origin) = match &self.values.section {
            Some((list, origin)) => (list.clone(), origin.clone()),
            None => (String::new(), Origin::Unset),
        };
        SettingsError::Section {
            list,
            origin,
            reason: reason.into(),
        }
    }
}

fn defaults(keys: &[Key]) -> HashMap<String, (String, Origin)> {
    let set = keys.iter().filter_map(|key| {
        let default = key.default?;
        Some((key.name.clone(), (default.to_owned(), Origin::Default)))
    });
    set.collect()
}

pub(crate) fn load<T: Declaration>(
    flags: &Flags<T>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Loaded<T>, SettingsError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let (keys, lists) = (T::keys(), T::lists());
    let mut values = defaults(&keys);
    let mut sections: HashMap<String, Vec<Values>> = HashMap::new();

    let config = flags
        .config
        .clone()
        .or_else(|| variable(&format!("{}CONFIG", crate::ENV_PREFIX)).map(PathBuf::from));
    if let Some(path) = config {
        let origin = |line| Origin::File {
            path: path.clone(),
            line,
        };
        let set = |values: &mut HashMap<String, (String, Origin)>, entries: Vec<file::Entry>| {
            for file::Entry { key, value, line } in entries {
                values.insert(key, (value, origin(line)));
            }
        };
        let read = file::read(&path, &keys, &lists)?;
        set(&mut values, read.entries);
        for section in read.sections {
            let mut of_section = Values {
                values: defaults(&section.list.keys),
                section: Some((section.list.name.clone(), origin(section.line))),
                ..Values::default()
            };
            set(&mut of_section.values, section.entries);
            sections
                .entry(section.list.name.clone())
                .or_default()
                .push(of_section);
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

    let values = Values {
        values,
        lists: sections,
        section: None,
    };
    let settings = T::from_values(&values)?;
    Ok(Loaded {
        settings,
        origins: values
            .values
            .into_iter()
            .map(|(key, (_, origin))| (key, origin))
            .collect(),
    })
}
