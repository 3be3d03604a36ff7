//! SCRAM exchanges, as SASL in Kafka or as MQTT's enhanced authentication.

use credentials::{Mechanism, ScramError};

use super::{Identity, Known, LoginError, showing};
use crate::{Peer, Principal};

/// An exchange whose client has still to prove that it knows the password.
pub struct ScramLogin {
    identity: Identity,
    known: Option<Known>,
    peer: Peer,
    exchange: credentials::ScramLogin,
}

impl Identity {
    /// Answers the client's first message. Of an unknown user as of a known one: it is the proof that fails.
    pub fn scram(
        &self,
        mechanism: Mechanism,
        first: &[u8],
        peer: &Peer,
    ) -> Result<(ScramLogin, Vec<u8>), LoginError> {
        let mut known = None;
        let keys_of = |name: &str| {
            known = self.known(name);
            let user = &known.as_ref()?.user;
            user.scram(mechanism).cloned()
        };
        let passwords = &self.0.passwords;
        let begun = passwords.begin_scram(mechanism, first, peer.source(), keys_of);
        let (exchange, message) = begun.map_err(of_exchange)?;
        let login = ScramLogin {
            identity: self.clone(),
            known,
            peer: peer.clone(),
            exchange,
        };
        Ok((login, message))
    }
}

impl ScramLogin {
    /// Checks the proof; the message is the last one to the client.
    pub fn finish(self, message: &[u8]) -> Result<(Principal, Vec<u8>), LoginError> {
        let ScramLogin {
            identity,
            known,
            peer,
            exchange,
        } = self;
        let user = exchange.user().to_owned();
        match identity.0.passwords.finish_scram(exchange, message) {
            Ok(last) => {
                let principal = known.and_then(Known::admit).ok_or(LoginError::Wrong)?;
                Ok((showing(principal, &peer), last))
            }
            Err(error) => {
                identity.log_refusal("a login failed", &user, peer.address, &error);
                Err(of_exchange(error))
            }
        }
    }
}

fn of_exchange(error: ScramError) -> LoginError {
    match error {
        ScramError::Wrong | ScramError::OtherUser => LoginError::Wrong,
        ScramError::TooMany => LoginError::TooMany,
        ScramError::Malformed | ScramError::ChannelBinding | ScramError::Extension => {
            LoginError::Malformed
        }
    }
}
