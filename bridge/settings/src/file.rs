//! The file layer: flat TOML, every key known.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::{Key, SettingsError};

/// A configuration file is a page of text; more is a mistake (a data file, a device).
const MAX_FILE: u64 = 1024 * 1024;

/// Below this similarity (Jaro-Winkler, 0 to 1) a suggestion would be a guess.
const SIMILAR: f64 = 0.75;

/// A value as text, and its line.
pub(crate) struct Entry {
    pub key: String,
    pub value: String,
    pub line: usize,
}

pub(crate) fn read(path: &Path, keys: &[Key]) -> Result<Vec<Entry>, SettingsError> {
    use std::io::Read;
    let unreadable = |error| SettingsError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(unreadable(std::io::Error::other(format!(
            "it is larger than {MAX_FILE} bytes"
        ))));
    }
    parse(path, &text, keys)
}

fn parse(path: &Path, text: &str, keys: &[Key]) -> Result<Vec<Entry>, SettingsError> {
    let path = path.to_owned();
    let line_of = |at: usize| text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1;
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let line = line_of(error.span().map_or(0, |span| span.start));
            return Err(SettingsError::Syntax {
                path,
                line,
                message: error.message().to_owned(),
            });
        }
    };
    let mut entries = Vec::new();
    for (key, value) in table {
        let line = line_of(key.span().start);
        let key = key.into_inner().into_owned();
        if !keys.iter().any(|known| known.name == key) {
            let did_you_mean = similar(&key, keys);
            return Err(SettingsError::UnknownKey {
                path,
                line,
                key,
                did_you_mean,
            });
        }
        let value = match value.into_inner() {
            DeValue::String(text) => text.into_owned(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(truth) => truth.to_string(),
            other => {
                return Err(SettingsError::NotScalar {
                    path,
                    line,
                    key,
                    found: other.type_str(),
                });
            }
        };
        entries.push(Entry { key, value, line });
    }
    // The map has an order of its own; errors should come in the order of the file.
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn similar(key: &str, keys: &[Key]) -> Option<String> {
    // Underscores are the likeliest slip, and no similarity measure should have to find that.
    let key = key.replace('_', "-").to_lowercase();
    keys.iter()
        .map(|known| (strsim::jaro_winkler(&key, &known.name), &known.name))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.clone())
}
