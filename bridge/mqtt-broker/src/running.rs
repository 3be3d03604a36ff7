//! Futures of a connection that run side by side. Most connections have none most of the time, and pay for none then.

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{Stream, StreamExt};
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

/// Their results come in the order in which they end.
pub(crate) type Running<T> = OnDemand<FuturesUnordered<BoxFuture<'static, T>>>;
/// Their results come in the order in which they were begun.
pub(crate) type InOrder<T> = OnDemand<FuturesOrdered<BoxFuture<'static, T>>>;

/// A set of futures that takes memory only while there is one in it: an empty set has some hundred bytes on the heap.
#[derive(Debug)]
pub(crate) struct OnDemand<S>(Option<S>);

impl<S> Default for OnDemand<S> {
    fn default() -> OnDemand<S> {
        OnDemand(None)
    }
}

impl<T> Running<T> {
    pub fn push(&mut self, future: BoxFuture<'static, T>) {
        self.0.get_or_insert_default().push(future);
    }
}

impl<T> InOrder<T> {
    pub fn push_back(&mut self, future: BoxFuture<'static, T>) {
        self.0.get_or_insert_default().push_back(future);
    }
}

impl<S: Stream + Unpin> OnDemand<S> {
    /// How many have not given their result.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |set| set.size_hint().0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The next result; `None` = there is no future.
    pub async fn next(&mut self) -> Option<S::Item> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let Some(set) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let done = ready!(set.poll_next_unpin(cx));
        let left = set.size_hint().0;
        if left == 0 {
            self.0 = None;
        }
        Poll::Ready(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn results_come_in_their_order_and_nothing_is_left() {
        let mut set = InOrder::default();
        let (first, first_done) = oneshot::channel::<u32>();
        let (second, second_done) = oneshot::channel::<u32>();
        for done in [first_done, second_done] {
            set.push_back(Box::pin(async move { done.await.unwrap_or_default() }));
        }
        second.send(2).unwrap();
        assert_eq!(set.len(), 2);
        assert!(futures_util::poll!(std::pin::pin!(set.next())).is_pending());
        first.send(1).unwrap();
        assert_eq!((set.next().await, set.next().await), (Some(1), Some(2)));
        assert!(set.is_empty());
        assert_eq!(set.next().await, None);
        let mut set = Running::default();
        set.push(Box::pin(async { 3 }));
        assert_eq!(set.next().await, Some(3));
        assert!(set.is_empty());
    }
}
