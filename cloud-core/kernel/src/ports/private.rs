//! Files and directories for the core's own user: they hold keys of passwords and all messages.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a directory, and its parents, that only their owner may enter (0700). One that exists is left as it is: who made it had a reason.
pub fn private_directory(path: &Path) -> io::Result<()> {
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
    use std::fs::{self, Permissions};
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
        for directory in ["a", "a/core", "a/core/wal", "a/core/wal/old"] {
            assert_eq!(mode(&dir.path().join(directory)), 0o700, "{directory}");
        }
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
