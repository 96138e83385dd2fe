//! `lazystore status`.

mod numbers;
mod print;
mod report;

use std::{
    io::{self, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{GlobalOptions, control, listed::Listed, options::seconds};
use crate::{
    compose::{self, Probe, SourcePlan},
    service::crypto,
};
use numbers::Numbers;
use report::Scrapes;

/// How long an answer may take in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const ANSWER_LEN_MAX: usize = 16 << 20;

/// Tell how a mount, a daemon or a server does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore status /nix/store
  lazystore status --json 127.0.0.1:9464
  lazystore status unix:/run/lazystore/metrics.sock
  lazystore status grpc+https://store.example.org

Exit codes: 0 it is healthy, 1 it does not answer, or a far store is out of reach, 2 wrong usage.")]
pub(super) struct Status {
    /// A directory on which a store is mounted; or where --metrics tells numbers: host:port, unix:/path or http://...; or
    /// the address of a daemon, grpc+..., of which is only told whether it answers
    #[arg(value_name = "MOUNTPOINT|ADDR")]
    target: String,

    /// Print one JSON object, for programs (docs/metrics.md)
    #[arg(long)]
    json: bool,

    /// For how many seconds it is looked how much happens; 0 for not at all
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    watch: Duration,
}

/// Where numbers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Url(String),
    Socket(PathBuf),
}

impl Status {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        if self.target.starts_with("grpc+") {
            return self.probe(options).await;
        }
        let place = self.place()?;
        let before = place.scrape().await?;
        let began = Instant::now();
        let scrapes = match self.watch.is_zero() {
            true => Scrapes { before: Numbers::default(), now: before, seconds: 0.0 },
            false => {
                tokio::time::sleep(self.watch).await;
                let now = place.scrape().await?;
                Scrapes { before, now, seconds: began.elapsed().as_secs_f64() }
            }
        };
        let report = scrapes.report()?;
        let text = match self.json {
            true => format!("{}\n", serde_json::to_string(&report)?),
            false => report.to_string(),
        };
        io::stdout().write_all(text.as_bytes())?;
        let away = report.circuits_open.join(", ");
        ensure!(report.healthy, "out of reach: {away}; is it running, and is there a network?");
        Ok(())
    }

    /// Where what is asked about tells its numbers.
    fn place(&self) -> anyhow::Result<Place> {
        let target = &self.target;
        if let Some(path) = target.strip_prefix("unix:") {
            return Ok(Place::Socket(path.into()));
        }
        if target.starts_with("http://") || target.starts_with("https://") {
            let base = target.trim_end_matches('/');
            let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
            return Ok(Place::Url(if has_path {
                base.to_owned()
            } else {
                format!("{base}/metrics")
            }));
        }
        let port = target.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !target.contains('/') && matches!(port, Some(Ok(_))) {
            return Ok(Place::Url(format!("http://{target}/metrics")));
        }
        let path = Path::new(target);
        let listed = Listed::containing(path);
        let listed = listed.with_context(|| format!("cannot look for {target}"))?;
        if let Some(listed) = listed {
            let socket = control::socket_of(&listed);
            let socket = socket.with_context(|| format!("cannot ask the mount of {target}"))?;
            return Ok(Place::Socket(socket));
        }
        if path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket()) {
            return Ok(Place::Socket(path.to_owned()));
        }
        bail!(
            "nothing of lazystore is mounted on {target}, and it is no address: \
             name a mountpoint, or what --metrics names"
        );
    }

    /// Asks a daemon whether it answers.
    async fn probe(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let address = self.target.parse()?;
        let plan = Arc::new(SourcePlan { name: self.target.clone(), address, verify: None });
        let Probe { elapsed, outcome } = compose::probe(&plan, &options.common()?).await;
        let (healthy, said) = match &outcome {
            Ok(said) | Err(said) => (outcome.is_ok(), said),
        };
        let took = elapsed.as_secs_f64();
        let text = match self.json {
            true => {
                let report = serde_json::json!({
                    "healthy": healthy, "address": plan.address.to_string(), "said": said,
                    "elapsed_seconds": took,
                });
                format!("{report}\n")
            }
            false if healthy => format!("{}: {said} ({:.1} ms)\n", plan.address, took * 1e3),
            false => String::new(),
        };
        io::stdout().write_all(text.as_bytes())?;
        ensure!(healthy, "{}: {said}", plan.address);
        Ok(())
    }
}

impl Place {
    async fn scrape(&self) -> anyhow::Result<Numbers> {
        let text = match tokio::time::timeout(ANSWER_TIMEOUT, self.fetch()).await {
            Ok(text) => text,
            Err(_) => bail!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        let numbers = text.and_then(|text| Numbers::parse(&text));
        numbers.with_context(|| match self {
            Place::Url(url) => {
                format!("cannot ask {url}: does it run with --metrics, and is this the address?")
            }
            Place::Socket(path) => {
                format!("cannot ask {}: does it run, and is this its user?", path.display())
            }
        })
    }

    async fn fetch(&self) -> anyhow::Result<String> {
        crypto::choose();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let (client, url) = match self {
            Place::Url(url) => (client, url.as_str()),
            Place::Socket(path) => (client.unix_socket(path.as_path()), "http://localhost/metrics"),
        };
        let mut answer = client.no_proxy().build()?.get(url).send().await?.error_for_status()?;
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            text.extend_from_slice(&piece);
            ensure!(text.len() <= ANSWER_LEN_MAX, "the answer has no end");
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(target: &str) -> Option<Place> {
        let watch = Duration::ZERO;
        Status { target: target.to_owned(), json: false, watch }.place().ok()
    }

    #[test]
    fn what_is_meant_is_seen_from_its_form() {
        let url = |url: &str| Some(Place::Url(url.to_owned()));
        for (target, expected) in [
            ("127.0.0.1:9464", url("http://127.0.0.1:9464/metrics")),
            ("[::1]:9464", url("http://[::1]:9464/metrics")),
            ("localhost:9464", url("http://localhost:9464/metrics")),
            ("http://a:1/", url("http://a:1/metrics")),
            ("https://a/lazy/metrics", url("https://a/lazy/metrics")),
            ("unix:/run/x.sock", Some(Place::Socket("/run/x.sock".into()))),
            ("/proc", None),
            ("nonsense", None),
            ("a:b", None),
        ] {
            assert_eq!(place(target), expected, "{target}");
        }
    }
}
