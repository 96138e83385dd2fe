//! One call, however often it is tried: within one deadline, in the dialect that the peer speaks.

use std::{future::Future, pin::pin, time::Duration};

use futures::future::{Either, select};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Status};

use super::{
    Dialect, GrpcChannel,
    method::{Effort, Method},
    peers::{PeerId, Target},
    status::{Failure, failure, from_status},
};
use crate::{
    observe::event,
    service::{Error, Result, pause::Attempts},
};

/// Work that takes long lasts at most this many deadlines. Meanwhile only the connection has to show that it lives.
const LONG_WORK_DEADLINES: u32 = 120;

/// What a peer answered: a status also is an answer.
pub(super) type Answer<T> = std::result::Result<T, Status>;

/// How one attempt ended.
enum Attempt<T> {
    Answered(Answer<T>),
    /// Another may do better, if there is time.
    Failed {
        error: Error,
        is_news: bool,
    },
    /// Nobody was asked, and nobody would be.
    Over(Error),
}

impl GrpcChannel {
    /// Makes `call`, which gets whom to call by which name, until the peer answers. What is no answer is tried again while
    /// there is time. Errors are those of the last attempt.
    pub(super) async fn attempt<T, F>(
        &self,
        method: &'static Method,
        call: impl Fn(Target) -> F,
    ) -> Result<Answer<T>>
    where
        F: Future<Output = Answer<T>>,
    {
        let deadline = Instant::now() + self.time_for(method);
        let mut attempts = Attempts::until(deadline);
        loop {
            let (error, is_news) = match self.attempt_once(method, &call, deadline).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Over(error) => return Err(error),
                Attempt::Failed { error, is_news } => (error, is_news),
            };
            let attempts_max = self.0.options.attempts_max.max(self.0.peers.len() as u32);
            let Some(next) = attempts.next(attempts_max) else {
                if is_news {
                    tracing::warn!(
                        event = event::CALL_FAILED,
                        %error,
                        method = method.name,
                        "a call failed"
                    );
                }
                return Err(error);
            };
            tracing::debug!(%error, method = method.name, "trying again");
            sleep_until(next).await;
        }
    }

    /// As [`GrpcChannel::attempt`], without trying again.
    pub(super) async fn attempt_first<T, F>(
        &self,
        method: &'static Method,
        call: impl Fn(Target) -> F,
    ) -> Result<Answer<T>>
    where
        F: Future<Output = Answer<T>>,
    {
        let deadline = Instant::now() + self.time_for(method);
        match self.attempt_once(method, &call, deadline).await {
            Attempt::Answered(answer) => Ok(answer),
            Attempt::Over(error) | Attempt::Failed { error, .. } => Err(error),
        }
    }

    async fn attempt_once<T, F>(
        &self,
        method: &'static Method,
        call: &impl Fn(Target) -> F,
        deadline: Instant,
    ) -> Attempt<T>
    where
        F: Future<Output = Answer<T>>,
    {
        if let Err(error) = self.check_online(method) {
            return Attempt::Over(error);
        }
        let peers = &self.0.peers;
        let peer = match peers.choose() {
            Ok(peer) => peer,
            Err(refusal) => return Attempt::Over(refusal),
        };
        let began = Instant::now();
        let Ok(answer) = timeout_at(deadline, self.hedged(method, call, peer, deadline)).await
        else {
            let error = self.timed_out(method);
            let is_news = self.failed(peer, began, &error);
            return Attempt::Failed { error, is_news };
        };
        match answer {
            Err(status) if failure(&status) == Failure::Unreachable => {
                let error = self.error(method, status);
                let is_news = self.failed(peer, began, &error);
                Attempt::Failed { error, is_news }
            }
            // It has answered, and may do better at another time.
            Err(status) if failure(&status) == Failure::Passing => {
                peers.circuit(peer).answered();
                Attempt::Failed { error: self.error(method, status), is_news: true }
            }
            answer => {
                peers.circuit(peer).answered();
                Attempt::Answered(answer)
            }
        }
    }

    /// For a look-up, a second call beside the first if that has not been answered by half of the time: it may have
    /// been lost where another would not be.
    async fn hedged<T, F>(
        &self,
        method: &'static Method,
        call: &impl Fn(Target) -> F,
        peer: PeerId,
        deadline: Instant,
    ) -> Answer<T>
    where
        F: Future<Output = Answer<T>>,
    {
        let first = pin!(self.in_dialect(method, call, peer));
        if method.effort != Effort::Lookup {
            return first.await;
        }
        let half = deadline - self.0.options.deadline / 2;
        if Instant::now() >= half {
            // This is the second already.
            return first.await;
        }
        let half = pin!(sleep_until(half));
        let first = match select(first, half).await {
            Either::Left((answer, _)) => return answer,
            Either::Right(((), first)) => first,
        };
        let beside = self.0.peers.beside(peer);
        let second = pin!(self.in_dialect(method, call, beside));
        let (answer, other) = match select(first, second).await {
            Either::Left((answer, second)) => (answer, Either::Right(second)),
            Either::Right((answer, first)) => {
                if beside != peer {
                    self.0.peers.turn_from(peer);
                }
                (answer, Either::Left(first))
            }
        };
        match (answer.as_ref().err().map_or(Failure::None, failure), other) {
            (Failure::None, _) => answer,
            (_, Either::Left(first)) => first.await,
            (_, Either::Right(second)) => second.await,
        }
    }

    /// Calls by the names that the peer answered to before, and if it does not know them, by the others.
    pub(super) async fn in_dialect<T, F>(
        &self,
        method: &'static Method,
        call: &impl Fn(Target) -> F,
        peer: PeerId,
    ) -> Answer<T>
    where
        F: Future<Output = Answer<T>>,
    {
        let target = |dialect| Target { peer, path: method.path(dialect) };
        let dialect = self.known_dialect().unwrap_or(Dialect::Tvix);
        let answer = call(target(dialect)).await;
        if self.0.options.dialect.is_some() || !method.has_dialects() {
            return answer;
        }
        match &answer {
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) if failure(status) != Failure::None => return answer,
            _ => {
                self.remember_dialect(dialect);
                return answer;
            }
        }
        let other = dialect.other();
        match call(target(other)).await {
            // It knows the method by neither name.
            Err(status) if status.code() == Code::Unimplemented => answer,
            other_answer => {
                let failed = other_answer.as_ref().err().map_or(Failure::None, failure);
                if failed == Failure::None {
                    self.remember_dialect(other);
                }
                other_answer
            }
        }
    }

    fn time_for(&self, method: &Method) -> Duration {
        match method.effort {
            Effort::Lookup => self.0.options.deadline,
            Effort::Long => self.time_for_long_work(),
        }
    }

    /// How long the peer may take for what is much work.
    pub(super) fn time_for_long_work(&self) -> Duration {
        self.0.options.deadline * LONG_WORK_DEADLINES
    }

    pub(super) fn timed_out(&self, method: &Method) -> Error {
        Error::TimedOut { endpoint: self.endpoint().clone(), what: method.name.into() }
    }

    pub(super) fn error(&self, method: &Method, status: Status) -> Error {
        from_status(self.endpoint(), method, status)
    }

    /// An error if nobody may be asked.
    pub(super) fn check_online(&self, method: &Method) -> Result<()> {
        match self.0.options.offline {
            true => {
                Err(Error::Offline { endpoint: self.endpoint().clone(), what: method.name.into() })
            }
            false => Ok(()),
        }
    }
}
