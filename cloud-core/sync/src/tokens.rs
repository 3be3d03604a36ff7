//! Enrolment tokens: the core keeps a hash of the secret, the expiry and the labels.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use sync_quic::{EnrolRefusal, Token, fingerprint};

use crate::authority::hex;

/// The kernel table. Key: token id. Value: JSON of [`StoredToken`].
pub(crate) const TABLE: &str = "sync.tokens";

/// What a token allows.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    pub ttl: Duration,
    /// Given to every edge that enrols with it.
    pub labels: BTreeMap<String, String>,
    /// Whether it enrols one edge only. Fleets share one token within its time.
    pub single_use: bool,
}

/// The one time that a token is shown.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub token: Token,
    /// Milliseconds since 1970.
    pub expires_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    /// SHA-256 of the secret's text, hexadecimal. The secret has 192 random bits: a slow hash would add nothing.
    pub(crate) secret_hash: String,
    pub(crate) created_ms: i64,
    pub(crate) expires_ms: i64,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) single_use: bool,
    /// Edges enrolled with it.
    #[serde(default)]
    pub(crate) uses: u64,
}

impl StoredToken {
    /// A new token, and what is kept of it.
    pub(crate) fn create(options: TokenOptions, ca: &[u8], now_ms: i64) -> (NewToken, StoredToken) {
        let token = Token::new(rand::random(), rand::random(), ca);
        let ttl = i64::try_from(options.ttl.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = now_ms.saturating_add(ttl);
        let stored = StoredToken {
            secret_hash: hex(&fingerprint(token.secret.as_bytes())),
            created_ms: now_ms,
            expires_ms,
            labels: options.labels,
            single_use: options.single_use,
            uses: 0,
        };
        (NewToken { token, expires_ms }, stored)
    }

    pub(crate) fn check(&self, secret: &str, now_ms: i64) -> Result<(), EnrolRefusal> {
        let hash = hex(&fingerprint(secret.as_bytes()));
        if !bool::from(hash.as_bytes().ct_eq(self.secret_hash.as_bytes())) {
            return Err(EnrolRefusal::InvalidToken);
        }
        if now_ms >= self.expires_ms {
            return Err(EnrolRefusal::ExpiredToken);
        }
        if self.single_use && self.uses > 0 {
            return Err(EnrolRefusal::UsedToken);
        }
        Ok(())
    }
}
