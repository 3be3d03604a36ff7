//! Who a client is.

use std::sync::Arc;

use record::Namespace;

/// The identity of a connection and the namespace (tenant, AMQP vhost) it works in.
///
/// **Not verified yet**: anonymous clients are let in, and a user name that a client gives is carried as the name for
/// logs and for Kafka's and AMQP's own fields, whatever the password. Listeners therefore bind to loopback unless told
/// otherwise. Edges are the exception: the sync front end authenticates them by certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    pub name: Arc<str>,
    pub namespace: Namespace,
}

impl Principal {
    /// The name of a client that gave none.
    pub const ANONYMOUS: &'static str = "anonymous";

    pub fn anonymous() -> Principal {
        Principal {
            name: Principal::ANONYMOUS.into(),
            namespace: Namespace::default(),
        }
    }

    /// A client that gave a user name; an empty name is no name. The name is not verified (see the type).
    pub fn named(name: &str) -> Principal {
        if name.is_empty() {
            return Principal::anonymous();
        }
        Principal {
            name: name.into(),
            namespace: Namespace::default(),
        }
    }

    pub fn is_anonymous(&self) -> bool {
        &*self.name == Principal::ANONYMOUS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_user_name_is_anonymous() {
        assert!(Principal::named("").is_anonymous());
        assert_eq!(&*Principal::named("ada").name, "ada");
        assert_eq!(Principal::named("ada").namespace, Namespace::default());
    }
}
