//! Who a client is.

use std::sync::Arc;

use record::Namespace;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The identity of a connection and the namespace (tenant, AMQP vhost) it works in. Made by [`crate::Identity`].
#[derive(Clone, Debug)]
pub struct Principal {
    /// What the client is called: the user, or, while anybody may come, what the client calls itself. For logs and for the protocols'
    /// own fields; rules look at `user`.
    pub name: Arc<str>,
    pub namespace: Namespace,
    /// Verified. `None`: anonymous.
    pub user: Option<Arc<str>>,
    /// Groups that the credentials themselves name; those of a user in the table are looked up there.
    pub groups: Arc<[Arc<str>]>,
    /// The name in the certificate that was verified: of whoever showed one, in whichever way he said who he is.
    pub certificate: Option<Arc<str>>,
    /// Cancelled when this principal may not be connected any more. To be held as long as it is: what nobody holds is forgotten.
    pub revoked: Option<Arc<CancellationToken>>,
    /// When its token is over.
    pub expires: Option<Instant>,
}

impl Principal {
    /// The name of a client that gave none.
    pub const ANONYMOUS: &'static str = "anonymous";

    pub fn anonymous() -> Principal {
        Principal::unverified("")
    }

    /// A client that calls itself so; an empty name is no name.
    pub fn unverified(name: &str) -> Principal {
        Principal {
            name: if name.is_empty() {
                Principal::ANONYMOUS.into()
            } else {
                name.into()
            },
            namespace: Namespace::default(),
            user: None,
            groups: Arc::from([]),
            certificate: None,
            revoked: None,
            expires: None,
        }
    }

    pub(crate) fn user(name: Arc<str>, revoked: Arc<CancellationToken>) -> Principal {
        Principal {
            user: Some(name.clone()),
            revoked: Some(revoked),
            ..Principal::unverified(&name)
        }
    }

    pub(crate) fn with_certificate(self, name: Arc<str>) -> Principal {
        Principal {
            certificate: Some(name),
            ..self
        }
    }

    pub(crate) fn with_token(self, groups: Arc<[Arc<str>]>, expires: Instant) -> Principal {
        Principal {
            groups,
            expires: Some(expires),
            ..self
        }
    }

    pub fn is_anonymous(&self) -> bool {
        self.user.is_none()
    }

    /// Resolves when this principal may not be connected any more.
    pub async fn revoked(&self) {
        let expired = async {
            match self.expires {
                Some(expires) => tokio::time::sleep_until(expires).await,
                None => std::future::pending().await,
            }
        };
        match &self.revoked {
            Some(revoked) => tokio::select! {
                () = revoked.cancelled() => {}
                () = expired => {}
            },
            None => expired.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_verified_is_no_user() {
        assert_eq!(&*Principal::anonymous().name, Principal::ANONYMOUS);
        let ada = Principal::unverified("ada");
        assert_eq!((&*ada.name, ada.is_anonymous()), ("ada", true));
        let ada = Principal::user("ada".into(), Arc::default());
        assert_eq!(
            (ada.user.as_deref(), ada.is_anonymous()),
            (Some("ada"), false)
        );
    }
}
