//! What a command that runs for long has to do with whoever runs it: systemd, or another supervisor that speaks its
//! protocols. See `docs/services.md`.

mod notify;
mod sockets;
mod watchdog;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Args;
use parking_lot::Mutex;
use tracing::{error, info};

pub(super) use sockets::passed;
pub(super) use watchdog::IsAlive;

use super::options::seconds;
use crate::{
    observe::event,
    service::{Cause, circuit},
};
use notify::Notifier;
use watchdog::Watchdog;

/// How often the sentence that says what a service does is looked at.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Options of what runs for long.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for those who run it")]
pub(super) struct ServiceOptions {
    /// How many seconds what is under way may take to end after Ctrl-C or SIGTERM; then it is cut off
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub(super) drain: Duration,
}

/// What a service does, in a sentence.
pub(super) type Describe = Box<dyn Fn() -> String + Send + Sync>;

/// A service, as its supervisor sees it. Without a supervisor nothing happens here.
#[derive(Clone)]
pub(super) struct Supervised(Arc<State>);

struct State {
    notifier: Notifier,
    watchdog: Option<Watchdog>,
    /// Set once it is ready.
    describe: Mutex<Option<Describe>>,
    /// Why the last reload failed, if it did.
    reload_failed: Mutex<Option<String>>,
    /// The last sentence that the supervisor was told.
    told: Mutex<String>,
    is_stopping: AtomicBool,
}

impl Supervised {
    /// As the environment says.
    pub(super) fn from_env() -> Self {
        let notifier = Notifier::from_env();
        Supervised(Arc::new(State {
            watchdog: Watchdog::from_env().filter(|_| notifier.is_some()),
            notifier,
            describe: Mutex::default(),
            reload_failed: Mutex::default(),
            told: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        }))
    }

    /// Whether there is a supervisor.
    #[cfg(feature = "fuse")]
    pub(super) fn is_told(&self) -> bool {
        self.0.notifier.is_some()
    }

    /// It answers from now on. As long as `is_alive` says so, the supervisor is told that it makes progress. Needs the context
    /// of the runtime.
    pub(super) fn ready(&self, describe: Describe, is_alive: IsAlive) {
        let state = &self.0;
        *state.describe.lock() = Some(describe);
        state.tell_ready();
        if state.notifier.is_some() {
            tokio::spawn(state.clone().keep_status());
        }
        if let Some(watchdog) = state.watchdog {
            let state = state.clone();
            tokio::spawn(watchdog.tell(is_alive, move || state.notifier.alive()));
        }
    }

    /// Reads files again, by `reload`, which changes nothing if any of them is wrong: then it goes on as it was, and says
    /// so.
    pub(super) fn reload(&self, reload: impl FnOnce() -> anyhow::Result<()>) {
        let state = &self.0;
        state.notifier.reloading();
        info!(event = event::RELOADING, "reloading");
        let failed = reload().err().map(|error| Cause::new(error).to_string());
        match &failed {
            None => info!(event = event::RELOADED, "reloaded"),
            Some(error) => {
                error!(
                    event = event::RELOAD_FAILED,
                    %error,
                    "cannot reload: going on with what was read before"
                )
            }
        }
        *state.reload_failed.lock() = failed;
        state.tell_ready();
    }

    /// It is to end, for which it may take as long as `drain`.
    pub(super) fn stopping(&self, drain: Duration) {
        self.0.is_stopping.store(true, Relaxed);
        self.0.notifier.stopping(drain);
    }
}

impl State {
    fn status(&self) -> String {
        let mut status = self.describe.lock().as_ref().map_or_else(String::new, |tell| tell());
        let away = circuit::out_of_reach();
        if !away.is_empty() {
            status.push_str("; out of reach: ");
            status.push_str(&away.join(", "));
        }
        if let Some(error) = &*self.reload_failed.lock() {
            status.push_str("; cannot reload: ");
            status.push_str(error);
        }
        status
    }

    fn tell_ready(&self) {
        let mut told = self.told.lock();
        *told = self.status();
        self.notifier.ready(&told);
    }

    /// Tells what it does whenever that changes.
    async fn keep_status(self: Arc<Self>) {
        loop {
            tokio::time::sleep(STATUS_INTERVAL).await;
            if self.is_stopping.load(Relaxed) {
                return;
            }
            let mut told = self.told.lock();
            let status = self.status();
            if status != *told {
                self.notifier.status(&status);
                *told = status;
            }
        }
    }
}

/// Whether the threads that do the work take any up. Those for the local disk are not asked: clients that are slow can
/// keep all of them.
pub(super) async fn runtime_runs() -> bool {
    tokio::spawn(async {}).await.is_ok()
}

/// What `ask` says, in a thread of its own, as it may never return. There is one at a time.
#[cfg(feature = "fuse")]
pub(super) fn asked_by_a_thread(ask: impl Fn() -> bool + Send + Sync + 'static) -> IsAlive {
    use futures::FutureExt as _;
    let (ask, is_asking) = (Arc::new(ask), Arc::new(AtomicBool::new(false)));
    Box::new(move || {
        let (ask, is_asking) = (ask.clone(), is_asking.clone());
        if is_asking.swap(true, Relaxed) {
            return std::future::ready(false).boxed();
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let has_asked = is_asking.clone();
        let asking = std::thread::Builder::new().name("is-alive".to_owned()).spawn(move || {
            let lives = ask();
            has_asked.store(false, Relaxed);
            // Whoever asked may not have waited.
            let _ = tell.send(lives);
        });
        if asking.is_err() {
            is_asking.store(false, Relaxed);
        }
        // Without a thread nobody tells.
        async move { told.await.unwrap_or(false) && runtime_runs().await }.boxed()
    })
}
