//! What a core does beside serving: retention and checkpoints, sealing, and looking after the cold store.

use std::time::Duration;

use frontend::Context;
use kernel::Kernel;
use tokio::time::MissedTickBehavior;

/// How often retention, checkpoints and the cold store are looked after.
const EVERY: Duration = Duration::from_secs(1);
/// Shortest and longest time after which what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Starts sealing and the care for the cold store; they end at shutdown.
pub fn start(ctx: &Context) {
    let until = ctx.shutdown.clone();
    let kernel = ctx.kernel.clone();
    tokio::spawn(async move { until.run_until_cancelled(seal(kernel)).await });
    let until = ctx.shutdown.clone();
    let kernel = ctx.kernel.clone();
    tokio::spawn(async move { until.run_until_cancelled(rewrite(kernel)).await });
    let until = ctx.shutdown.clone();
    let kernel = ctx.kernel.clone();
    tokio::spawn(async move { until.run_until_cancelled(tend(kernel)).await });
    let until = ctx.shutdown.clone();
    let kernel = ctx.kernel.clone();
    tokio::spawn(async move { until.run_until_cancelled(look_at_device(kernel)).await });
}

/// Beside everything else, for all of that waits with a disk that does not answer.
async fn look_at_device(kernel: Kernel) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        kernel.look_at_device();
    }
}

/// Ends, with the reason, only when the log has failed.
pub async fn maintain(kernel: &Kernel) -> String {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        kernel.maintain().await;
        if let Some(reason) = kernel.stats().failed {
            return reason;
        }
    }
}

async fn seal(kernel: Kernel) {
    let mut wait = RETRY.0;
    loop {
        kernel.wait_seal_due().await;
        match kernel.seal().await {
            Ok(_) => wait = RETRY.0,
            Err(error) => {
                // Nothing is lost: the write-ahead log has it. Its bound holds writers back if this lasts.
                tracing::error!(%error, retry_in = ?wait, "cannot seal to the cold store");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}

/// Compaction, and copying what is left of old segments.
async fn rewrite(kernel: Kernel) {
    let mut wait = EVERY;
    loop {
        tokio::time::sleep(wait).await;
        wait = match kernel.rewrite().await {
            // There may be more; between two of them others get their turn.
            Ok(true) => Duration::ZERO,
            Ok(false) => EVERY,
            Err(error) => {
                tracing::error!(%error, "cannot rewrite segments of the cold store");
                RETRY.1
            }
        };
    }
}

/// Deletes what nobody needs in the cold store, and keeps a checkpoint there.
async fn tend(kernel: Kernel) {
    let mut wait = EVERY;
    loop {
        tokio::time::sleep(wait).await;
        wait = match kernel.tend_cold().await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::error!(%error, "cannot look after the cold store");
                RETRY.1
            }
        };
    }
}
