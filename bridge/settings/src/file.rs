//! The file layer: TOML with keys and lists of sections, every one known.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::{Key, List, SettingsError};

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

/// One section of a list.
pub(crate) struct Section<'a> {
    pub list: &'a List,
    pub line: usize,
    pub entries: Vec<Entry>,
}

/// What a file says, in its order.
pub(crate) struct Contents<'a> {
    pub entries: Vec<Entry>,
    pub sections: Vec<Section<'a>>,
}

pub(crate) fn read<'a>(
    path: &Path,
    keys: &[Key],
    lists: &'a [List],
) -> Result<Contents<'a>, SettingsError> {
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
    Text { path, text: &text }.parse(keys, lists)
}

struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Text<'_> {
    fn line_of(&self, at: usize) -> usize {
        let before = self.text.bytes().take(at);
        before.filter(|&byte| byte == b'\n').count() + 1
    }

    fn parse<'a>(&self, keys: &[Key], lists: &'a [List]) -> Result<Contents<'a>, SettingsError> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                return Err(SettingsError::Syntax {
                    path: self.path.to_owned(),
                    line: self.line_of(error.span().map_or(0, |span| span.start)),
                    message: error.message().to_owned(),
                });
            }
        };
        let mut scalars = DeTable::new();
        let mut sections = Vec::new();
        for (key, value) in table {
            match lists.iter().find(|list| list.name == **key.get_ref()) {
                Some(list) => self.sections(list, &key, value, &mut sections)?,
                None => {
                    scalars.insert(key, value);
                }
            }
        }
        let entries = self.entries(scalars, keys, lists, "")?;
        // The map has an order of its own; errors should come in the order of the file.
        sections.sort_by_key(|section: &Section<'_>| section.line);
        Ok(Contents { entries, sections })
    }

    fn sections<'a>(
        &self,
        list: &'a List,
        key: &Spanned<DeString<'_>>,
        value: Spanned<DeValue<'_>>,
        sections: &mut Vec<Section<'a>>,
    ) -> Result<(), SettingsError> {
        let not_sections = |at: usize| SettingsError::NotSections {
            path: self.path.to_owned(),
            line: self.line_of(at),
            key: list.name.clone(),
        };
        let DeValue::Array(array) = value.into_inner() else {
            return Err(not_sections(key.span().start));
        };
        for section in array {
            let line = self.line_of(section.span().start);
            let DeValue::Table(table) = section.into_inner() else {
                return Err(not_sections(key.span().start));
            };
            let within = format!("[[{}]] ", list.name);
            let entries = self.entries(table, &list.keys, &[], &within)?;
            sections.push(Section {
                list,
                line,
                entries,
            });
        }
        Ok(())
    }

    /// `within`: what is put before the names of keys in errors.
    fn entries(
        &self,
        table: DeTable<'_>,
        keys: &[Key],
        lists: &[List],
        within: &str,
    ) -> Result<Vec<Entry>, SettingsError> {
        let mut entries = Vec::new();
        for (key, value) in table {
            let (path, line) = (self.path.to_owned(), self.line_of(key.span().start));
            let key = key.into_inner().into_owned();
            if !keys.iter().any(|known| known.name == key) {
                let names = keys.iter().map(|key| &key.name);
                let names = names.chain(lists.iter().map(|list| &list.name));
                return Err(SettingsError::UnknownKey {
                    path,
                    line,
                    did_you_mean: similar(&key, names),
                    key: format!("{within}{key}"),
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
                        key: format!("{within}{key}"),
                        found: other.type_str(),
                    });
                }
            };
            entries.push(Entry { key, value, line });
        }
        entries.sort_by_key(|entry| entry.line);
        Ok(entries)
    }
}

fn similar<'a>(key: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    // Underscores are the likeliest slip, and no similarity measure should have to find that.
    let key = key.replace('_', "-").to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&key, name), name))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.clone())
}
