//! Class exchange.

use access_rules::{Resource, Verb};

use crate::{
    connection::Session,
    error::{Exception, code},
    exchange::{Exchange, Kind},
    handle_queue::check_binding,
    method::{ExchangeBind, ExchangeDeclare},
    reply,
    routes::Node,
};

impl Session {
    fn existing_exchange(&self, name: &str) -> Result<std::sync::Arc<Exchange>, Exception> {
        self.vhost
            .exchange(name)
            .ok_or_else(|| Exception::not_found("exchange", name, self.vhost.name()))
    }

    pub async fn exchange_declare(
        &mut self,
        number: u16,
        declare: ExchangeDeclare,
    ) -> Result<(), Exception> {
        // The default exchange can be asked about by nobody: it has no name.
        if declare.exchange.is_empty() {
            return Err(Exception::channel(
                code::ACCESS_REFUSED,
                "operation not permitted on the default exchange",
            ));
        }
        let verb = if declare.passive {
            Verb::Describe
        } else {
            Verb::Create
        };
        self.allowed(verb, Resource::Exchange(&declare.exchange))?;
        if declare.passive {
            self.existing_exchange(&declare.exchange)?;
        } else {
            let kind = Kind::parse(&declare.kind).ok_or_else(|| {
                Exception::connection(
                    code::COMMAND_INVALID,
                    format_args!("unknown exchange type '{}'", declare.kind),
                )
            })?;
            if let Some((name, _)) = declare.arguments.0.first() {
                return Err(Exception::channel(
                    code::PRECONDITION_FAILED,
                    format_args!(
                        "argument '{}' is not supported: declare the exchange without it",
                        String::from_utf8_lossy(name)
                    ),
                ));
            }
            if declare.exchange.starts_with("amq.")
                && self.vhost.exchange(&declare.exchange).is_none()
            {
                return Err(Exception::channel(
                    code::ACCESS_REFUSED,
                    format_args!(
                        "exchange name '{}' contains reserved prefix 'amq.*'",
                        declare.exchange
                    ),
                ));
            }
            self.vhost
                .declare_exchange(Exchange {
                    name: declare.exchange.as_str().into(),
                    kind,
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                })
                .await?;
        }
        if !declare.nowait {
            reply::plain(&mut self.out, number, reply::EXCHANGE_DECLARE_OK);
        }
        Ok(())
    }

    pub async fn exchange_delete(
        &mut self,
        number: u16,
        exchange: &str,
        if_unused: bool,
        nowait: bool,
    ) -> Result<(), Exception> {
        if exchange.is_empty() || exchange.starts_with("amq.") {
            return Err(Exception::channel(
                code::ACCESS_REFUSED,
                format_args!("operation not permitted on exchange '{exchange}'"),
            ));
        }
        self.allowed(Verb::Delete, Resource::Exchange(exchange))?;
        // What was published before the exchange went is routed by it.
        self.drain().await;
        self.vhost.delete_exchange(exchange, if_unused).await?;
        if !nowait {
            reply::plain(&mut self.out, number, reply::EXCHANGE_DELETE_OK);
        }
        Ok(())
    }

    fn check_exchange_bind(&self, bind: &ExchangeBind) -> Result<(), Exception> {
        if bind.source.is_empty() || bind.destination.is_empty() {
            return Err(Exception::channel(
                code::ACCESS_REFUSED,
                "operation not permitted on the default exchange",
            ));
        }
        self.may_bind_exchange(&bind.destination, &bind.source)?;
        self.existing_exchange(&bind.destination)?;
        let source = self.existing_exchange(&bind.source)?;
        check_binding(source.kind, &bind.arguments)
    }

    pub async fn exchange_bind(
        &mut self,
        number: u16,
        bind: ExchangeBind,
    ) -> Result<(), Exception> {
        self.check_exchange_bind(&bind)?;
        self.drain().await;
        self.vhost
            .bind(
                &bind.source,
                Node::Exchange(bind.destination.into()),
                &bind.routing_key,
                bind.arguments,
            )
            .await?;
        if !bind.nowait {
            reply::plain(&mut self.out, number, reply::EXCHANGE_BIND_OK);
        }
        Ok(())
    }

    pub async fn exchange_unbind(
        &mut self,
        number: u16,
        bind: ExchangeBind,
    ) -> Result<(), Exception> {
        self.check_exchange_bind(&bind)?;
        self.drain().await;
        self.vhost
            .unbind(
                &bind.source,
                Node::Exchange(bind.destination.into()),
                &bind.routing_key,
                &bind.arguments,
            )
            .await?;
        if !bind.nowait {
            reply::plain(&mut self.out, number, reply::EXCHANGE_UNBIND_OK);
        }
        Ok(())
    }
}
