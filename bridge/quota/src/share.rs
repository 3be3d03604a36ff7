use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Quotas;
use crate::quotas::Account;

/// What one connection has of the quotas that are about it; the default is of none. The connection counts until it is dropped.
#[derive(Debug, Default)]
pub struct Share {
    quotas: Option<Arc<Quotas>>,
    accounts: Vec<Arc<Account>>,
    until: Option<Instant>,
}

impl Share {
    pub(crate) fn add(&mut self, quotas: &Arc<Quotas>, account: Arc<Account>) {
        self.quotas = Some(quotas.clone());
        self.accounts.push(account);
    }

    /// Nothing is limited.
    pub fn is_free(&self) -> bool {
        self.accounts.is_empty()
    }

    /// So much was read. Gives how long the client is not to be heard because of it.
    pub fn take(&mut self, messages: u64, bytes: u64, now: Instant) -> Duration {
        let waits = self
            .accounts
            .iter()
            .map(|account| account.take(messages, bytes, now));
        let wait = waits.max().unwrap_or_default();
        self.hold(wait, now);
        wait
    }

    /// Before anything is taken: who comes back is not to be heard for as long as he would have waited. Gives until when.
    pub fn begin(&mut self, now: Instant) -> Option<Instant> {
        let wait = self.owed(now);
        self.hold(wait, now);
        self.until(now)
    }

    fn hold(&mut self, wait: Duration, now: Instant) {
        if wait.is_zero() {
            return;
        }
        if self.until(now).is_none()
            && let Some(quotas) = &self.quotas
        {
            quotas.note_delay();
        }
        self.until = self.until.max(now.checked_add(wait));
    }

    /// How long until what was taken by any connection is made up for.
    pub fn owed(&self, now: Instant) -> Duration {
        let owed = self.accounts.iter().map(|account| account.owes(now));
        owed.max().unwrap_or_default()
    }

    /// The connection is refused because of what is owed.
    pub fn refuse(&self) {
        if let Some(quotas) = &self.quotas {
            quotas.note_refusal();
        }
    }

    /// The end of the last wait, which can be over.
    pub fn held_until(&self) -> Option<Instant> {
        self.until
    }

    /// When the client may be heard again; `None` = now.
    pub fn until(&mut self, now: Instant) -> Option<Instant> {
        self.until = self.until.filter(|until| *until > now);
        self.until
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        for account in &self.accounts {
            account.leave();
        }
    }
}
