//! How this edge comes to its identity: once by a token, and once more by another token after it was fenced as a copy.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use credentials::write_private;
use sync_quic::{EnrolError, EnrolRefusal, Identity, Token};

use super::Uplink;
use crate::identity::{self, Enrolled, Found};
use crate::limits;
use crate::lineage::Lineage;

/// There as long as this edge is fenced: names the certificate with which it was.
const FENCED: &str = "fenced";

/// What is said behind the core's own words.
pub const FENCED_HINT: &str = "; data is still taken and kept. To go on with this copy, start it once with another --token: it is enrolled again, and what is in its outbox is set aside";

/// The identity to connect with. `None` = there is none, which only an operator can change.
pub async fn identity(uplink: &Uplink) -> Option<Identity> {
    let fenced = fs::read(uplink.dir.join(FENCED)).ok();
    let stored = match &uplink.enrolment {
        Found::Enrolled(stored) => stored,
        Found::Forbidden(reason) => {
            uplink.link.set_down(reason.clone());
            return None;
        }
        Found::Nothing | Found::Damaged(_) => {
            let identity = enrol(uplink).await?;
            return match fenced {
                // Whose it was is gone, that it is a copy is not.
                Some(_) => anew(uplink, identity).await,
                None => Some(identity),
            };
        }
    };
    if stored.identity.edge != uplink.name {
        tracing::debug!(enrolled = %stored.identity.edge, given = %uplink.name, "the name was settled at the enrolment");
    }
    let Some(fenced) = fenced else {
        return Some(stored.identity.clone());
    };
    let identity = if fenced != identity::fingerprint(&stored.identity).into_bytes() {
        // It was enrolled again, and then stopped before it was done.
        stored.identity.clone()
    } else if is_new(uplink, stored) {
        enrol(uplink).await?
    } else {
        return Some(stored.identity.clone());
    };
    anew(uplink, identity).await
}

/// The identity of a copy that was enrolled again, when what it must not send is set aside.
async fn anew(uplink: &Uplink, identity: Identity) -> Option<Identity> {
    match begin_anew(uplink).await {
        Ok(()) => Some(identity),
        Err(error) => {
            uplink.link.set_down(format!(
                "enrolled again, but the outbox can not be set aside: {error}"
            ));
            None
        }
    }
}

/// Whether there is a token, and not the one of the enrolment before: a copied card has that in its configuration as well.
fn is_new(uplink: &Uplink, stored: &Enrolled) -> bool {
    let token = uplink.token.as_deref().map(identity::token_digest);
    token.is_some_and(|token| stored.token.as_ref() != Some(&token))
}

/// Takes a fresh producer id, and sets aside what was written under the old one.
async fn begin_anew(uplink: &Uplink) -> io::Result<()> {
    let store = uplink.store.clone();
    let random = rand::random();
    let fresh = tokio::task::spawn_blocking(move || store.fresh_identity(random)).await;
    let producer = fresh.map_err(io::Error::other)??;
    let present = (producer.epoch, uplink.nonce);
    *uplink.lineage.lock() = Lineage::open(&uplink.dir, producer.id, present);
    fs::remove_file(uplink.dir.join(FENCED))
}

/// The core says that this is a copy of an edge.
pub fn note_fenced(dir: &Path, identity: &Identity) {
    let fingerprint = identity::fingerprint(identity);
    if fs::read(dir.join(FENCED)).is_ok_and(|noted| noted == fingerprint.as_bytes()) {
        return;
    }
    if let Err(error) = write_private(&dir.join(FENCED), fingerprint.as_bytes()) {
        tracing::warn!(%error, "that this edge is fenced can not be noted");
    }
}

/// The core lets it in after all.
pub fn forget_fenced(dir: &Path) {
    // Nearly always there is none.
    let _ = fs::remove_file(dir.join(FENCED));
}

async fn enrol(uplink: &Uplink) -> Option<Identity> {
    let link = &uplink.link;
    let not_enrolled = match &uplink.enrolment {
        Found::Damaged(reason) => format!("{reason}; not enrolled"),
        _ => "not enrolled".into(),
    };
    let Some(text) = &uplink.token else {
        let what = "give a token with --token (make one with `towline token create`)";
        link.set_down(format!("{not_enrolled}: {what}"));
        return None;
    };
    let token = match Token::parse(text) {
        Ok(token) => token,
        Err(error) => {
            link.set_down(format!(
                "{not_enrolled}: the token can not be used: {error}"
            ));
            return None;
        }
    };
    let mut pause = limits::MIN_RETRY;
    loop {
        let now = uplink.clock.certificates();
        let enrolled =
            sync_quic::enrol(&uplink.cores, &token, &uplink.name, now, uplink.timing).await;
        let error = match enrolled {
            Ok(identity) => match identity::save(&uplink.dir, &identity, text) {
                Ok(()) => {
                    tracing::info!(edge = %identity.edge, "enrolled");
                    return Some(identity);
                }
                Err(error) => {
                    link.set_down(format!("the identity can not be stored: {error}"));
                    wait(limits::MAX_RETRY).await;
                    continue;
                }
            },
            Err(error) => error,
        };
        link.set_down(format!("{not_enrolled}: {error}"));
        let soon = matches!(
            error,
            EnrolError::Resolve { .. }
                | EnrolError::Unreachable { .. }
                | EnrolError::Refused {
                    code: EnrolRefusal::Unavailable,
                    ..
                }
        );
        wait(if soon { pause } else { limits::MAX_RETRY }).await;
        pause = (pause * 2).min(limits::MAX_RETRY);
    }
}

/// Between half of the time and all of it, so that edges do not come together.
async fn wait(longest: Duration) {
    let share = 0.5 + rand::random::<f64>() / 2.0;
    tokio::time::sleep(longest.mul_f64(share)).await;
}
