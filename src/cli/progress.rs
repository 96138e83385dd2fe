//! Progress on a terminal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::ProgressWhen;

/// How often the line is drawn anew.
const INTERVAL: Duration = Duration::from_millis(100);

/// A line that follows some work until it is dropped.
pub(super) struct Shown {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Shows what `how_far` tells of the work that is called `what`, on standard error if that is a terminal.
pub(super) fn show(
    when: ProgressWhen,
    what: &str,
    how_far: impl Fn() -> String + Send + 'static,
) -> Option<Shown> {
    use std::io::IsTerminal as _;
    if when == ProgressWhen::Never || !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} [{elapsed}]");
    let bar = ProgressBar::new_spinner().with_style(style.ok()?).with_prefix(what.to_owned());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            bar.set_message(how_far());
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
