//! The address this process tells its clients to come back to.

use std::net::SocketAddr;
use std::sync::Arc;

/// What clients are told (Kafka's Metadata and FindCoordinator). The port is always the one that the client used.
#[derive(Clone, Debug, Default)]
pub struct Advertise {
    /// `--advertise`: a name or address by which clients reach this machine. Unset: the address the client itself used.
    pub host: Option<Arc<str>>,
}

impl Advertise {
    /// The host to tell a client whose connection arrived at `local`. Without `--advertise` it is the very address the
    /// client connected to, which is reachable for this client by construction.
    pub fn host_for(&self, local: SocketAddr) -> String {
        match &self.host {
            Some(host) => host.to_string(),
            None => local.ip().to_canonical().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_the_configured_one_or_the_address_the_client_used() {
        let local: SocketAddr = "[::ffff:10.1.2.3]:9092".parse().unwrap();
        assert_eq!(Advertise::default().host_for(local), "10.1.2.3");
        let advertise = Advertise {
            host: Some("core.example".into()),
        };
        assert_eq!(advertise.host_for(local), "core.example");
    }
}
