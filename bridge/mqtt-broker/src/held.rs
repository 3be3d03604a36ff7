//! What CONNECT takes of a quota, and a client that is let in later because of it.

use crate::access::{Principal, Share};
use crate::authenticate::Refused;
use crate::incoming::Incoming;
use crate::limits;
use crate::registry::Claim;
use mqtt_codec::ReasonCode;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Who owes is heard later. One that brings a will is let in later: nothing can keep that back once its client is connected, so it waits where its
/// PUBLISH would, for what was owed before it, however much others take meanwhile. Who leaves before CONNACK leaves no will behind.
pub(crate) async fn take_connect<S: AsyncRead>(
    share: &mut Share,
    brings_will: bool,
    claim: &Claim,
    principal: &Principal,
    incoming: &mut Incoming<S>,
    shutdown: &CancellationToken,
) -> Result<(), Refused> {
    let (now, read) = (Instant::now(), incoming.read);
    let owed_until = share.begin(now);
    let is_too_late = owed_until.is_some_and(|until| until > now + limits::WILL_WAIT);
    if brings_will && is_too_late {
        // Its will is none: who tries again and again must not owe more and more.
        share.take(0, read, now);
        share.refuse();
        let client = &principal.client;
        tracing::info!(%client, user = ?principal.user, "a client may not connect: a quota is used up, and it brings a will");
        return Err(ReasonCode::QUOTA_EXCEEDED.into());
    }
    share.take(u64::from(brings_will), read, now);
    let Some(until) = owed_until.filter(|_| brings_will) else {
        return Ok(());
    };
    let waited = tokio::select! {
        () = sleep_until(until) => Ok(()),
        _ = claim.wanted() => Err(Refused::Gone),
        () = principal.revoked() => Err(ReasonCode::NOT_AUTHORIZED.into()),
        () = shutdown.cancelled() => Err(Refused::Gone),
        () = incoming.gone() => Err(Refused::Gone),
    };
    // What has come meanwhile.
    share.take(0, incoming.read - read, Instant::now());
    waited
}
