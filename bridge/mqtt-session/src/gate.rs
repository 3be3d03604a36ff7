use mqtt_codec::TopicName;
use std::fmt;
use std::sync::Arc;

/// May the client be sent messages of this topic, now? Asked for each, whatever it is subscribed to.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<Lets>>);

type Lets = dyn Fn(&TopicName) -> bool + Send + Sync;

impl Gate {
    pub fn new(lets: impl Fn(&TopicName) -> bool + Send + Sync + 'static) -> Gate {
        Gate(Some(Arc::new(lets)))
    }

    /// Everything, where nobody has said anything else.
    pub fn lets(&self, topic: &TopicName) -> bool {
        self.0.as_ref().is_none_or(|lets| lets(topic))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}
