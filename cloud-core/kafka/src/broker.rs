//! What all connections share, and what one request knows about its surroundings.

use std::net::SocketAddr;
use std::sync::Arc;

use access_rules::{Resource, Verb};
use frontend::{Context, Peer, Principal};
use kernel::Kernel;

use crate::error_code;
use crate::group::Coordinator;
use crate::topics::Topics;

/// The number of this broker, of all there are: one.
pub const NODE_ID: i32 = 1;

/// The state behind all connections.
pub struct Broker {
    pub ctx: Context,
    pub topics: Topics,
    pub groups: Coordinator,
}

impl Broker {
    pub fn new(ctx: Context) -> Arc<Broker> {
        let topics = Topics::new(ctx.kernel.clone(), Principal::anonymous().namespace);
        let groups = Coordinator::new(ctx.kernel.clone(), Principal::anonymous().namespace);
        Arc::new(Broker {
            ctx,
            topics,
            groups,
        })
    }

    pub fn kernel(&self) -> &Kernel {
        &self.ctx.kernel
    }
}

/// One request on its way.
pub struct Call {
    pub broker: Arc<Broker>,
    /// The version of its API.
    pub version: i16,
    /// Who asks.
    pub principal: Arc<Principal>,
    /// What the client calls itself; may be empty.
    pub client_id: String,
    /// Where it comes from.
    pub peer: Peer,
    /// The address it came to.
    pub local: SocketAddr,
}

impl Call {
    /// Host and port to tell this client to come (back) to. The port is the one it used: who came by TLS comes by TLS again, and who
    /// came through a balancer finds the balancer.
    pub fn advertised(&self) -> (String, i32) {
        let host = self.broker.ctx.advertise.host_for(self.local);
        (host, i32::from(self.local.port()))
    }

    pub fn kernel(&self) -> &Kernel {
        self.broker.kernel()
    }

    /// May this client do that?
    pub fn may(&self, verb: Verb, resource: Resource<'_>) -> bool {
        let who = self.principal.asker(&self.client_id);
        self.broker.ctx.access.may(&who, verb, resource)
    }

    /// As the protocol says it: the error of a topic that a client may not use so.
    pub fn check_topic(&self, verb: Verb, name: &str) -> Result<(), i16> {
        match self.may(verb, Resource::Stream(name)) {
            true => Ok(()),
            false => Err(error_code::TOPIC_AUTHORIZATION_FAILED),
        }
    }

    /// The same of a group.
    pub fn check_group(&self, verb: Verb, id: &str) -> Result<(), i16> {
        match self.may(verb, Resource::Group(id)) {
            true => Ok(()),
            false => Err(error_code::GROUP_AUTHORIZATION_FAILED),
        }
    }
}
