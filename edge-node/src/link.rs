//! What is known of the link to the core, for metrics and logs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use sync_quic::Transport;

#[derive(Default)]
pub struct Link {
    up: AtomicBool,
    /// There is a connection, over which the core has been silent for a while although it owes an answer.
    silent: AtomicBool,
    /// How often it began to carry something again.
    revivals: AtomicU64,
    /// Messages that the core has committed since the start.
    pub delivered: AtomicU64,
    /// Messages that the core refused for good.
    pub refused: AtomicU64,
    pub connections: AtomicU64,
    state: Mutex<String>,
    transport: Mutex<Option<Transport>>,
}

impl Link {
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether what is written now is likely to go at once.
    pub fn carries(&self) -> bool {
        self.is_up() && !self.silent.load(Ordering::Relaxed)
    }

    pub fn set_silent(&self, silent: bool) {
        let was_silent = self.silent.swap(silent, Ordering::Relaxed);
        if was_silent && !silent {
            self.revivals.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Changes whenever it carries something again after a time in which it did not.
    pub fn revivals(&self) -> u64 {
        self.revivals.load(Ordering::Relaxed)
    }

    pub fn set_up(&self, core: &str, transport: Transport) {
        *self.transport.lock() = Some(transport);
        self.connections.fetch_add(1, Ordering::Relaxed);
        *self.state.lock() = format!("connected to {core}");
        self.silent.store(false, Ordering::Relaxed);
        self.revivals.fetch_add(1, Ordering::Relaxed);
        self.up.store(true, Ordering::Relaxed);
    }

    /// The same reason again and again is logged once.
    pub fn set_down(&self, reason: String) {
        self.up.store(false, Ordering::Relaxed);
        *self.transport.lock() = None;
        let mut state = self.state.lock();
        if *state != reason {
            tracing::warn!("{reason}");
            *state = reason;
        }
    }

    /// What carries the connection, while there is one.
    pub fn transport(&self) -> Option<Transport> {
        *self.transport.lock()
    }

    /// One sentence.
    pub fn state(&self) -> String {
        self.state.lock().clone()
    }
}
