//! A long file, piece by piece.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use reqwest::{
    StatusCode,
    header::{CONTENT_RANGE, ETAG},
};
use tokio::time::Instant;

use super::{Answer, Beginning, Client};
use crate::{
    observe::tally::Reason,
    service::{Error, Result, patience::Patience},
};

/// A file that is arriving. Where it breaks off it is asked for again, from there on, unless it breaks off several times
/// without anything having come between.
#[derive(Debug)]
pub(crate) struct Download {
    client: Arc<Client>,
    url: String,
    response: Answer,
    etag: Option<String>,
    /// How many bytes were handed out.
    at: u64,
    /// How many bytes of the answer come before those that are wanted.
    skip: u64,
    /// How often it broke off since something came.
    broken: u32,
    patience: Patience,
    arrived: Arc<AtomicU64>,
}

impl Download {
    pub(super) fn new(client: Arc<Client>, url: &str, response: Answer) -> Self {
        let arrived = Arc::new(AtomicU64::new(0));
        let patience =
            Patience::new(client.limits.deadline, std::time::Duration::ZERO, arrived.clone());
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        // A weak one says nothing about bytes.
        let etag = etag.filter(|etag| etag.starts_with('"')).map(str::to_owned);
        let (url, at, skip, broken) = (url.to_owned(), 0, 0, 0);
        Download { client, url, response, etag, at, skip, broken, patience, arrived }
    }

    /// The next bytes; never none. `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let began = Instant::now();
            let next = self.patience.wait(self.response.chunk()).await;
            let error = match next {
                Some(Ok(None)) if self.skip == 0 => return Ok(None),
                Some(Ok(None)) => Error::unavailable(
                    &self.client.endpoint,
                    format!("{} is shorter than it was before", self.url),
                ),
                Some(Ok(Some(bytes))) => {
                    self.arrived.fetch_add(bytes.len() as u64, Relaxed);
                    Reason::Archive.fetched(bytes.len() as u64);
                    match self.take(bytes) {
                        Some(bytes) => return Ok(Some(bytes)),
                        None => continue,
                    }
                }
                Some(Err(error)) => Error::unavailable(&self.client.endpoint, error.without_url()),
                None => {
                    let endpoint = self.client.endpoint.clone();
                    let error = Error::TimedOut { endpoint, what: self.url.as_str().into() };
                    self.client.failed(began, &error);
                    return Err(error);
                }
            };
            self.resume(error).await?;
        }
    }

    /// What is wanted of the bytes that came.
    fn take(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let wanted = bytes.split_off(skipped as usize);
        if wanted.is_empty() {
            return None;
        }
        self.broken = 0;
        self.at += wanted.len() as u64;
        Some(wanted)
    }

    /// Asks again for what has not come, after `error`.
    async fn resume(&mut self, error: Error) -> Result<()> {
        self.broken += 1;
        if self.broken >= self.client.limits.attempts_max {
            return Err(error);
        }
        tracing::debug!(%error, url = self.url, at = self.at, "a file is asked for again");
        let from = Beginning { at: self.at, etag: self.etag.as_deref() };
        let Some(response) = self.client.open(&self.url, from).await? else {
            return Err(error);
        };
        self.skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response, self.at) => 0,
            StatusCode::PARTIAL_CONTENT => {
                let what = format!("{} comes from another place than asked for", self.url);
                return Err(Error::unavailable(&self.client.endpoint, what));
            }
            // It comes from its beginning again.
            _ => self.at,
        };
        self.response = response;
        Ok(())
    }
}

/// Whether the range that came begins at `at`.
fn begins_at(response: &Answer, at: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let begin = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    begin.and_then(|begin| begin.parse().ok()) == Some(at)
}
