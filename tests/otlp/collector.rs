//! A collector that keeps what it gets.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::Metric,
    trace::v1::Span,
};
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

#[derive(Default)]
struct Got {
    spans: Vec<(String, Span)>,
    metrics: Vec<(String, Metric)>,
    headers: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Services(Arc<Mutex<Got>>);

/// The collector, until it is dropped.
pub struct Collector {
    got: Services,
    pub endpoint: String,
    _runtime: Runtime,
}

impl Collector {
    pub fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let got = Services::default();
        let _context = runtime.enter();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let incoming = TcpIncoming::bind(any).expect("it listens");
        let endpoint = format!("http://{}", incoming.local_addr().expect("it has an address"));
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(got.clone()))
            .add_service(MetricsServiceServer::new(got.clone()));
        runtime.spawn(server.serve_with_incoming(incoming));
        drop(_context);
        Collector { got, endpoint, _runtime: runtime }
    }

    /// The spans that came, each with the command that it came from.
    pub fn spans(&self) -> Vec<(String, Span)> {
        self.got.0.lock().expect("no panic").spans.clone()
    }

    /// The metrics that came, each with the command that it came from.
    pub fn metrics(&self) -> Vec<(String, Metric)> {
        self.got.0.lock().expect("no panic").metrics.clone()
    }

    /// The values of the header `x-who`.
    pub fn headers(&self) -> Vec<String> {
        self.got.0.lock().expect("no panic").headers.iter().cloned().collect()
    }
}

/// A text among attributes.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// Whether something is said to be so.
pub fn flag(attributes: &[KeyValue], key: &str) -> bool {
    let attribute = attributes.iter().find(|attribute| attribute.key == key);
    let value = attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    matches!(value, Some(Value::BoolValue(true)))
}

/// As people write it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number among attributes.
pub fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

impl Services {
    fn note_header<T>(&self, request: &Request<T>) {
        if let Some(who) = request.metadata().get("x-who").and_then(|value| value.to_str().ok()) {
            self.0.lock().expect("no panic").headers.insert(who.to_owned());
        }
    }
}

#[tonic::async_trait]
impl TraceService for Services {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.note_header(&request);
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default().attributes;
            assert_eq!(text(&resource, "service.name").as_deref(), Some("lazystore"));
            let command = text(&resource, "lazystore.command").expect("it says which command");
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| (command.clone(), span));
            self.0.lock().expect("no panic").spans.extend(spans);
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Services {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.note_header(&request);
        for of_resource in request.into_inner().resource_metrics {
            let resource = of_resource.resource.unwrap_or_default().attributes;
            let command = text(&resource, "lazystore.command").expect("it says which command");
            let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            let metrics = metrics.map(|metric| (command.clone(), metric));
            self.0.lock().expect("no panic").metrics.extend(metrics);
        }
        Ok(Response::new(Default::default()))
    }
}
