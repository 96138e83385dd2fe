//! Asking a binary cache over HTTP.
//!
//! One deadline a question, within which it is asked up to four times; a second time beside the first if there is no
//! answer by half of it. A file has an allowance of waiting instead, and is asked for again from where it broke off. A
//! cache that fails several times in a row is left alone, and tried in the background until it answers: the same rules
//! as for a peer that speaks gRPC.

mod answer;
mod credentials;
mod download;
mod error;

pub use credentials::{Credentials, CredentialsError};
pub(super) use download::Download;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, IF_RANGE, LOCATION, RANGE},
    redirect::Policy,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::{answer::Answer, error::Failure};
use super::{cache_info::CACHE_INFO_NAME, fault::CacheFault};
use crate::{
    nix::Origin,
    observe::{Span, event},
    service::{
        Error, Result,
        circuit::{Circuit, News, try_until_it_answers},
        crypto,
        pause::Attempts,
    },
};

/// How often a question is asked at most, unless the address says otherwise.
pub(super) const ATTEMPTS_DEFAULT: u32 = 4;
/// How many redirects are followed.
pub const REDIRECTS_MAX: usize = 5;
/// How long connecting may take.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

const USER_AGENT: &str = concat!("lazystore/", env!("CARGO_PKG_VERSION"));

/// One server, as far as it is one cache.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Arc<str>,
    /// Without a slash at the end.
    base: String,
    origin: Origin,
    credentials: Credentials,
    limits: Limits,
    circuit: Circuit,
}

/// How far asking goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long an answer may take.
    pub(super) deadline: Duration,
    /// How often a question is asked at most.
    pub(super) attempts_max: u32,
    /// Whether nobody may be asked.
    pub(super) offline: bool,
    /// Whether the cache is told to which trace a question belongs; other servers never are.
    pub(super) tells_traces: bool,
}

/// Where that which is wanted of a file begins, and of which one: it may be replaced meanwhile.
struct Beginning<'a> {
    at: u64,
    etag: Option<&'a str>,
}

/// What an answer means.
enum Judged {
    /// It is what was asked for.
    Here(Response),
    /// There is no such thing.
    Absent,
    /// It is to be asked for there.
    Elsewhere(Url),
}

/// What spans call that which is at a URL, by the end of its name: there may be anything before it.
fn kind_of(url: &Url) -> &'static str {
    let name = url.path().rsplit('/').next().unwrap_or_default();
    match name {
        CACHE_INFO_NAME => "cache_info",
        _ if name.ends_with(".narinfo") => "narinfo",
        _ => "nar",
    }
}

impl Client {
    /// Of the cache at `base`, an `http(s)` URL that was checked, which errors call `endpoint`.
    pub(super) fn new(
        endpoint: Arc<str>,
        (base, origin): (&str, Origin),
        credentials: Credentials,
        limits: Limits,
    ) -> Result<Arc<Self>> {
        crypto::choose();
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT_MAX.min(limits.deadline))
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| Error::unavailable(&endpoint, error))?;
        let base = base.trim_end_matches('/').to_owned();
        let circuit = Circuit::new(endpoint.clone(), limits.deadline);
        Ok(Arc::new(Client { http, endpoint, base, origin, credentials, limits, circuit }))
    }

    pub(super) fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// A short file of the cache. `None` if it is absent.
    pub(super) async fn get(self: &Arc<Self>, name: &str, len_max: usize) -> Result<Option<Bytes>> {
        let url = format!("{}/{name}", self.base);
        self.ask(name, || self.fetch(&url, name, len_max)).await
    }

    /// The file at `url`, which is absolute. `None` if it is absent.
    pub(super) async fn download(self: &Arc<Self>, url: &str) -> Result<Option<Download>> {
        let response = self.open(url, Beginning { at: 0, etag: None }).await?;
        Ok(response.map(|response| Download::new(self.clone(), url, response)))
    }

    /// The beginning of an answer.
    async fn open(self: &Arc<Self>, url: &str, from: Beginning<'_>) -> Result<Option<Answer>> {
        self.ask(url, || self.send(url, &from)).await
    }

    /// Asks until there is an answer. What is none is asked again while there is time.
    async fn ask<T, F>(self: &Arc<Self>, what: &str, question: impl Fn() -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        if self.limits.offline {
            return Err(Error::Offline { endpoint: self.endpoint.clone(), what: what.into() });
        }
        let deadline = Instant::now() + self.limits.deadline;
        let mut attempts = Attempts::until(deadline);
        loop {
            self.circuit.enter()?;
            let began = Instant::now();
            let answer = match timeout_at(deadline, self.twice(&question, deadline)).await {
                Ok(answer) => answer,
                Err(_) => Err(Failure::Unreachable(Error::TimedOut {
                    endpoint: self.endpoint.clone(),
                    what: what.into(),
                })),
            };
            let error = match answer {
                Ok(found) => {
                    self.circuit.answered();
                    return Ok(found);
                }
                Err(Failure::Final(error)) => {
                    self.circuit.answered();
                    return Err(error);
                }
                Err(Failure::Passing(error)) => {
                    self.circuit.answered();
                    error
                }
                Err(Failure::Unreachable(error)) => {
                    self.failed(began, &error);
                    error
                }
            };
            let Some(next) = attempts.next(self.limits.attempts_max) else {
                tracing::warn!(
                    event = event::CALL_FAILED,
                    %error,
                    what,
                    "a binary cache does not answer"
                );
                return Err(error);
            };
            tracing::debug!(%error, what, "trying again");
            sleep_until(next).await;
        }
    }

    /// Asks, and by half of the time once more: the first question may have been lost.
    async fn twice<T, F>(
        &self,
        question: &impl Fn() -> F,
        deadline: Instant,
    ) -> Result<Option<T>, Failure>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let first = pin!(question());
        let half = deadline - self.limits.deadline / 2;
        if Instant::now() >= half {
            return first.await;
        }
        let first = match select(first, pin!(sleep_until(half))).await {
            Either::Left((answer, _)) => return answer,
            Either::Right(((), first)) => first,
        };
        let second = pin!(question());
        let (answer, other) = match select(first, second).await {
            Either::Left((answer, second)) => (answer, Either::Right(second)),
            Either::Right((answer, first)) => (answer, Either::Left(first)),
        };
        match (answer, other) {
            (Err(Failure::Passing(_) | Failure::Unreachable(_)), Either::Left(first)) => {
                first.await
            }
            (Err(Failure::Passing(_) | Failure::Unreachable(_)), Either::Right(second)) => {
                second.await
            }
            (answer, _) => answer,
        }
    }

    /// A short file, whole.
    async fn fetch(&self, url: &str, name: &str, len_max: usize) -> Result<Option<Bytes>, Failure> {
        let Some(mut response) = self.send(url, &Beginning { at: 0, etag: None }).await? else {
            return Ok(None);
        };
        let mut body = BytesMut::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| self.unreachable(error))?;
            let Some(chunk) = chunk else { return Ok(Some(body.freeze())) };
            if chunk.len() > len_max - body.len() {
                let fault = CacheFault::TooLong { what: name.to_owned(), len_max };
                return Err(Failure::Final(Error::corrupt(&self.endpoint, fault)));
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// Sends one question, and follows where it leads.
    async fn send(&self, url: &str, from: &Beginning<'_>) -> Result<Option<Answer>, Failure> {
        let mut url = Url::parse(url).map_err(|error| self.refused(error.to_string()))?;
        for _ in 0..=REDIRECTS_MAX {
            let span = Span::http_client(&Method::GET, kind_of(&url), &url);
            let judged = self.send_once(&url, from, &span).await;
            match judged.inspect_err(|failure| span.fail(failure.error()))? {
                Judged::Here(response) => return Ok(Some(Answer::new(response, span))),
                Judged::Absent => return Ok(None),
                Judged::Elsewhere(next) => url = next,
            }
        }
        Err(self.refused(format!("more than {REDIRECTS_MAX} redirects, at last to {url}")))
    }

    async fn send_once(
        &self,
        url: &Url,
        from: &Beginning<'_>,
        span: &Span,
    ) -> Result<Judged, Failure> {
        let mut request = self
            .http
            .request(Method::GET, url.clone())
            // What is stored compressed has to stay so; its hash was told.
            .header(ACCEPT_ENCODING, "identity");
        if let Some(header) = self.credentials.for_url(url) {
            request = request.header(AUTHORIZATION, header);
        }
        if from.at > 0 {
            request = request.header(RANGE, format!("bytes={}-", from.at));
            if let Some(etag) = from.etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        if self.limits.tells_traces && url.as_str().parse::<Origin>().as_ref() == Ok(&self.origin) {
            let mut headers = HeaderMap::new();
            span.inject(&mut headers);
            request = request.headers(headers);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        span.http_status(response.status());
        match response.status().is_redirection() {
            true => self.redirected(url, &response).map(Judged::Elsewhere),
            false => self.judge(response),
        }
    }

    fn redirected(&self, url: &Url, response: &Response) -> Result<Url, Failure> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| {
            self.refused(format!("{} without saying where to", response.status()))
        })?;
        let next = url.join(location).map_err(|error| self.refused(error.to_string()))?;
        match (url.scheme(), next.scheme()) {
            ("http", "http" | "https") | ("https", "https") => Ok(next),
            _ => Err(self.refused(format!("{url} leads to {next}, which is not followed"))),
        }
    }

    /// What an answer means. One that is not there, or not for us, is absent.
    fn judge(&self, response: Response) -> Result<Judged, Failure> {
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            return Ok(Judged::Here(response));
        }
        let said = || Error::unavailable(&self.endpoint, format!("it answers {status}"));
        match status {
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => Ok(Judged::Absent),
            StatusCode::UNAUTHORIZED => Err(self.refused(format!(
                "it answers {status}: name and password go into a netrc file, a token into the \
                 file that token-file=… in its address names"
            ))),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Passing(said()))
            }
            _ if status.is_server_error() => Err(Failure::Passing(said())),
            _ => Err(Failure::Final(said())),
        }
    }

    fn refused(&self, why: String) -> Failure {
        Failure::Final(Error::unavailable(&self.endpoint, why))
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        Failure::Unreachable(Error::unavailable(&self.endpoint, error.without_url()))
    }

    fn failed(self: &Arc<Self>, began: Instant, error: &Error) {
        if self.circuit.failed(began, error) == News::Opened {
            try_until_it_answers(self, |client| async move { client.is_answering().await });
        }
    }

    /// Asks for what every cache has: whatever it says is an answer.
    async fn is_answering(&self) -> bool {
        let url = format!("{}/{CACHE_INFO_NAME}", self.base);
        let question = self.send(&url, &Beginning { at: 0, etag: None });
        let answer = timeout_at(Instant::now() + self.limits.deadline, question).await;
        let answers = !matches!(answer, Ok(Err(Failure::Unreachable(_))) | Err(_));
        if answers {
            self.circuit.answered();
        }
        answers
    }
}
