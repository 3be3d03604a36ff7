//! One bounded way to try again.

use std::time::Duration;

use kernel::ports::cold::ColdError;
use rand::RngExt;
use tokio::time::Instant;

use crate::error::Call;
use crate::limits;

/// How often and how long a request is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts at one request, at least one.
    pub attempts: u32,
    /// Time of one attempt, not counting the bytes it moves.
    pub attempt: Duration,
    /// Time of one attempt to put the parts of an upload together.
    pub finish: Duration,
    /// Pause after the first failure; doubles with each.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            attempts: limits::ATTEMPTS,
            attempt: limits::ATTEMPT_TIMEOUT,
            finish: limits::FINISH_TIMEOUT,
            first_pause: limits::FIRST_PAUSE,
            longest_pause: limits::LONGEST_PAUSE,
        }
    }
}

impl Patience {
    /// Repeats what fails with [`ColdError::Unavailable`] or not in time, as long as it is told to. The attempt's number, from 0, is
    /// handed in: from the second on, the first may have been done without our knowing.
    pub(crate) async fn persist<T, F>(
        &self,
        call: &Call<'_>,
        bytes: u64,
        mut attempt: impl FnMut(u32) -> F,
    ) -> Result<T, ColdError>
    where
        F: Future<Output = Result<T, ColdError>>,
    {
        let allowed = self.attempt
            + Duration::from_millis(
                bytes.saturating_mul(1000) / limits::SLOWEST_BYTES_PER_SECOND.max(1),
            );
        let mut pause = self.first_pause;
        let mut number = 0;
        loop {
            let started = Instant::now();
            let error = match tokio::time::timeout(allowed, attempt(number)).await {
                Ok(Err(ColdError::Unavailable(reason))) => ColdError::Unavailable(reason),
                Ok(decided) => return decided,
                Err(_) => call.unavailable(format_args!("no answer within {allowed:?}")),
            };
            number += 1;
            if number >= self.attempts {
                return Err(error);
            }
            tracing::debug!(%error, attempt = number, took = ?started.elapsed(), "cold store: trying again");
            let share = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f64(share)).await;
            pause = (pause * 2).min(self.longest_pause);
        }
    }
}
