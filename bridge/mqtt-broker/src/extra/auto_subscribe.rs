//! Subscriptions that the server makes when a client connects.

use super::fill;
use crate::access::Principal;
use mqtt_codec::{SubscribeFilter, SubscriptionOptions, TopicFilter};

#[derive(Clone, Debug, PartialEq)]
pub struct AutoSubscribe {
    /// With `%c` and `%u`.
    pub filter: String,
    pub options: SubscriptionOptions,
}

impl AutoSubscribe {
    /// For this client; `None` where its name or id fits in no filter.
    pub(crate) fn entry(&self, who: &Principal) -> Option<SubscribeFilter> {
        let filter = TopicFilter::new(&fill(&self.filter, who)?).ok()?;
        let options = self.options;
        Some(SubscribeFilter { filter, options })
    }
}
