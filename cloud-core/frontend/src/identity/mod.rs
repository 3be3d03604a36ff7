//! Who a client is. A front end gives what its client said and gets a [`Principal`], or a refusal.
//!
//! Users are rows of a kernel table, with a snapshot in memory that every login reads. Whoever changes a user does it here, in this
//! process, so the snapshot is never behind.

mod anonymous;
mod jwt;
mod revoke;
mod scram;
mod table;
mod users;

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use credentials::{CheckError, PasswordHash, Passwords, Refusals};
use kernel::Kernel;
use kernel::ports::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;

pub use anonymous::Anonymous;
pub use jwt::{Jwt, JwtRules};
pub use scram::ScramLogin;
pub use table::TABLE;
pub use users::{ChangeError, User, check_name};

use crate::changes::Changes;
use crate::limits;
use crate::{Certificate, Peer, Principal};
use revoke::Revocations;
use table::Users;

/// Why a client is not let in. What it is told is the front end's: less than what is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Also of a user that there is not.
    #[error("wrong user name or password")]
    Wrong,
    #[error("a client without a user may not connect from there")]
    Anonymous,
    /// This attempt was not looked at.
    #[error("too many attempts that failed: try again in half a minute")]
    TooMany,
    #[error("too many passwords are being checked: try again")]
    Busy,
    #[error("a message of the exchange is malformed")]
    Malformed,
    #[error("the certificate names nobody")]
    NoName,
}

impl From<CheckError> for LoginError {
    fn from(error: CheckError) -> LoginError {
        match error {
            CheckError::Wrong => LoginError::Wrong,
            CheckError::TooMany => LoginError::TooMany,
            CheckError::Busy => LoginError::Busy,
        }
    }
}

/// Users that cannot be read keep the core from starting: without them it could let in whom it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} cannot be read: written by a newer version, or damaged. Use the version that wrote it, or restore the data directory from a copy"
)]
pub struct UnreadableError {
    pub what: String,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    kernel: Kernel,
    anonymous: Anonymous,
    users: ArcSwap<Users>,
    changes: Changes,
    passwords: Passwords,
    revocations: Revocations,
    jwt: Option<Arc<Jwt>>,
    refusals: Refusals,
    /// What the times in tokens are compared with.
    clock: SystemClock,
}

/// A user whose secrets a login is compared with, and what tells that they have been changed since.
struct Known {
    user: Arc<User>,
    revoked: Arc<CancellationToken>,
}

impl Known {
    /// `None`: deleted, or with another password, since the login began.
    fn admit(self) -> Option<Principal> {
        let Known { user, revoked } = self;
        (!revoked.is_cancelled()).then(|| Principal::user(user.name.clone(), revoked))
    }
}

impl Identity {
    /// `jwt`: tokens count as passwords. `secret`: always the same, for the salts that unknown users are shown.
    pub fn open(
        kernel: Kernel,
        anonymous: Anonymous,
        jwt: Option<Arc<Jwt>>,
        secret: [u8; 32],
    ) -> Result<Identity, UnreadableError> {
        let users = Users::read(&kernel)?;
        let passwords = Passwords::new(
            limits::PASSWORDS_AT_ONCE,
            limits::PASSWORDS_WAITING,
            PasswordHash::of_nobody(),
        );
        Ok(Identity(Arc::new(Inner {
            kernel,
            anonymous,
            users: ArcSwap::from_pointee(users),
            changes: Changes::default(),
            passwords: passwords.with_secret(secret),
            revocations: Revocations::default(),
            jwt,
            refusals: Refusals::default(),
            clock: SystemClock::default(),
        })))
    }

    /// Who may come without a user, as it is configured.
    pub fn anonymous_setting(&self) -> Anonymous {
        self.0.anonymous
    }

    /// Is there nobody whom a client could be?
    pub fn is_empty(&self) -> bool {
        self.0.jwt.is_none() && self.0.users.load().is_empty()
    }

    /// May a client from there come without a user? `None`: not over a network.
    pub fn is_open(&self, from: Option<IpAddr>) -> bool {
        self.0.anonymous.is_open(from, self.is_empty())
    }

    /// Do clients without a user, that were let in, still count?
    pub fn lets_strangers(&self) -> bool {
        self.is_open(None)
    }

    /// A client that gave no user.
    pub fn anonymous(&self, from: Option<SocketAddr>) -> Result<Principal, LoginError> {
        if self.is_open(ip(from)) {
            return Ok(Principal::anonymous());
        }
        self.log_refusal(
            "a client without a user was refused",
            "",
            from,
            &LoginError::Anonymous,
        );
        Err(LoginError::Anonymous)
    }

    /// A client that gave a name and a password in plain. While the core is open and has no users there is nothing to compare with: the
    /// client is let in, and the name is no more than what it calls itself.
    pub async fn password(
        &self,
        name: &str,
        password: &[u8],
        peer: &Peer,
    ) -> Result<Principal, LoginError> {
        let principal = self.by_password(name, password, peer.address).await?;
        Ok(showing(principal, peer))
    }

    async fn by_password(
        &self,
        name: &str,
        password: &[u8],
        from: Option<SocketAddr>,
    ) -> Result<Principal, LoginError> {
        if self.is_empty() && self.is_open(ip(from)) {
            return Ok(Principal::unverified(name));
        }
        if let Some(jwt) = self.0.jwt.as_ref().filter(|_| Jwt::looks_like(password)) {
            return self.token(jwt, name, password, from);
        }
        let known = self.known(name);
        let hash = known.as_ref().map(|known| &known.user.password);
        let checking = self.0.passwords.check(name, password, hash, source(from));
        if let Err(error) = checking.await {
            self.log_refusal("a login failed", name, from, &error);
            return Err(error.into());
        }
        known.and_then(Known::admit).ok_or(LoginError::Wrong)
    }

    /// A token in place of a password. The name beside it may only say the same, or nothing.
    fn token(
        &self,
        jwt: &Jwt,
        name: &str,
        token: &[u8],
        from: Option<SocketAddr>,
    ) -> Result<Principal, LoginError> {
        let now_ms = self.0.clock.now_ms();
        let verified = jwt.verify(token, now_ms);
        let claims =
            verified.map_err(|error| self.refused_token(name, &error.to_string(), from))?;
        if !name.is_empty() && name != claims.user {
            let why = format!("it is of user {:?}", claims.user);
            return Err(self.refused_token(name, &why, from));
        }
        let left = Duration::from_millis(claims.expires_ms.abs_diff(now_ms));
        let expires = tokio::time::Instant::now() + left.min(limits::LONGEST_TOKEN);
        let revoked = self.0.revocations.of(&claims.user);
        let groups = claims.groups.into_iter().map(Arc::from).collect();
        Ok(Principal::user(claims.user.into(), revoked).with_token(groups, expires))
    }

    /// Counts as a wrong password. It was looked at nevertheless: that costs little, and whoever has a good one gets in, however many
    /// forged ones come in this name. A good one does not end the count, which is about passwords too: its owner need not know that one.
    fn refused_token(&self, name: &str, why: &str, from: Option<SocketAddr>) -> LoginError {
        let answer = match self.0.passwords.attempts.begin(name, source(from)) {
            Some(attempt) => {
                attempt.was_wrong();
                LoginError::Wrong
            }
            None => LoginError::TooMany,
        };
        self.log_refusal("a token was refused", name, from, &why);
        answer
    }

    fn log_refusal(&self, what: &str, name: &str, from: Option<SocketAddr>, error: &dyn Display) {
        if let Some(left_out) = self.0.refusals.tell(name, source(from)) {
            let user: String = name.chars().take(limits::MAX_USER_NAME).collect();
            tracing::warn!(user = %user.escape_debug(), ?from, %error, left_out, "{what}");
        }
    }

    /// The name by which a certificate is a user: its common name, or else its first alternative name.
    pub fn name_of(certificate: &Certificate) -> Option<&Arc<str>> {
        let alternatives = certificate
            .dns_names
            .iter()
            .chain(&certificate.email_addresses)
            .chain(&certificate.uris);
        certificate.common_name.iter().chain(alternatives).next()
    }

    /// A client whose certificate TLS has verified: its name is the user, whether or not there is one in the table.
    pub fn certificate(&self, name: &Arc<str>) -> Result<Principal, LoginError> {
        if name.is_empty() {
            return Err(LoginError::NoName);
        }
        Ok(Principal::user(name.clone(), self.0.revocations.of(name))
            .with_certificate(name.clone()))
    }

    /// A user for a login that begins now.
    fn known(&self, name: &str) -> Option<Known> {
        // Of names that nobody has there are no tokens: clients make them up.
        self.0.users.load().get(name)?;
        // The token before the secrets: whatever changes them after that cancels it, however long the login takes.
        let revoked = self.0.revocations.of(name);
        let user = self.0.users.load().get(name)?;
        Some(Known { user, revoked })
    }

    /// The groups of a user in the table.
    pub fn groups_of(&self, user: &str) -> Arc<[Arc<str>]> {
        let user = self.0.users.load().get(user);
        user.map_or_else(|| Arc::from([]), |user| user.groups.clone())
    }
}

/// Rules that name a certificate are about everybody who shows it, also who says in another way who he is: a certificate that is denied
/// must not count again because of a password.
fn showing(principal: Principal, peer: &Peer) -> Principal {
    let certificate = peer.certificate.as_deref();
    match certificate.and_then(Identity::name_of) {
        Some(name) => principal.with_certificate(name.clone()),
        None => principal,
    }
}

/// What attempts are counted by.
fn source(from: Option<SocketAddr>) -> Option<IpAddr> {
    ip(from).map(transport::source)
}

fn ip(from: Option<SocketAddr>) -> Option<IpAddr> {
    from.map(|address| address.ip())
}
