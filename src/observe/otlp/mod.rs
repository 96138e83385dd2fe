//! Spans and numbers, sent to a collector by the OpenTelemetry protocol over gRPC. The feature `otlp`.
//!
//! Nothing waits for the collector: what it does not take is dropped, spans from a queue of bounded length
//! (`OTEL_BSP_MAX_QUEUE_SIZE`), and [`end`] sends what is left within [`FLUSH_TIME_MAX`].

mod collector;
mod health;
mod metrics;
mod settings;
mod spans;
mod traces;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::info;

pub use settings::{Error, Settings};

use super::{Role, event, span};
use metrics::Metrics;
use traces::Traces;

/// How long the end may take, for what has not been sent yet.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);

/// What was begun.
struct Begun {
    runtime: Handle,
    spans: Option<SdkTracerProvider>,
    metrics: Option<Metrics>,
}

static BEGUN: OnceLock<Begun> = OnceLock::new();

/// Begins to send what `settings` say. Needs the context of a tokio runtime.
pub fn begin(settings: &Settings, role: Role) -> Result<(), Error> {
    let resource = resource(role);
    let spans = match &settings.traces {
        Some(collector) => Some(
            SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_batch_exporter(Traces::open(collector)?)
                .build(),
        ),
        None => None,
    };
    let metrics = match &settings.metrics {
        Some(collector) => Some(Metrics::open(collector, &resource)?),
        None => None,
    };
    if let Some(collector) = &settings.traces {
        info!(event = event::OTLP, collector = %collector.endpoint, "sending traces");
    }
    if let Some(collector) = &settings.metrics {
        info!(event = event::OTLP, collector = %collector.endpoint, "sending metrics");
    }
    if let Some(metrics) = &metrics {
        tokio::spawn(metrics.clone().run(settings.metrics_interval));
    }
    let provider = spans.clone();
    if BEGUN.set(Begun { runtime: Handle::current(), spans, metrics }).is_ok()
        && let Some(provider) = provider
    {
        span::begin(provider.tracer("lazystore"));
    }
    Ok(())
}

/// Sends what is left, if anything was begun. Must be called outside of the runtime, while that still runs.
pub fn end() {
    let Some(begun) = BEGUN.get() else { return };
    let deadline = Instant::now() + FLUSH_TIME_MAX;
    let last = begun
        .metrics
        .clone()
        .map(|metrics| begun.runtime.spawn(async move { metrics.send().await }));
    if let Some(spans) = &begun.spans {
        // That it did not come to an end in time has been told as a failure to send, or is not worth a word.
        let _ = spans.shutdown_with_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    if let Some(last) = last {
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = begun.runtime.block_on(async { tokio::time::timeout(left, last).await });
    }
}

/// What all of it is about: this process, as the environment describes it.
fn resource(role: Role) -> Resource {
    let from_environment = Resource::builder().build();
    let is_named = from_environment
        .get(&"service.name".into())
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("lazystore.command", role.name()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ]);
    match is_named {
        true => builder.build(),
        false => builder.with_service_name("lazystore").build(),
    }
}
