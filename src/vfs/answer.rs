//! Answers that are at hand, and answers that must be waited for.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// The outcome of polling once.
pub enum Answer<T> {
    /// It was at hand: in memory or on the local disk.
    Now(T),
    /// It has to be fetched. Whoever holds this drives it as a task.
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Answer<T> {
    /// Polls `future` once, where it is, so that what needs no waiting costs no task and no change of thread.
    ///
    /// The future may need the runtime's context ([`tokio::runtime::Handle::enter`]).
    pub fn of(future: impl Future<Output = T> + Send + 'static) -> Self {
        let mut future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Answer::Now(value),
            Poll::Pending => Answer::Later(future),
        }
    }
}
