//! Verifications of what is stored: one at a time, beside everything else, no faster than asked for.

use std::sync::Arc;
use std::time::Duration;

use admin_api::{StartVerification, Verification, VerificationState, codes};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use frontend::Context;
use kernel::verify::Step;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Admin;
use admin_http::Refusal;

/// Bytes read in a second where the request says nothing.
const DEFAULT_RATE: u64 = 64 * 1024 * 1024;
/// Least that can be asked for: slower than this it would never end.
const LEAST_RATE: u64 = 64 * 1024;

/// The verification that runs, or the last one.
#[derive(Default)]
pub struct Verifications {
    current: Mutex<Option<Running>>,
}

struct Running {
    seen: Arc<Mutex<Verification>>,
    cancel: CancellationToken,
}

impl Verifications {
    pub fn get(&self) -> Option<Verification> {
        let current = self.current.lock();
        current.as_ref().map(|running| running.seen.lock().clone())
    }
}

pub async fn get(State(admin): State<Arc<Admin>>) -> Result<Json<Verification>, Refusal> {
    admin.verifications.get().map(Json).ok_or_else(none)
}

pub async fn start(
    State(admin): State<Arc<Admin>>,
    body: Result<Json<StartVerification>, JsonRejection>,
) -> Result<(StatusCode, Json<Verification>), Refusal> {
    let Json(request) = body?;
    let rate = request.bytes_per_second.unwrap_or(DEFAULT_RATE);
    if rate < LEAST_RATE {
        return Err(Refusal::invalid(
            format!("{rate} bytes a second is too slow to end"),
            format!("give at least {LEAST_RATE}"),
        ));
    }
    let mut current = admin.verifications.current.lock();
    let runs = current
        .as_ref()
        .is_some_and(|running| running.seen.lock().state == VerificationState::Running);
    if runs {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            codes::ALREADY_EXISTS,
            "a verification is running",
            "`towline storage status` says how far it is; DELETE /v1/storage/verify ends it",
        ));
    }
    let seen = Verification::begun(admin.ctx.now_ms());
    let running = Running {
        seen: Arc::new(Mutex::new(seen.clone())),
        cancel: admin.ctx.shutdown.child_token(),
    };
    let (ctx, watched, cancel) = (
        admin.ctx.clone(),
        running.seen.clone(),
        running.cancel.clone(),
    );
    *current = Some(running);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = look(&ctx, &watched, rate) => ended,
            () = cancel.cancelled() => Ok(VerificationState::Cancelled),
        };
        let mut seen = watched.lock();
        seen.ended_ms = Some(ctx.now_ms());
        match ended {
            Ok(state) => seen.state = state,
            Err(error) => {
                tracing::warn!(%error, "a verification could not go on");
                seen.state = VerificationState::Failed;
                seen.error = Some(error);
            }
        }
    });
    Ok((StatusCode::ACCEPTED, Json(seen)))
}

pub async fn cancel(State(admin): State<Arc<Admin>>) -> Result<Json<Verification>, Refusal> {
    let current = admin.verifications.current.lock();
    let running = current.as_ref().ok_or_else(none)?;
    running.cancel.cancel();
    let mut seen = running.seen.lock();
    // The task says the same when it gets to it.
    if seen.state == VerificationState::Running {
        seen.state = VerificationState::Cancelled;
        seen.ended_ms = Some(admin.ctx.now_ms());
    }
    Ok(Json(seen.clone()))
}

fn none() -> Refusal {
    Refusal::not_found(
        "there has been no verification since the core was started",
        "`towline storage verify` starts one",
    )
}

async fn look(
    ctx: &Context,
    seen: &Mutex<Verification>,
    rate: u64,
) -> Result<VerificationState, String> {
    let mut scrub = ctx.kernel.scrub().await.map_err(|e| e.to_string())?;
    loop {
        let step = scrub.step().await.map_err(|e| e.to_string())?;
        {
            let mut seen = seen.lock();
            seen.done_bytes = scrub.done();
            seen.total_bytes = scrub.total();
            seen.now.clear();
            seen.now.push_str(scrub.now());
            let Some(step) = &step else {
                seen.total_bytes = seen.done_bytes;
                return Ok(VerificationState::Done);
            };
            note(&mut seen, step);
        }
        let bytes = step.map_or(0, |step| step.bytes);
        tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
    }
}

fn note(seen: &mut Verification, step: &Step) {
    for damage in &step.damage {
        tracing::error!(%damage, "verification found damage");
        verification::note(seen, damage);
    }
}
