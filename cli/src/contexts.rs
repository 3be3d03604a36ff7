//! Contexts: names for "this core, with these credentials", kept in one file of the user's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The file, `contexts.toml`. It holds paths of credential files, never secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used when neither `--core` nor `--context` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default)]
    pub contexts: BTreeMap<String, Target>,
}

/// One core.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// URL of the admin listener. Absent: the one that the credentials name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<String>,
    pub credentials: PathBuf,
}

impl Contexts {
    /// `$XDG_CONFIG_HOME/towline/contexts.toml`, or the same below `~/.config`.
    pub fn path() -> Result<PathBuf> {
        let base = match std::env::var_os("XDG_CONFIG_HOME") {
            Some(folder) if !folder.is_empty() => PathBuf::from(folder),
            _ => {
                let home = std::env::var_os("HOME").context(
                    "neither XDG_CONFIG_HOME nor HOME is set, so there is no place for contexts; \
                     use --core and --credentials instead",
                )?;
                Path::new(&home).join(".config")
            }
        };
        Ok(base.join("towline").join("contexts.toml"))
    }

    pub fn load(path: &Path) -> Result<Contexts> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .with_context(|| format!("{} is not a contexts file", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(error).with_context(|| format!("can not read {}", path.display())),
        }
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let text = toml::to_string(self).map_err(std::io::Error::other)?;
            let new = path.with_extension("toml.new");
            std::fs::write(&new, text)?;
            std::fs::rename(&new, path)
        };
        write().with_context(|| format!("can not write {}", path.display()))
    }

    /// The named context, or the current one.
    pub fn pick(&self, name: Option<&str>) -> Result<&Target> {
        let Some(name) = name.or(self.current.as_deref()) else {
            bail!(
                "no core is named: use --core URL --credentials FILE, or make a context \
                 (towline context add NAME --core URL --credentials FILE), or start one here (towline up)"
            );
        };
        match self.contexts.get(name) {
            Some(target) => Ok(target),
            None => bail!("there is no context {name:?}; {}", self.known()),
        }
    }

    /// Adds or replaces a context. The first one becomes the current one.
    pub fn add(&mut self, name: &str, target: Target) {
        self.contexts.insert(name.to_owned(), target);
        self.current.get_or_insert_with(|| name.to_owned());
    }

    pub fn choose(&mut self, name: &str) -> Result<()> {
        if !self.contexts.contains_key(name) {
            bail!("there is no context {name:?}; {}", self.known());
        }
        self.current = Some(name.to_owned());
        Ok(())
    }

    fn known(&self) -> String {
        if self.contexts.is_empty() {
            return "there are none yet: towline context add NAME --core URL --credentials FILE"
                .to_owned();
        }
        let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        format!("there are: {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(core: &str) -> Target {
        Target {
            core: Some(core.to_owned()),
            credentials: "/c".into(),
        }
    }

    #[test]
    fn contexts_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("towline/contexts.toml");
        let mut contexts = Contexts::load(&path).unwrap();
        contexts.add("local", target("http://127.0.0.1:8484"));
        contexts.add("plant", target("http://127.0.0.1:9484"));
        contexts.choose("plant").unwrap();
        contexts.save(&path).unwrap();
        let again = Contexts::load(&path).unwrap();
        assert_eq!(
            again.pick(None).unwrap().core.as_deref(),
            Some("http://127.0.0.1:9484")
        );
        assert_eq!(
            again.pick(Some("local")).unwrap().core.as_deref(),
            Some("http://127.0.0.1:8484")
        );
    }

    #[test]
    fn an_unknown_context_is_an_error_that_names_the_known_ones() {
        let mut contexts = Contexts::default();
        assert!(
            contexts
                .pick(None)
                .err()
                .unwrap()
                .to_string()
                .contains("towline up")
        );
        contexts.add("plant", target("http://127.0.0.1:8484"));
        let error = contexts.pick(Some("plan")).err().unwrap().to_string();
        assert!(error.contains("there are: plant"), "{error}");
        assert!(contexts.choose("plan").is_err());
    }
}
