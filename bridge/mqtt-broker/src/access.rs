//! Who may connect, publish and subscribe. The broker asks; the host says.
//!
//! Asked at CONNECT (also for the will's topic, and again for the subscriptions of a session that is resumed), at PUBLISH, at
//! SUBSCRIBE, for what is in flight when a session is resumed, and (but for [`Access::grants_whole`]) for every message that is about to be sent, retained
//! ones too.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mqtt_codec::{TopicFilter, TopicName};
use mqtt_session::ClientId;
pub use quota::{Exceeded, Share};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
pub use transport::{Certificate, Peer};

use crate::backend::ConnectError;
pub use crate::client_first::client_first;

/// What a client says of itself in CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub client: &'a ClientId,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub peer: &'a Peer,
}

/// Who a client turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// `None` = anonymous.
    pub user: Option<Arc<str>>,
    /// Groups that the client's own credentials name; what the host keeps of a user it looks up by itself.
    pub groups: Arc<[Arc<str>]>,
    /// The name in the certificate that was verified, where that was what let it in.
    pub certificate: Option<Arc<str>>,
    /// Cancelled when it may not be connected any more. Held as long as the connection lives: by that the host knows whom there is to tell.
    pub revoked: Option<Arc<CancellationToken>>,
    /// It may not be connected longer than this.
    pub expires: Option<Instant>,
}

impl Admitted {
    pub fn user(user: Option<Arc<str>>) -> Admitted {
        Admitted {
            user,
            ..Admitted::default()
        }
    }
}

/// Who a connection is, once it was let in.
#[derive(Clone, Debug)]
pub struct Principal {
    /// `None` = anonymous.
    pub user: Option<Arc<str>>,
    pub client: ClientId,
    pub groups: Arc<[Arc<str>]>,
    pub certificate: Option<Arc<str>>,
    pub(crate) revoked: Option<Arc<CancellationToken>>,
    pub(crate) expires: Option<Instant>,
}

impl Principal {
    pub fn new(client: ClientId, admitted: Admitted) -> Principal {
        Principal {
            user: admitted.user,
            client,
            groups: admitted.groups,
            certificate: admitted.certificate,
            revoked: admitted.revoked,
            expires: admitted.expires,
        }
    }

    /// Resolves when it may not be connected any more, apart from the time that is set for it.
    pub(crate) async fn revoked(&self) {
        match &self.revoked {
            Some(revoked) => revoked.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// What an exchange of enhanced authentication (MQTT 5 section 4.12) comes to at each message of the client.
pub enum Step {
    /// To be sent; the client answers it.
    Continue(Bytes),
    /// The client is who it says; `data` is the last word to it.
    Done { admitted: Admitted, data: Bytes },
}

/// One exchange of enhanced authentication.
pub trait Exchange: Send + Sync {
    fn step<'a>(&'a mut self, data: &'a [u8]) -> BoxFuture<'a, Result<Step, ConnectError>>;
}

/// One instance serves all connections of a broker, concurrently.
pub trait Access: Send + Sync + 'static {
    /// May this client connect, and as which user? The answer may take its time (a password is checked off the connection's task).
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Admitted, ConnectError>>;

    /// Begins an exchange by a method that the client names; CONNECT's user name and password mean nothing then. A method that is not
    /// offered: [`ConnectError::BadAuthenticationMethod`].
    fn exchange(
        &self,
        method: &str,
        client: &ClientId,
        peer: &Peer,
    ) -> Result<Box<dyn Exchange>, ConnectError> {
        let _ = (method, client, peer);
        Err(ConnectError::BadAuthenticationMethod)
    }

    /// One connection more of a client that is let in, as long as the share lives; refused with 0x97 (3.1.1: 3).
    fn enter(&self, who: &Principal) -> Result<Share, Exceeded> {
        let _ = who;
        Ok(Share::default())
    }

    /// May it have the client id that it chose, and so the session of that name? `false`: CONNACK 0x85 (3.1.1: 2).
    fn may_connect(&self, who: &Principal) -> bool {
        let _ = who;
        true
    }

    /// `false`: PUBACK or PUBREC with 0x87; 3.1.1 has no code for it, so the message is acknowledged and dropped (section
    /// 3.3.5). Of a will: the connection is refused with 0x87 (3.1.1: 5).
    fn may_publish(&self, who: &Principal, topic: &TopicName) -> bool;

    /// `false`: SUBACK with 0x87 (3.1.1: 0x80).
    fn may_subscribe(&self, who: &Principal, filter: &TopicFilter) -> bool;

    /// `false`: this message is passed over. Also asked about what is in flight in a session that is resumed: it may have been sent first to another user.
    fn may_receive(&self, who: &Principal, topic: &TopicName) -> bool {
        let _ = (who, topic);
        true
    }

    /// May a client receive all that its subscriptions match, as long as it is connected? `false`: the rules can change meanwhile, or deny a part of what they
    /// grant, and [`Access::may_receive`] is asked for each message.
    fn grants_whole(&self) -> bool {
        false
    }
}

/// Lets everybody in and do everything. The user is who the client says.
pub struct Everybody;

impl Access for Everybody {
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Admitted, ConnectError>> {
        let user = login.user_name.map(Arc::from);
        Box::pin(async move { Ok(Admitted::user(user)) })
    }

    fn may_publish(&self, _: &Principal, _: &TopicName) -> bool {
        true
    }

    fn may_subscribe(&self, _: &Principal, _: &TopicFilter) -> bool {
        true
    }
}
