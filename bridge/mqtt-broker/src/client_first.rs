//! Exchanges of enhanced authentication in which the client speaks first, is asked once, and answers (SCRAM: RFC 5802).

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::access::{Admitted, Exchange, Step};
use crate::backend::ConnectError;

struct ClientFirst<B, F, L> {
    begin: B,
    finish: F,
    begun: Option<L>,
}

/// `begin` makes of the client's first message what is kept until the last, and the question; `finish` decides by the last.
pub fn client_first<B, F, L>(begin: B, finish: F) -> Box<dyn Exchange>
where
    B: Fn(&[u8]) -> Result<(L, Bytes), ConnectError> + Send + Sync + 'static,
    F: Fn(L, &[u8]) -> Result<(Admitted, Bytes), ConnectError> + Send + Sync + 'static,
    L: Send + Sync + 'static,
{
    Box::new(ClientFirst {
        begin,
        finish,
        begun: None,
    })
}

impl<B, F, L> ClientFirst<B, F, L>
where
    B: Fn(&[u8]) -> Result<(L, Bytes), ConnectError>,
    F: Fn(L, &[u8]) -> Result<(Admitted, Bytes), ConnectError>,
{
    fn answer(&mut self, data: &[u8]) -> Result<Step, ConnectError> {
        match self.begun.take() {
            // It need not begin in CONNECT: it is asked to.
            None if data.is_empty() => Ok(Step::Continue(Bytes::new())),
            None => {
                let (begun, question) = (self.begin)(data)?;
                self.begun = Some(begun);
                Ok(Step::Continue(question))
            }
            Some(begun) => {
                let (admitted, data) = (self.finish)(begun, data)?;
                Ok(Step::Done { admitted, data })
            }
        }
    }
}

impl<B, F, L> Exchange for ClientFirst<B, F, L>
where
    B: Fn(&[u8]) -> Result<(L, Bytes), ConnectError> + Send + Sync,
    F: Fn(L, &[u8]) -> Result<(Admitted, Bytes), ConnectError> + Send + Sync,
    L: Send + Sync,
{
    fn step<'a>(&'a mut self, data: &'a [u8]) -> BoxFuture<'a, Result<Step, ConnectError>> {
        Box::pin(std::future::ready(self.answer(data)))
    }
}
