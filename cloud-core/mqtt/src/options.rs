//! What can be set of the front end, and the handle of who looks after it.

use std::sync::{Arc, OnceLock};

use mqtt_broker::extra::RetainedLimits;
use mqtt_broker::{Broker, Extra, Limits};

use crate::CoreBackend;

/// What can be set of the front end.
#[derive(Clone, Debug, Default)]
pub struct MqttOptions {
    /// `maximum_packet_size` follows from the largest message.
    pub limits: Limits,
    pub retained: RetainedLimits,
    pub extra: Extra,
}

/// The front end, for who looks after it.
#[derive(Clone, Default)]
pub struct Mqtt(Arc<OnceLock<Arc<Broker<CoreBackend>>>>);

impl Mqtt {
    pub(crate) fn set(&self, broker: Arc<Broker<CoreBackend>>) {
        // It is started once.
        let _ = self.0.set(broker);
    }

    /// `None`: it is off, or still reads the stored sessions.
    pub fn broker(&self) -> Option<&Arc<Broker<CoreBackend>>> {
        self.0.get()
    }
}
