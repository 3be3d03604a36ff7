//! What systemd hears from the edge, by the protocol of sd_notify(3): when it is ready, when it stops, and that it works.
//!
//! "Works" is more than being alive: the store's threads must finish what they have begun. An edge that no longer gets
//! anything onto its disk stays silent, and systemd ends and restarts it after `WatchdogSec`.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use store::{Progress, Store};
use tokio_util::sync::CancellationToken;

/// Signs of life in one `WatchdogSec`: a late one is no reason for a restart.
const SIGNS: u32 = 4;

/// The process that started us and listens, if there is one.
pub struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    /// It wants a sign of life at least this often.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. `None`: nobody asked to be told.
    pub fn from_environment() -> io::Result<Option<Supervisor>> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let address = match name.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A supervisor that does not read must not hold up the devices.
        socket.set_nonblocking(true)?;
        let variable = |name| env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        Ok(Some(Supervisor {
            socket,
            address,
            watchdog,
        }))
    }

    fn say(&self, what: &str) {
        if let Err(error) = self.socket.send_to_addr(what.as_bytes(), &self.address) {
            tracing::warn!(%error, what, "systemd can not be told");
        }
    }

    pub fn ready(&self) {
        self.say("READY=1");
    }

    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Gives signs of life while `store` works, until `stop`.
    pub async fn watch(&self, store: Arc<Store>, stop: CancellationToken) {
        let Some(interval) = self.watchdog else {
            return;
        };
        let mut before = store.writers();
        loop {
            self.say("WATCHDOG=1");
            let works = async {
                loop {
                    tokio::time::sleep(interval / SIGNS).await;
                    let now = store.writers();
                    let stuck = is_stuck(&before, &now);
                    before = now;
                    if !stuck {
                        break;
                    }
                    tracing::error!(
                        "nothing gets onto the disk; if that lasts, the watchdog restarts the edge"
                    );
                }
            };
            tokio::select! {
                () = works => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

fn is_stuck(before: &[Progress], now: &[Progress]) -> bool {
    before
        .iter()
        .zip(now)
        .any(|(before, now)| now.is_stuck_since(before))
}

/// The interval, if the watchdog is meant for this process and not for one that started it.
fn watchdog(usec: Option<String>, pid: Option<String>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return None;
    }
    let usec = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_this_process_or_for_whoever_reads_it() {
        let me = std::process::id().to_string();
        let second = Some(Duration::from_secs(1));
        let table = [
            (None, None, None),
            (Some("1000000"), None, second),
            (Some("1000000"), Some(me.as_str()), second),
            (Some("1000000"), Some("1"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
        ];
        for (usec, pid, expected) in table {
            let got = watchdog(usec.map(Into::into), pid.map(Into::into));
            assert_eq!(got, expected, "{usec:?} {pid:?}");
        }
    }
}
