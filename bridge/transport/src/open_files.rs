//! The limit of open files: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises the limit to what the process may have, and says so where that is less than `connections` and `others` may need. Systems give programs
/// 1,024 at first, since some can not count further; these can.
pub fn raise(connections: usize, others: usize) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    let wanted = u64::try_from(connections.saturating_add(others)).unwrap_or(u64::MAX);
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
