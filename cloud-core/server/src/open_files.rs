//! The limit of open files: each connection is one.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files other than connections: the log and its segments, listeners, the admin interface.
const RESERVED: u64 = 1_024;

/// Raises the limit to what the process may have, and says so where that is less than `connections` a listener may need. Systems give
/// programs 1,024 at first, since some can not count further; this one can.
pub fn raise(connections: usize) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    }
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(RESERVED);
    // `None` = without limit.
    if let Some(maximum) = maximum
        && maximum < wanted
    {
        tracing::warn!(
            open_files = maximum,
            max_connections = connections,
            "fewer files may be open than max-connections needs: raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd) to {wanted} or more"
        );
    }
    Ok(())
}
