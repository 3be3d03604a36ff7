//! The directory tree: names as the process sees them, as they are on the platter, and the changes between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};

use super::file::Contents;

pub type File = Arc<Mutex<Contents>>;

/// One change of a directory.
#[derive(Clone)]
enum Change {
    Made(String),
    Created(String, File),
    Removed(String, File),
    Renamed(String, String, File),
}

/// Names of files and directories.
#[derive(Clone, Default)]
pub struct Names {
    pub files: BTreeMap<String, File>,
    directories: BTreeSet<String>,
}

impl Names {
    fn apply(&mut self, change: &Change) {
        let is = |names: &Names, name: &str, file: &File| {
            names
                .files
                .get(name)
                .is_some_and(|found| Arc::ptr_eq(found, file))
        };
        match change {
            Change::Made(name) => {
                self.directories.insert(name.clone());
            }
            Change::Created(name, file) => {
                self.files.insert(name.clone(), file.clone());
            }
            // Another file may have that name if a change in between did not get there.
            Change::Removed(name, file) => {
                if is(self, name, file) {
                    self.files.remove(name);
                }
            }
            Change::Renamed(from, to, file) => {
                if is(self, from, file) {
                    self.files.remove(from);
                }
                self.files.insert(to.clone(), file.clone());
            }
        }
    }

    /// Names of the directories in a directory.
    pub fn directories_in(&self, directory: &str) -> Vec<String> {
        let paths = self.directories.iter();
        let inside = paths.filter(|path| parent(path) == directory && !path.is_empty());
        let names = inside.map(|path| path.rsplit('/').next().unwrap_or_default());
        names.map(str::to_owned).collect()
    }

    pub fn has_directory(&self, name: &str) -> bool {
        name.is_empty() || self.directories.contains(name)
    }
}

/// The tree now, and what of it is durable.
#[derive(Clone, Default)]
pub struct Tree {
    pub now: Names,
    durable: Names,
    /// Directory and change, oldest first.
    pending: Vec<(String, Change)>,
}

impl Tree {
    /// A tree that was found after a restart.
    fn at_rest(names: Names) -> Tree {
        Tree {
            durable: names.clone(),
            now: names,
            pending: Vec::new(),
        }
    }

    fn change(&mut self, directory: &str, change: Change) {
        self.now.apply(&change);
        self.pending.push((directory.to_owned(), change));
    }

    pub fn make(&mut self, directory: &str) {
        let mut path = String::new();
        for part in directory.split('/') {
            let parent = path.clone();
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            if !self.now.has_directory(&path) {
                self.change(&parent, Change::Made(path.clone()));
            }
        }
    }

    pub fn create(&mut self, path: &str) -> File {
        let file = File::default();
        self.change(parent(path), Change::Created(path.to_owned(), file.clone()));
        file
    }

    pub fn remove(&mut self, path: &str, file: File) {
        self.change(parent(path), Change::Removed(path.to_owned(), file));
    }

    pub fn rename(&mut self, from: &str, to: &str, file: File) {
        assert_eq!(parent(from), parent(to), "renames stay in their directory");
        self.change(
            parent(from),
            Change::Renamed(from.to_owned(), to.to_owned(), file),
        );
    }

    pub fn sync(&mut self, directory: &str) {
        let pending = std::mem::take(&mut self.pending);
        for (place, change) in pending {
            if place == directory {
                self.durable.apply(&change);
            } else {
                self.pending.push((place, change));
            }
        }
    }

    /// The names after a power cut: the durable ones, and of the changes since none, all, the first ones, or any.
    pub fn after_power_cut(&self, rng: &mut StdRng) -> Names {
        let mut names = self.durable.clone();
        let first = rng.random_range(0..=self.pending.len());
        let mode = rng.random_range(0..4);
        for (position, (_, change)) in self.pending.iter().enumerate() {
            let there = match mode {
                0 => false,
                1 => true,
                2 => position < first,
                _ => rng.random_bool(0.5),
            };
            if there {
                names.apply(change);
            }
        }
        // A directory that is not there has no files.
        let directories = names.directories.clone();
        names
            .directories
            .retain(|name| parent(name).is_empty() || directories.contains(parent(name)));
        let kept = names.clone();
        names
            .files
            .retain(|path, _| kept.has_directory(parent(path)));
        names
    }

    /// The tree with those names, each file passed through `file`.
    pub fn rebuilt(names: &Names, mut file: impl FnMut(&File) -> Contents) -> Tree {
        let mut found = names.clone();
        for contents in found.files.values_mut() {
            *contents = Arc::new(Mutex::new(file(contents)));
        }
        Tree::at_rest(found)
    }
}

/// The directory of a path.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
