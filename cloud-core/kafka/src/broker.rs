//! What all connections share, and what one request knows about its surroundings.

use std::net::SocketAddr;
use std::sync::Arc;

use frontend::{Context, Principal};
use kernel::Kernel;

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
    /// What the client calls itself; may be empty.
    pub client_id: String,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
}

impl Call {
    /// Host and port to tell this client to come (back) to.
    pub fn advertised(&self) -> (String, i32) {
        let advertise = &self.broker.ctx.advertise;
        let port = advertise.kafka.unwrap_or(self.local.port());
        (advertise.host_for(self.local), i32::from(port))
    }

    pub fn kernel(&self) -> &Kernel {
        self.broker.kernel()
    }
}
