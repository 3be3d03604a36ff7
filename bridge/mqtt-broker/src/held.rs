//! A client that is let in later.

use crate::access::{Principal, Share};
use crate::authenticate::Refused;
use crate::incoming::Incoming;
use crate::registry::Claim;
use mqtt_codec::ReasonCode;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// For one that brings a will: nothing can keep that back once its client is connected, so it waits where its PUBLISH would. Who leaves before
/// CONNACK leaves no will behind.
pub(crate) async fn wait_for_quota<S: AsyncRead>(
    share: &Share,
    claim: &Claim,
    principal: &Principal,
    incoming: &mut Incoming<S>,
    shutdown: &CancellationToken,
) -> Result<(), Refused> {
    loop {
        // Others of the account may have used up what came in meanwhile.
        let owed = share.owed(Instant::now());
        if owed.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = sleep(owed) => {}
            _ = claim.wanted() => return Err(Refused::Gone),
            () = principal.revoked() => return Err(ReasonCode::NOT_AUTHORIZED.into()),
            () = shutdown.cancelled() => return Err(Refused::Gone),
            () = incoming.gone() => return Err(Refused::Gone),
        }
    }
}
