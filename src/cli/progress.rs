//! Progress on a terminal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::ProgressWhen;
use crate::ingest::Progress;

/// How often the line is drawn anew.
const INTERVAL: Duration = Duration::from_millis(100);

/// A line that follows an import until it is dropped.
pub(super) struct Shown {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Shows how far the import is, on standard error if that is a terminal.
pub(super) fn show(when: ProgressWhen, progress: &Arc<Progress>) -> Option<Shown> {
    use std::io::IsTerminal as _;
    if when == ProgressWhen::Never || !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{spinner} importing: {msg} [{elapsed}]");
    let bar = ProgressBar::new_spinner().with_style(style.ok()?);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, progress) = (stop.clone(), progress.clone());
    let thread = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let (files, bytes) = (HumanCount(progress.files()), HumanBytes(progress.bytes()));
            bar.set_message(format!("{files} files, {bytes}"));
            bar.tick();
            thread::park_timeout(INTERVAL);
        }
        bar.finish_and_clear();
    });
    Some(Shown { stop, thread: Some(thread) })
}

impl Shown {
    /// Says what came of it, in place of the line.
    pub(super) fn finish(self, outcome: &str) {
        drop(self);
        eprintln!("{outcome}");
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
