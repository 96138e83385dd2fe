//! What is sent, and where: an option, and the environment variables of OpenTelemetry.

use std::{env, path::PathBuf, time::Duration};

use super::{collector::Collector, spans};

/// How often metrics are sent if nothing is said.
const METRICS_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
const METRICS_INTERVAL_MIN: Duration = Duration::from_millis(100);
const METRICS_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a collector may take for an answer if nothing is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address makes no sense.
    #[error(
        "{from}: {endpoint:?} is no address of a collector: expected http://host:port or https://host:port, and nothing \
         besides; tokens go into OTEL_EXPORTER_OTLP_HEADERS"
    )]
    Endpoint {
        /// Who said it.
        from: &'static str,
        /// What was said.
        endpoint: String,
    },
    /// Another protocol is wanted.
    #[error(
        "{from} is {protocol:?}, but only grpc is spoken here: set it to grpc, and name that port of the collector"
    )]
    Protocol {
        /// Who said it.
        from: &'static str,
        /// What was said.
        protocol: String,
    },
    /// A number makes no sense.
    #[error("{variable} is {value:?}: expected a number of milliseconds from {min} to {max}")]
    Milliseconds {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The least.
        min: u128,
        /// The most.
        max: u128,
    },
    /// A number of spans makes no sense.
    #[error("{variable} is {value:?}: expected a number of spans from 1 to {max}")]
    Spans {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The most.
        max: usize,
    },
    /// A sampler that is none.
    #[error(
        "OTEL_TRACES_SAMPLER is {0:?}: expected always_on, always_off, traceidratio, or one of them behind parentbased_"
    )]
    Sampler(String),
    /// A part of all traces that is none.
    #[error("OTEL_TRACES_SAMPLER_ARG is {0:?}: expected a number from 0 to 1, as 0.01")]
    SamplerArgument(String),
    /// A header makes no sense. Its value is not told.
    #[error("{variable}: expected NAME=VALUE with commas between, in legal characters")]
    Headers {
        /// The environment variable.
        variable: &'static str,
    },
    /// A file cannot be read.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read {}: {source}", file.display())]
    Certificate {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot speak TLS with {endpoint}: {source}")]
    Tls {
        /// With whom.
        endpoint: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The exporter does not want to begin.
    #[error("cannot send traces: {0}")]
    Exporter(opentelemetry_otlp::ExporterBuildError),
}

/// What is sent, and where.
#[derive(Debug, Default)]
pub struct Settings {
    pub(super) traces: Option<Collector>,
    pub(super) metrics: Option<Collector>,
    pub(super) metrics_interval: Duration,
}

/// The variables about one signal, each before the one that is about all.
struct Signal {
    exporter: &'static str,
    endpoint: [&'static str; 2],
    protocol: [&'static str; 2],
    headers: [&'static str; 2],
    timeout: [&'static str; 2],
}

const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    protocol: ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    headers: ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeout: ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
};

const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    protocol: ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    headers: ["OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeout: ["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
};

/// The option by which an endpoint may be said.
const OPTION: &str = "--otlp-endpoint";

impl Settings {
    /// What the option says, and the environment of the process. Nothing is sent unless one of them names an endpoint.
    pub fn new(endpoint: Option<&str>) -> Result<Self, Error> {
        Self::from(endpoint, &|variable| env::var(variable).ok())
    }

    fn from(
        endpoint: Option<&str>,
        variable: &dyn Fn(&'static str) -> Option<String>,
    ) -> Result<Self, Error> {
        let variable = |name| variable(name).filter(|value| !value.trim().is_empty());
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(Settings::default());
        }
        let interval = milliseconds(
            &variable,
            &["OTEL_METRIC_EXPORT_INTERVAL"],
            METRICS_INTERVAL_MIN..=METRICS_INTERVAL_MAX,
        )?;
        let traces = collector(&TRACES, endpoint, &variable)?;
        if traces.is_some() {
            spans::check(&variable)?;
        }
        Ok(Settings {
            traces,
            metrics: collector(&METRICS, endpoint, &variable)?,
            metrics_interval: interval.unwrap_or(METRICS_INTERVAL_DEFAULT),
        })
    }

    /// Whether there is anything to send.
    pub fn is_empty(&self) -> bool {
        self.traces.is_none() && self.metrics.is_none()
    }
}

/// The first of the variables that is set.
fn first(
    variable: &dyn Fn(&'static str) -> Option<String>,
    names: &[&'static str],
) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| Some((*name, variable(name)?)))
}

fn collector(
    signal: &Signal,
    option: Option<&str>,
    variable: &dyn Fn(&'static str) -> Option<String>,
) -> Result<Option<Collector>, Error> {
    if variable(signal.exporter).is_some_and(|exporter| exporter == "none") {
        return Ok(None);
    }
    let said = match option {
        Some(endpoint) => Some((OPTION, endpoint.to_owned())),
        None => first(variable, &signal.endpoint),
    };
    let Some((from, endpoint)) = said else { return Ok(None) };
    if from != OPTION
        && let Some((from, protocol)) = first(variable, &signal.protocol)
        && protocol != "grpc"
    {
        return Err(Error::Protocol { from, protocol });
    }
    let timeout = milliseconds(variable, &signal.timeout, Duration::from_millis(1)..=TIMEOUT_MAX)?;
    Ok(Some(Collector {
        endpoint: Collector::check(from, endpoint)?,
        headers: match first(variable, &signal.headers) {
            Some((variable, text)) => {
                Collector::headers(&text).ok_or(Error::Headers { variable })?
            }
            None => Default::default(),
        },
        timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
        certificate: variable("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from),
    }))
}

pub(super) fn milliseconds(
    variable: &dyn Fn(&'static str) -> Option<String>,
    names: &[&'static str],
    bounds: std::ops::RangeInclusive<Duration>,
) -> Result<Option<Duration>, Error> {
    let Some((variable, value)) = first(variable, names) else { return Ok(None) };
    let time = value.trim().parse().ok().map(Duration::from_millis);
    match time.filter(|time| bounds.contains(time)) {
        Some(time) => Ok(Some(time)),
        None => Err(Error::Milliseconds {
            variable,
            value,
            min: bounds.start().as_millis(),
            max: bounds.end().as_millis(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(option: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from(option, &|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    /// Where traces and metrics go.
    fn endpoints(option: Option<&str>, variables: &[(&str, &str)]) -> [Option<String>; 2] {
        let Settings { traces, metrics, .. } = settings(option, variables).expect("legal");
        [traces, metrics].map(|collector| collector.map(|collector| collector.endpoint))
    }

    #[test]
    fn nothing_is_sent_unless_somebody_says_where() {
        assert_eq!(endpoints(None, &[]), [None, None]);
        assert_eq!(endpoints(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")]), [None, None]);
        let disabled =
            [("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1")];
        assert_eq!(endpoints(None, &disabled), [None, None]);
        assert_eq!(endpoints(Some("http://b:1"), &disabled), [None, None]);
    }

    #[test]
    fn the_option_wins_and_a_signal_may_have_its_own() {
        let a = Some("http://a:1".to_owned());
        let b = Some("https://b:2".to_owned());
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1/");
        assert_eq!(endpoints(None, &[all]), [a.clone(), a.clone()]);
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://b:2");
        assert_eq!(endpoints(None, &[all, own]), [a.clone(), b.clone()]);
        assert_eq!(endpoints(None, &[own]), [None, b.clone()]);
        assert_eq!(endpoints(Some("https://b:2"), &[all]), [b.clone(), b]);
        let off = ("OTEL_TRACES_EXPORTER", "none");
        assert_eq!(endpoints(None, &[all, off]), [None, a]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1");
        for (option, variables, expected) in [
            (Some("a:1"), vec![], "--otlp-endpoint: \"a:1\""),
            (Some("unix:///x"), vec![], "http://host:port"),
            (None, vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://")], "OTEL_EXPORTER_OTLP_ENDPOINT"),
            (None, vec![all, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "only grpc"),
            (None, vec![all, ("OTEL_EXPORTER_OTLP_TIMEOUT", "0")], "from 1 to 60000"),
            (None, vec![all, ("OTEL_METRIC_EXPORT_INTERVAL", "1 s")], "from 100 to 86400000"),
            (None, vec![all, ("OTEL_EXPORTER_OTLP_HEADERS", "secret")], "NAME=VALUE"),
            (Some("http://me:secret@a:1"), vec![], "OTEL_EXPORTER_OTLP_HEADERS"),
            (Some("http://a:1?token=secret"), vec![], "OTEL_EXPORTER_OTLP_HEADERS"),
        ] {
            let error = settings(option, &variables).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn headers_and_times_are_read() {
        let settings = settings(
            Some("http://a:1"),
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, b = 2"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
            ],
        );
        let settings = settings.expect("legal");
        let traces = settings.traces.expect("an endpoint");
        assert_eq!(
            traces.headers.get("authorization").map(|v| v.as_bytes()),
            Some(&b"Bearer x"[..])
        );
        assert_eq!(traces.headers.get("b").map(|v| v.as_bytes()), Some(&b"2"[..]));
        assert_eq!(traces.timeout, Duration::from_millis(250));
        assert_eq!(settings.metrics_interval, Duration::from_millis(500));
    }
}
