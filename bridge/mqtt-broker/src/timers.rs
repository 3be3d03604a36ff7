//! What a connection does when so much time has passed.

use crate::backend::Backend;
use crate::connection::{Connection, End, not_any_more};
use crate::limits;
use mqtt_codec::ReasonCode;
use mqtt_session::Close;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    fn keep_alive_at(&self) -> Option<Instant> {
        let after = self.session.keep_alive_deadline();
        let after = after.filter(|_| self.can_read)?;
        Some(self.last_received + after)
    }

    fn stall_at(&self) -> Option<Instant> {
        (!self.output.is_empty()).then(|| self.last_written + limits::WRITE_STALL)
    }

    /// Of a large packet whose rest is to come.
    fn unfinished_at(&self) -> Option<Instant> {
        let by = self.unfinished.by().filter(|_| self.can_read)?;
        Some(by.min(self.last_received + limits::READ_STALL))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let all = [
            self.keep_alive_at(),
            self.stall_at(),
            self.unfinished_at(),
            self.checkpoint_at,
            self.throttled_until(),
            self.passing.as_ref().and_then(|passing| passing.deadline()),
            self.principal.expires,
            self.fence.as_ref().map(|fence| fence.at),
        ];
        all.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn deadlines(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.keep_alive_at()) {
            let text = "nothing came for one and a half keep-alive periods";
            return Err(Close::new(ReasonCode::KEEP_ALIVE_TIMEOUT, text).into());
        }
        if due(self.unfinished_at()) {
            let text = "the rest of a large packet did not come";
            return Err(Close::new(ReasonCode::QUOTA_EXCEEDED, text).into());
        }
        if due(self.principal.expires) {
            return Err(not_any_more());
        }
        if due(self.stall_at()) {
            return Err(End::Lost);
        }
        if due(self.checkpoint_at) {
            self.checkpoint();
        }
        if due(self.fence.as_ref().map(|fence| fence.at)) {
            self.try_fence();
        }
        if let Some(passing) = &mut self.passing
            && due(passing.deadline())
        {
            passing.give_up(&self.broker.metrics);
        }
        Ok(())
    }
}
