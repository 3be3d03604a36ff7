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
            will: if now { self.will.take() } else { None },
            keep,
        }
    }

    /// For a session read from storage at start. `true` = the process died while the client was connected, and this counts
    /// as the end of that connection.
    pub fn assume_disconnected(&mut self, now_ms: i64) -> bool {
        let was_connected = self.disconnected_at.is_none();
        self.disconnected_at.get_or_insert(now_ms);
        was_connected
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
            will: if due { self.will.take() } else { None },
            keep: !expired,
        }
    }
}
