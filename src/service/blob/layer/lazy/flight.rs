//! One request that brings a stretch of a blob, shared by all who wait for parts of it.

use std::{ops::Range, sync::Arc};

use tokio::sync::watch;

use super::arriving::Arriving;
use crate::{
    observe::tally::Reason,
    service::{Error, Result},
};

/// How far a flight is.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// Everything before this byte is here.
    At(u64),
    /// It is over, and brought all or ended in an error.
    Ended(Result<(), Error>),
}

/// A flight as the blob knows it while it is under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) number: u64,
    /// In bytes of the blob.
    pub(super) range: Range<u64>,
    /// What lies behind this byte is fetched ahead.
    pub(super) wanted_until: u64,
    /// How many wait for some of it.
    pub(super) waiting: usize,
    pub(super) progress: watch::Receiver<Progress>,
    /// Nothing as long as the task is being made.
    pub(super) task: Option<tokio::task::AbortHandle>,
}

impl Flight {
    /// What has not come yet.
    pub(super) fn ahead(&self) -> Range<u64> {
        match &*self.progress.borrow() {
            Progress::At(at) => *at..self.range.end.max(*at),
            Progress::Ended(_) => self.range.end..self.range.end,
        }
    }
}

impl Drop for Flight {
    /// It is over, one way or another: counts what it brought.
    fn drop(&mut self) {
        let (begin, end) = (self.range.start, self.ahead().start);
        let wanted = self.wanted_until.clamp(begin, end);
        Reason::Read.fetched(wanted - begin);
        Reason::Ahead.fetched(end - wanted);
    }
}

/// The wait for a part of a flight. Dropped before it is over, it may end a flight that nobody else waits for.
pub(super) struct Seat {
    arriving: Arc<Arriving>,
    number: u64,
    /// Waits until everything before this byte is here.
    until: u64,
    progress: watch::Receiver<Progress>,
    is_satisfied: bool,
}

impl Seat {
    /// The caller has counted it among those who wait.
    pub(super) fn new(arriving: Arc<Arriving>, flight: &Flight, until: u64) -> Self {
        let (number, progress) = (flight.number, flight.progress.clone());
        Seat { arriving, number, until, progress, is_satisfied: false }
    }

    /// Returns once what is waited for is here, or the flight has ended without it.
    pub(super) async fn wait(mut self) -> Result<()> {
        let until = self.until;
        let is_over = |progress: &Progress| match progress {
            Progress::At(at) => *at >= until,
            Progress::Ended(_) => true,
        };
        let result = match self.progress.wait_for(is_over).await.as_deref() {
            Ok(Progress::Ended(result)) => result.clone(),
            // If it was given up, whoever still wants something asks again.
            Ok(Progress::At(_)) | Err(_) => Ok(()),
        };
        self.is_satisfied = true;
        result
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.arriving.leave(self.number, self.is_satisfied);
    }
}
