//! Files and directories for the core's own user: they hold keys of passwords and all messages.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a directory that only its owner may enter (0700). One that exists is left as it is: who made it had a reason. What is missing above it is made
/// as the system makes directories: others may have theirs beside it.
pub fn private_directory(path: &Path) -> io::Result<()> {
    private_below(path, path)
}

/// The same where `path` is below `root`: from `root` on all that is missing is private.
pub fn private_below(root: &Path, path: &Path) -> io::Result<()> {
    if let Some(above) = root.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What a file is opened with that is made if it is missing: only its owner may read it then (0600).
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Disk, SystemDisk};
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_the_log_is_in_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/core");
        let disk = SystemDisk::new(&root).unwrap();
        disk.create_dir("wal/old").unwrap();
        disk.create("wal/1").unwrap();
        let _lock = disk.lock("lock").unwrap().unwrap();
        for directory in ["", "wal", "wal/old"] {
            assert_eq!(mode(&root.join(directory)), 0o700, "{directory}");
        }
        let usual = dir.path().join("usual");
        fs::create_dir(&usual).unwrap();
        assert_eq!(mode(&dir.path().join("a")), mode(&usual));
        for file in ["wal/1", "lock"] {
            assert_eq!(mode(&root.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn what_the_user_made_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
        SystemDisk::new(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o750);
    }
}
