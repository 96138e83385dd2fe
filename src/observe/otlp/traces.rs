//! Spans to a collector.

use std::{sync::Arc, time::Duration};

use opentelemetry_otlp::{SpanExporter as Exporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use tokio::runtime::Handle;
use tonic::metadata::MetadataMap;

use super::{Error, collector::Collector, health::Health};

/// Sends spans, and tells when they are not taken.
#[derive(Debug)]
pub(super) struct Traces {
    exporter: Arc<Exporter>,
    health: Health,
    runtime: Handle,
}

impl Traces {
    /// To `collector`. Needs the context of a tokio runtime.
    pub(super) fn open(collector: &Collector) -> Result<Self, Error> {
        let exporter = Exporter::builder()
            .with_tonic()
            .with_channel(collector.connect()?)
            .with_metadata(MetadataMap::from_headers(collector.headers.clone()))
            .with_timeout(collector.timeout)
            .build()
            .map_err(Error::Exporter)?;
        let (exporter, health) = (Arc::new(exporter), Health::new("traces"));
        Ok(Traces { exporter, health, runtime: Handle::current() })
    }
}

impl SpanExporter for Traces {
    /// Comes from a thread that is none of the runtime's.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = self.exporter.clone();
        let sent = self.runtime.spawn(async move { exporter.export(batch).await }).await;
        let outcome =
            sent.unwrap_or_else(|ended| Err(OTelSdkError::InternalFailure(ended.to_string())));
        self.health.note(&outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nobody else has it before the first batch.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
