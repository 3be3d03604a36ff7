//! Who may connect, publish and subscribe. The broker asks; the host says.
//!
//! Asked at CONNECT (also for the will's topic, and again for the subscriptions of a session that is resumed), at PUBLISH and at
//! SUBSCRIBE. What a subscription was granted for is delivered, retained messages too.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use mqtt_codec::{TopicFilter, TopicName};
use mqtt_session::ClientId;
pub use transport::{Certificate, Peer};

use crate::backend::ConnectError;

/// What a client says of itself in CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub client: &'a ClientId,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub peer: &'a Peer,
}

/// Who a connection is, once it was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// `None` = anonymous.
    pub user: Option<Arc<str>>,
    pub client: ClientId,
}

/// One instance serves all connections of a broker, concurrently.
pub trait Access: Send + Sync + 'static {
    /// May this client connect, and as which user? The answer may take its time (a password is checked off the connection's task).
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<str>>, ConnectError>>;

    /// `false`: PUBACK or PUBREC with 0x87; 3.1.1 has no code for it, so the message is acknowledged and dropped (section
    /// 3.3.5). Of a will: the connection is refused with 0x87 (3.1.1: 5).
    fn may_publish(&self, who: &Principal, topic: &TopicName) -> bool;

    /// `false`: SUBACK with 0x87 (3.1.1: 0x80).
    fn may_subscribe(&self, who: &Principal, filter: &TopicFilter) -> bool;
}

/// Lets everybody in and do everything. The user is who the client says.
pub struct Everybody;

impl Access for Everybody {
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<str>>, ConnectError>> {
        let user = login.user_name.map(Arc::from);
        Box::pin(async move { Ok(user) })
    }

    fn may_publish(&self, _: &Principal, _: &TopicName) -> bool {
        true
    }

    fn may_subscribe(&self, _: &Principal, _: &TopicFilter) -> bool {
        true
    }
}
