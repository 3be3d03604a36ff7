//! Enrolment tokens: `tl1.<id>.<secret>.<sha-256 of the CA certificate>`, each part base64url without padding.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const PREFIX: &str = "tl1";

/// What an operator hands to a new edge: which token, its secret, and which core to trust.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Public: names the token in the core's table and in logs.
    pub id: String,
    /// The secret as text, as it is sent to the core (only after the core has proved to be the right one).
    pub secret: String,
    /// SHA-256 of the DER of the core's CA certificate.
    pub ca_fingerprint: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "a token starts with `tl1.` and has four parts separated by dots: copy it whole, as `towline token create` printed it"
    )]
    Shape,
    #[error(
        "part {0} of the token is not base64url: copy it whole, as `towline token create` printed it"
    )]
    Encoding(&'static str),
    #[error(
        "part {0} of the token has the wrong length: copy it whole, as `towline token create` printed it"
    )]
    Length(&'static str),
}

impl Token {
    /// A token of 9 random bytes of id and 24 of secret, given by the caller.
    pub fn new(id: [u8; 9], secret: [u8; 24], ca_der: &[u8]) -> Token {
        Token {
            id: URL_SAFE_NO_PAD.encode(id),
            secret: URL_SAFE_NO_PAD.encode(secret),
            ca_fingerprint: fingerprint(ca_der),
        }
    }

    /// Parses the text form; surrounding white space is ignored.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(id), Some(secret), Some(ca), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(TokenError::Shape);
        };
        for (what, part) in [("id", id), ("secret", secret)] {
            if part.is_empty() || part.len() > sync::limits::MAX_TOKEN_PART {
                return Err(TokenError::Length(what));
            }
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| TokenError::Encoding(what))?;
        }
        let ca = URL_SAFE_NO_PAD
            .decode(ca)
            .map_err(|_| TokenError::Encoding("fingerprint"))?;
        let ca_fingerprint = ca
            .try_into()
            .map_err(|_| TokenError::Length("fingerprint"))?;
        Ok(Token {
            id: id.to_owned(),
            secret: secret.to_owned(),
            ca_fingerprint,
        })
    }
}

impl std::str::FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        Token::parse(text)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{PREFIX}.{}.{}.{}",
            self.id,
            self.secret,
            URL_SAFE_NO_PAD.encode(self.ca_fingerprint)
        )
    }
}

impl std::fmt::Debug for Token {
    /// Without the secret: this type ends up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}
