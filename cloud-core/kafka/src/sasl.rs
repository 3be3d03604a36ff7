//! Who the client of a connection is: SaslHandshake and SaslAuthenticate, and what it may ask before (KIP-43, KIP-84, KIP-152).

use std::sync::Arc;

use bytes::Bytes;
use credentials::Mechanism;
use frontend::{Identity, LoginError, Peer, Principal, ScramLogin};

use crate::error_code::*;
use crate::wire::sasl_authenticate::*;
use crate::wire::sasl_handshake::*;

const PLAIN: &str = "PLAIN";

/// One connection's way to a principal.
pub struct Sasl {
    identity: Identity,
    peer: Peer,
    state: State,
}

enum State {
    /// Nobody yet, and everything but the way in is refused.
    Stranger,
    /// Anybody may come, or its certificate says who it is; it can still say so itself.
    Welcome(Arc<Principal>),
    Plain,
    Scram(Mechanism, Option<Box<ScramLogin>>),
    Known(Arc<Principal>),
    /// A wrong password: the answer says so, then the connection ends.
    Failed,
}

impl Sasl {
    pub fn new(identity: Identity, peer: &Peer) -> Sasl {
        let from = peer.address;
        let name = peer
            .certificate
            .as_ref()
            .and_then(|one| Identity::name_of(one));
        let certified = name.and_then(|name| identity.certificate(name).ok());
        let state = match certified {
            Some(principal) => State::Welcome(Arc::new(principal)),
            None if identity.is_open(from.map(|from| from.ip())) => {
                State::Welcome(Arc::new(Principal::anonymous()))
            }
            None => State::Stranger,
        };
        Sasl {
            identity,
            peer: peer.clone(),
            state,
        }
    }

    /// `None`: it has to say who it is first.
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        match &self.state {
            State::Welcome(principal) | State::Known(principal) => Some(principal),
            _ => None,
        }
    }

    /// Is there nothing more to be said on this connection?
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    pub fn handshake(
        &mut self,
        version: i16,
        request: &SaslHandshakeRequest,
    ) -> SaslHandshakeResponse {
        let mechanism = Mechanism::from_name(&request.mechanism);
        let next = match (&self.state, mechanism) {
            // Version 0 goes on with messages that have no frame of the protocol.
            _ if version == 0 => Err(UNSUPPORTED_VERSION),
            (State::Known(_), _) => Err(ILLEGAL_SASL_STATE),
            (_, Some(mechanism)) => Ok(State::Scram(mechanism, None)),
            (_, None) if request.mechanism == PLAIN => Ok(State::Plain),
            (_, None) => Err(UNSUPPORTED_SASL_MECHANISM),
        };
        let error_code = match next {
            Ok(state) => {
                self.state = state;
                NONE
            }
            Err(code) => code,
        };
        let scram = Mechanism::ALL.into_iter().map(Mechanism::name);
        SaslHandshakeResponse {
            error_code,
            mechanisms: [PLAIN]
                .into_iter()
                .chain(scram)
                .map(str::to_owned)
                .collect(),
        }
    }

    pub async fn authenticate(
        &mut self,
        request: SaslAuthenticateRequest,
    ) -> SaslAuthenticateResponse {
        match self.step(&request.auth_bytes).await {
            Ok(auth_bytes) => SaslAuthenticateResponse {
                auth_bytes,
                ..Default::default()
            },
            Err((error_code, message)) => SaslAuthenticateResponse {
                error_code,
                error_message: Some(message),
                ..Default::default()
            },
        }
    }

    async fn step(&mut self, message: &[u8]) -> Result<Bytes, (i16, String)> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Plain => {
                let (user, password) =
                    plain(message).ok_or_else(|| failed(LoginError::Malformed))?;
                let checked = self.identity.password(user, password, &self.peer).await;
                self.state = State::Known(Arc::new(checked.map_err(failed)?));
                Ok(Bytes::new())
            }
            State::Scram(mechanism, None) => {
                let begun = self.identity.scram(mechanism, message, &self.peer);
                let (login, question) = begun.map_err(failed)?;
                self.state = State::Scram(mechanism, Some(Box::new(login)));
                Ok(question.into())
            }
            State::Scram(_, Some(login)) => {
                let (principal, last) = login.finish(message).map_err(failed)?;
                self.state = State::Known(Arc::new(principal));
                Ok(last.into())
            }
            state => {
                self.state = state;
                Err((
                    ILLEGAL_SASL_STATE,
                    "SaslHandshake has to name a mechanism first".to_owned(),
                ))
            }
        }
    }
}

fn failed(error: LoginError) -> (i16, String) {
    (
        SASL_AUTHENTICATION_FAILED,
        format!("Authentication failed: {error}"),
    )
}

/// RFC 4616: authorisation identity, user name and password, separated by zero bytes.
fn plain(message: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = message.split(|byte| *byte == 0);
    let (for_whom, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    // Acting for somebody else is not offered.
    let itself = for_whom.is_empty() || for_whom == user;
    let user = std::str::from_utf8(user).ok()?;
    (itself && parts.next().is_none()).then_some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_messages() {
        for (message, expected) in [
            (&b"\0ann\0secret"[..], Some(("ann", &b"secret"[..]))),
            (b"ann\0ann\0secret", Some(("ann", &b"secret"[..]))),
            (b"root\0ann\0secret", None),
            (b"\0ann", None),
            (b"\0ann\0a\0b", None),
            (b"\0\xff\0x", None),
            (b"", None),
        ] {
            assert_eq!(plain(message), expected, "{message:?}");
        }
    }
}
