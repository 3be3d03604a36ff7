//! Class queue.

use std::sync::Arc;

use access_rules::{Resource, Verb};

use crate::{
    connection::Session,
    error::{Exception, code},
    exchange::Kind,
    matching::XMatch,
    method::{QueueBind, QueueDeclare},
    queue::{Definition, QueueState, check_arguments},
    reply,
    routes::Node,
    wire::Table,
};

/// Counts on the wire have 32 bits.
pub fn count(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Arguments mean something for headers exchanges alone; elsewhere they only tell bindings apart.
pub fn check_binding(kind: Kind, arguments: &Table) -> Result<(), Exception> {
    if kind == Kind::Headers && XMatch::of(arguments).is_none() {
        return Err(Exception::channel(
            code::PRECONDITION_FAILED,
            "invalid x-match: expected 'all', 'any', 'all-with-x' or 'any-with-x'",
        ));
    }
    Ok(())
}

impl Session {
    /// The queue of that name, if this connection may use it so. The rules are asked before it is looked for: whether it is there is told to
    /// nobody else.
    pub fn queue_for(
        &mut self,
        number: u16,
        name: &str,
        verb: Verb,
    ) -> Result<Arc<QueueState>, Exception> {
        let name = self.queue_name(number, name)?;
        self.allowed(verb, Resource::Queue(&name))?;
        self.existing_queue(&name)
    }

    /// An empty name is the last one declared on the channel.
    fn queue_name(&mut self, number: u16, name: &str) -> Result<Arc<str>, Exception> {
        if !name.is_empty() {
            return Ok(name.into());
        }
        let last = self.channel(number)?.last_queue.clone();
        last.ok_or_else(|| {
            Exception::channel(
                code::NOT_FOUND,
                "no previously declared queue on this channel",
            )
        })
    }

    fn existing_queue(&self, name: &Arc<str>) -> Result<Arc<QueueState>, Exception> {
        let state = self
            .vhost
            .queue(name)
            .ok_or_else(|| Exception::not_found("queue", name, self.vhost.name()))?;
        state.check_owner(self.id, self.vhost.name())?;
        Ok(state)
    }

    pub async fn queue_declare(
        &mut self,
        number: u16,
        declare: QueueDeclare,
    ) -> Result<(), Exception> {
        let state = if declare.passive {
            self.drain().await;
            self.queue_for(number, &declare.queue, Verb::Describe)?
        } else {
            self.declare_new(declare.clone()).await?
        };
        self.channel(number)?.last_queue = Some(state.name().clone());
        if !declare.nowait {
            state.queue.catch_up().await;
            let (messages, consumers) = (count(state.queue.ready()), state.consumers());
            reply::queue_declare_ok(&mut self.out, number, state.name(), messages, consumers);
        }
        Ok(())
    }

    async fn declare_new(&mut self, declare: QueueDeclare) -> Result<Arc<QueueState>, Exception> {
        check_arguments(&declare.arguments)?;
        let name: Arc<str> = if declare.queue.is_empty() {
            format!("amq.gen-{}", unused_name()).into()
        } else {
            declare.queue.as_str().into()
        };
        self.allowed(Verb::Create, Resource::Queue(&name))?;
        if declare.queue.starts_with("amq.") && self.vhost.queue(&declare.queue).is_none() {
            return Err(Exception::channel(
                code::ACCESS_REFUSED,
                format_args!(
                    "queue name '{}' contains reserved prefix 'amq.*'",
                    declare.queue
                ),
            ));
        }
        self.drain().await;
        let definition = Definition {
            name,
            incarnation: 0,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: declare.arguments,
        };
        self.vhost.declare_queue(definition, self.id).await
    }

    pub async fn queue_bind(&mut self, number: u16, mut bind: QueueBind) -> Result<(), Exception> {
        let state = self.check_bind(number, &mut bind)?;
        self.drain().await;
        self.vhost
            .bind(
                &bind.exchange,
                Node::Queue(state.name().clone()),
                &bind.routing_key,
                bind.arguments,
            )
            .await?;
        if !bind.nowait {
            reply::plain(&mut self.out, number, reply::QUEUE_BIND_OK);
        }
        Ok(())
    }

    pub async fn queue_unbind(
        &mut self,
        number: u16,
        mut bind: QueueBind,
    ) -> Result<(), Exception> {
        let state = self.check_bind(number, &mut bind)?;
        self.drain().await;
        self.vhost
            .unbind(
                &bind.exchange,
                Node::Queue(state.name().clone()),
                &bind.routing_key,
                &bind.arguments,
            )
            .await?;
        reply::plain(&mut self.out, number, reply::QUEUE_UNBIND_OK);
        Ok(())
    }

    fn check_bind(
        &mut self,
        number: u16,
        bind: &mut QueueBind,
    ) -> Result<Arc<QueueState>, Exception> {
        if bind.exchange.is_empty() {
            return Err(Exception::channel(
                code::ACCESS_REFUSED,
                "operation not permitted on the default exchange",
            ));
        }
        let queue = self.queue_name(number, &bind.queue)?;
        self.may_bind_queue(&queue, &bind.exchange)?;
        let state = self.existing_queue(&queue)?;
        let exchange = self
            .vhost
            .exchange(&bind.exchange)
            .ok_or_else(|| Exception::not_found("exchange", &bind.exchange, self.vhost.name()))?;
        check_binding(exchange.kind, &bind.arguments)?;
        // queue.bind: with both empty, the last declared queue is bound by its own name.
        if bind.queue.is_empty() && bind.routing_key.is_empty() {
            bind.routing_key = state.name().to_string();
        }
        Ok(state)
    }

    pub async fn queue_purge(
        &mut self,
        number: u16,
        queue: &str,
        nowait: bool,
    ) -> Result<(), Exception> {
        let state = self.queue_for(number, queue, Verb::Subscribe)?;
        self.drain().await;
        let purged = state
            .queue
            .purge()
            .await
            .map_err(|e| Exception::internal("the purge could not be stored", e))?;
        if !nowait {
            reply::queue_count_ok(&mut self.out, number, (50, 31), count(purged));
        }
        Ok(())
    }

    pub async fn queue_delete(
        &mut self,
        number: u16,
        queue: &str,
        if_unused: bool,
        if_empty: bool,
        nowait: bool,
    ) -> Result<(), Exception> {
        let mut deleted = 0;
        let name = self.queue_name(number, queue)?;
        self.allowed(Verb::Delete, Resource::Queue(&name))?;
        // Deleting what is not there succeeds (as RabbitMQ has it).
        if queue.is_empty() || self.vhost.queue(&name).is_some() {
            let state = self.existing_queue(&name)?;
            self.drain().await;
            state.queue.catch_up().await;
            if if_unused && state.consumers() > 0 {
                return Err(Exception::channel(
                    code::PRECONDITION_FAILED,
                    format_args!("queue '{}' in use", state.name()),
                ));
            }
            if if_empty && state.queue.ready() > 0 {
                return Err(Exception::channel(
                    code::PRECONDITION_FAILED,
                    format_args!("queue '{}' not empty", state.name()),
                ));
            }
            deleted = self.vhost.delete_queue(&state).await?;
        }
        if !nowait {
            reply::queue_count_ok(&mut self.out, number, (50, 41), count(deleted));
        }
        Ok(())
    }

    /// `basic.qos`: per consumer from now on, or (`global`) for the channel as a whole, as RabbitMQ reads it.
    pub fn basic_qos(
        &mut self,
        number: u16,
        size: u32,
        prefetch: u16,
        global: bool,
    ) -> Result<(), Exception> {
        if size != 0 {
            return Err(Exception::connection(
                code::NOT_IMPLEMENTED,
                "prefetch_size is not implemented: use prefetch_count",
            ));
        }
        let channel = self.channel(number)?;
        if global {
            channel.prefetch_channel = prefetch;
        } else {
            channel.prefetch_consumer = prefetch;
        }
        reply::plain(&mut self.out, number, reply::BASIC_QOS_OK);
        Ok(())
    }
}

/// A name nobody can have: 128 random bits.
fn unused_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
