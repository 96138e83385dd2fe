//! What is told of a process: the same for people and for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::numbers::{Numbers, Wanted};
use crate::observe::{Metric, names};

/// Errors that are no failure: what is not there, what kernels and programs only try, and what was given up.
const EXPECTED: [&str; 7] =
    ["ENOENT", "ENOSYS", "ENODATA", "EOPNOTSUPP", "ERANGE", "EROFS", "EINTR"];

/// How a process does. What it does not have is left out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether it can do its work: it answers, and every far store can be reached.
    pub(super) healthy: bool,
    pub(super) version: String,
    pub(super) command: String,
    /// In seconds since 1970.
    pub(super) started: f64,
    pub(super) resident_bytes: f64,
    pub(super) cpu_seconds: f64,
    pub(super) open_fds: f64,
    pub(super) max_fds: f64,
    pub(super) requests: Vec<Requests>,
    /// How many requests wait, or are under way in a server.
    pub(super) waiting: f64,
    pub(super) slow: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inodes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) guests: Option<f64>,
    /// By where they came from.
    pub(super) read_bytes: BTreeMap<String, f64>,
    /// By why.
    pub(super) fetched_bytes: BTreeMap<String, f64>,
    pub(super) caches: Vec<Asked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<Disk>,
    pub(super) backends: Vec<Requests>,
    /// The far stores that are out of reach.
    pub(super) circuits_open: Vec<String>,
}

/// Requests of one kind, or operations of one backend.
#[derive(Debug, Serialize)]
pub(super) struct Requests {
    pub(super) name: String,
    pub(super) count: f64,
    /// A second, lately.
    pub(super) rate: f64,
    /// Half of them took at most so long, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_seconds: Option<f64>,
    pub(super) errors: f64,
}

/// How often something was in a cache.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    pub(super) kind: String,
    pub(super) tier: String,
    pub(super) hits: f64,
    pub(super) misses: f64,
}

/// How full a cache is.
#[derive(Debug, Serialize)]
pub(super) struct Disk {
    pub(super) bytes: f64,
    pub(super) size_max_bytes: f64,
    pub(super) evicted_bytes: f64,
}

/// Two scrapes, of which the later one counts, and the seconds between them.
pub(super) struct Scrapes {
    pub(super) before: Numbers,
    pub(super) now: Numbers,
    pub(super) seconds: f64,
}

impl Scrapes {
    pub(super) fn report(&self) -> anyhow::Result<Report> {
        let info = |label| {
            let value = self.now.values(&names::BUILD_INFO, label).into_iter().next();
            value.ok_or_else(|| anyhow::anyhow!("those are not the numbers of lazystore"))
        };
        let sum = |metric| self.now.sum(metric, &[]);
        let all = |metric| sum(metric).unwrap_or(0.0);
        let circuits_open: Vec<_> = self.by(&names::CIRCUITS_OPEN, "endpoint");
        let circuits_open: Vec<_> =
            circuits_open.into_iter().filter(|(_, n)| *n > 0.0).map(|(name, _)| name).collect();
        let waiting = [&names::FUSE_WAITING, &names::GRPC_IN_FLIGHT, &names::HTTP_IN_FLIGHT];
        Ok(Report {
            healthy: circuits_open.is_empty(),
            version: info("version")?,
            command: info("command")?,
            started: all(&names::START_TIME),
            resident_bytes: all(&names::RESIDENT),
            cpu_seconds: all(&names::CPU),
            open_fds: all(&names::OPEN_FDS),
            max_fds: all(&names::MAX_FDS),
            requests: self.requests(),
            waiting: waiting.into_iter().map(all).sum(),
            slow: all(&names::SLOW_OPERATIONS),
            inodes: sum(&names::INODES),
            guests: sum(&names::GUESTS),
            read_bytes: self.by(&names::READ_BYTES, "source").into_iter().collect(),
            fetched_bytes: self.by(&names::FETCHED_BYTES, "reason").into_iter().collect(),
            caches: self.caches(),
            cache: sum(&names::CACHE_SIZE).map(|size_max_bytes| Disk {
                bytes: all(&names::CACHE_BYTES),
                size_max_bytes,
                evicted_bytes: all(&names::CACHE_EVICTED_BYTES),
            }),
            backends: self.backends(),
            circuits_open,
        })
    }

    /// A metric by the values of one label.
    fn by(&self, metric: &Metric, label: &str) -> Vec<(String, f64)> {
        let values = self.now.values(metric, label).into_iter();
        values
            .map(|value| {
                let sum = self.now.sum(metric, &[(label, &value)]).unwrap_or(0.0);
                (value, sum)
            })
            .collect()
    }

    fn requests(&self) -> Vec<Requests> {
        let mut all = Vec::new();
        let (took, failed) = (&names::FUSE_OPERATION, &names::FUSE_ERRORS);
        for name in self.now.values(took, "operation") {
            let labels = [("operation", name.as_str())];
            let all_errors = self.now.sum(failed, &labels).unwrap_or(0.0);
            let expected = EXPECTED
                .map(|error| self.now.sum(failed, &[labels[0], ("error", error)]).unwrap_or(0.0));
            let errors = all_errors - expected.iter().sum::<f64>();
            all.extend(self.requests_of(took, &labels, name.clone(), errors));
        }
        let (took, ended) = (&names::GRPC_REQUEST, &names::GRPC_REQUESTS);
        for service in self.now.values(took, "service") {
            for method in self.now.values(took, "method") {
                let labels = [("service", service.as_str()), ("method", method.as_str())];
                let good = ["Ok", "NotFound", "Cancelled"].map(|code| {
                    self.now.sum(ended, &[labels[0], labels[1], ("code", code)]).unwrap_or(0.0)
                });
                let ended = self.now.sum(ended, &labels).unwrap_or(0.0);
                let short = service.rsplit('.').next().unwrap_or(&service);
                let name = format!("{short}/{method}");
                let errors = ended - good.iter().sum::<f64>();
                all.extend(self.requests_of(took, &labels, name, errors));
            }
        }
        let (took, answered) = (&names::HTTP_REQUEST, &names::HTTP_REQUESTS);
        for route in self.now.values(took, "route") {
            let statuses = self.now.values(answered, "status").into_iter();
            let failures = statuses.filter(|status| status.starts_with('5'));
            let failures = failures.filter_map(|status| {
                self.now.sum(answered, &[("route", &route), ("status", &status)])
            });
            let errors = failures.sum();
            all.extend(self.requests_of(took, &[("route", &route)], route.clone(), errors));
        }
        all
    }

    fn backends(&self) -> Vec<Requests> {
        let (took, failed) = (&names::SERVICE_OPERATION, &names::SERVICE_ERRORS);
        let mut all = Vec::new();
        for backend in self.now.values(took, "backend") {
            for service in self.now.values(took, "service") {
                let labels = [("backend", backend.as_str()), ("service", service.as_str())];
                let errors = self.now.sum(failed, &labels).unwrap_or(0.0);
                let name = format!("{backend}: {service}");
                all.extend(self.requests_of(took, &labels, name, errors));
            }
        }
        all
    }

    /// `None` if there were none.
    fn requests_of(
        &self,
        took: &Metric,
        labels: Wanted<'_>,
        name: String,
        errors: f64,
    ) -> Option<Requests> {
        let count = self.now.sum(took, labels).filter(|count| *count > 0.0)?;
        let lately = count - self.before.sum(took, labels).unwrap_or(0.0);
        Some(Requests {
            name,
            count,
            rate: if self.seconds > 0.0 { lately / self.seconds } else { 0.0 },
            p50_seconds: self.now.quantile(took, labels, 0.5),
            p99_seconds: self.now.quantile(took, labels, 0.99),
            errors,
        })
    }

    fn caches(&self) -> Vec<Asked> {
        let asked = &names::CACHE_REQUESTS;
        let mut all = Vec::new();
        for kind in self.now.values(asked, "kind") {
            for tier in self.now.values(asked, "tier") {
                let count = |result| {
                    let labels = [("kind", kind.as_str()), ("tier", &tier), ("result", result)];
                    self.now.sum(asked, &labels).unwrap_or(0.0)
                };
                let (hits, misses) = (count("hit"), count("miss"));
                if hits + misses > 0.0 {
                    all.push(Asked { kind: kind.clone(), tier, hits, misses });
                }
            }
        }
        all
    }
}
