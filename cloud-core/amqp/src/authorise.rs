//! What the client of a connection may do: the rules' words for AMQP's methods.
//!
//! | method | needs |
//! |---|---|
//! | `exchange.declare`, `queue.declare` | `create` on it; passive: `describe` |
//! | `exchange.delete`, `queue.delete` | `delete` |
//! | `queue.bind`, `queue.unbind` | `publish` on the queue and `subscribe` on the exchange |
//! | `exchange.bind`, `exchange.unbind` | `publish` on the destination and `subscribe` on the source |
//! | `basic.publish` | `publish` on the exchange; with the default exchange, on the queue |
//! | `basic.consume`, `basic.get`, `queue.purge` | `subscribe` on the queue |

use access_rules::{Resource, Verb};

use crate::{
    connection::Session,
    error::{Exception, code},
};

impl Session {
    /// An exception of the channel, in RabbitMQ's words.
    pub fn allowed(&self, verb: Verb, resource: Resource<'_>) -> Result<(), Exception> {
        let who = self.agreed.principal.asker(&self.agreed.client);
        if self.broker.context.access.may(&who, verb, resource) {
            return Ok(());
        }
        Err(Exception::channel(
            code::ACCESS_REFUSED,
            format_args!(
                "{verb} access to {} '{}' in vhost '{}' refused for user '{}'",
                resource.kind().name(),
                resource.name(),
                self.vhost.name(),
                self.agreed.principal.name
            ),
        ))
    }

    pub fn may_publish(&self, exchange: &str, key: &str) -> Result<(), Exception> {
        if exchange.is_empty() {
            self.allowed(Verb::Publish, Resource::Queue(key))
        } else {
            self.allowed(Verb::Publish, Resource::Exchange(exchange))
        }
    }

    pub fn may_bind_queue(&self, queue: &str, exchange: &str) -> Result<(), Exception> {
        self.allowed(Verb::Publish, Resource::Queue(queue))?;
        self.allowed(Verb::Subscribe, Resource::Exchange(exchange))
    }

    pub fn may_bind_exchange(&self, destination: &str, source: &str) -> Result<(), Exception> {
        self.allowed(Verb::Publish, Resource::Exchange(destination))?;
        self.allowed(Verb::Subscribe, Resource::Exchange(source))
    }
}
