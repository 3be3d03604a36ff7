//! Where a run writes: one directory, gone when the run ends, however it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A directory that is removed when the value is dropped.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
}

/// Name of the directory, with the process id behind it.
const PREFIX: &str = "towline-bench-";

impl Scratch {
    /// Makes the directory in `parent`, and removes those that killed runs have left there.
    pub fn new(parent: &Path) -> io::Result<Scratch> {
        fs::create_dir_all(parent)?;
        for entry in fs::read_dir(parent)?.flatten() {
            let name = entry.file_name();
            let process = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .and_then(|id| id.parse::<u32>().ok());
            if process.is_some_and(has_ended) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let root = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&root)?;
        Ok(Scratch { root })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory in it that does not exist yet.
    pub fn fresh(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        remove(&path);
        fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.root);
    }
}

/// Whether there is no such process, or only its name is left.
fn has_ended(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.is_empty())
        || !Path::new(&format!("/proc/{id}")).exists()
}

/// Removes a directory that somebody may still be writing to.
pub fn remove(path: &Path) {
    for _ in 0..20 {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                thread::sleep(Duration::from_millis(20));
            }
            _ => return,
        }
    }
    eprintln!("cannot remove {}: remove it by hand", path.display());
}
