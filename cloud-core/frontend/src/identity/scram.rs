//! SCRAM exchanges, as SASL in AMQP and Kafka or as MQTT's enhanced authentication.

use credentials::{ClientFirst, Mechanism, ScramError, ScramKeys, ScramServer};

use super::{Identity, LoginError, ip, showing};
use crate::{Peer, Principal};

/// An exchange whose client has still to prove that it knows the password.
pub struct ScramLogin {
    identity: Identity,
    user: String,
    peer: Peer,
    exchange: ScramServer,
}

impl Identity {
    /// Answers the client's first message. Of an unknown user as of a known one: it is the proof that fails.
    pub fn scram(
        &self,
        mechanism: Mechanism,
        first: &[u8],
        peer: &Peer,
    ) -> Result<(ScramLogin, Vec<u8>), LoginError> {
        let first = ClientFirst::parse(first).map_err(of_exchange)?;
        let user = first.user.clone();
        if !self.0.passwords.attempts.may_try(&user, ip(peer.address)) {
            return Err(LoginError::TooMany);
        }
        let known = self.0.users.load().get(&user);
        let keys = known.and_then(|user| user.scram(mechanism).cloned());
        let keys = keys.unwrap_or_else(|| ScramKeys::of_nobody(mechanism, &user, &self.0.secret));
        let (exchange, message) = ScramServer::begin(first, keys);
        let login = ScramLogin {
            identity: self.clone(),
            user,
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
            user,
            peer,
            exchange,
        } = self;
        let from = peer.address;
        let attempts = &identity.0.passwords.attempts;
        match exchange.finish(message) {
            Ok(last) => {
                attempts.succeeded(&user, ip(from));
                let principal = identity.admit(&user).ok_or(LoginError::Wrong)?;
                Ok((showing(principal, &peer), last))
            }
            Err(error) => {
                if error == ScramError::Wrong {
                    attempts.failed(&user, ip(from));
                }
                identity.log_refusal("a login failed", &user, from, &error);
                Err(of_exchange(error))
            }
        }
    }
}

fn of_exchange(error: ScramError) -> LoginError {
    match error {
        ScramError::Wrong | ScramError::OtherUser => LoginError::Wrong,
        ScramError::Malformed | ScramError::ChannelBinding | ScramError::Extension => {
            LoginError::Malformed
        }
    }
}
