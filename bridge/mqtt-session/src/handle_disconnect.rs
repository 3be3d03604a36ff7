//! DISCONNECT (section 3.14), and the end of a connection without one.

use crate::session::PendingWill;
use crate::{Close, Session};
use mqtt_codec::{Disconnect, ReasonCode};

/// What is left to do when a connection has ended.
#[derive(Debug, PartialEq)]
pub struct Ended {
    /// To be published now.
    pub will: Option<PendingWill>,
    /// The session stays: save it. Otherwise delete what is stored of it.
    pub keep: bool,
}

impl Session {
    /// A DISCONNECT from the client.
    pub fn handle_disconnect(&mut self, disconnect: &Disconnect) -> Result<(), Close> {
        if let Some(expiry) = disconnect.properties.session_expiry_interval {
            if self.connection.connect_expiry == 0 && expiry != 0 {
                return Err(Close::new(
                    ReasonCode::PROTOCOL_ERROR,
                    "a session expiry in DISCONNECT after none in CONNECT (section 3.14.2.2.2)",
                ));
            }
            self.expiry_interval = expiry.min(self.connection.limits.max_session_expiry);
        }
        // Whatever else it says, the will is published [MQTT-3.1.2-8].
        if disconnect.reason_code == ReasonCode::NORMAL_DISCONNECTION {
            self.will = None; // [MQTT-3.14.4-3]
        }
        Ok(())
    }

    /// The connection is gone, in whatever way.
    pub fn handle_connection_end(&mut self, now_ms: i64) -> Ended {
        self.disconnected_at = Some(now_ms);
        let keep = self.is_persistent();
        let now = self
            .will
            .as_ref()
            .is_some_and(|will| !keep || will.delay == 0);
        Ended {
            will: if now { self.take_will() } else { None },
            keep,
        }
    }

    /// The will that waits, of a session that ends before its time.
    pub fn take_will(&mut self) -> Option<PendingWill> {
        self.will.take().map(|will| *will)
    }

    /// For a session read from storage at start. `true` = this counts as the end of its connection: the process died while the client
    /// was connected, or the end is yet to come by the clock, which was ahead then.
    pub fn assume_disconnected(&mut self, now_ms: i64) -> bool {
        let known = self.disconnected_at.filter(|at| *at <= now_ms);
        self.disconnected_at = known.or(Some(now_ms));
        known.is_none()
    }

    /// The clock was off by `add_ms` and has been set: a connection that ended between these times of the old clock ended so much later.
    /// `true` = that is so for this one.
    pub fn clock_was_set(&mut self, from_ms: i64, to_ms: i64, add_ms: i64) -> bool {
        let ended = self.disconnected_at.as_mut();
        let moved = ended.filter(|at| (from_ms..=to_ms).contains(*at));
        moved.map(|at| *at = at.saturating_add(add_ms)).is_some()
    }

    /// When something is to be done for a disconnected session: its will or its end, milliseconds since the epoch.
    pub fn next_deadline(&self) -> Option<i64> {
        let since = self.disconnected_at?;
        let after = |seconds: u32| since.saturating_add(i64::from(seconds) * 1000);
        let expiry = (self.expiry_interval != u32::MAX).then(|| after(self.expiry_interval));
        let will = self.will.as_ref().map(|will| after(will.delay));
        expiry.into_iter().chain(will).min()
    }

    /// What is due for a disconnected session: the will (its delay is over, or the session ends), and whether it has ended.
    pub fn handle_deadline(&mut self, now_ms: i64) -> Ended {
        let since = self.disconnected_at.unwrap_or(now_ms);
        let over = |seconds: u32| now_ms >= since.saturating_add(i64::from(seconds) * 1000);
        let expired = self.expiry_interval != u32::MAX && over(self.expiry_interval);
        let due = self
            .will
            .as_ref()
            .is_some_and(|will| expired || over(will.delay));
        Ended {
            will: if due { self.take_will() } else { None },
            keep: !expired,
        }
    }
}
