//! What a trace tells.

use std::fs;

use lazystore::proto::castore::{StatBlobRequest, blob_service_client::BlobServiceClient};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Endpoint};
use tonic_prost::ProstCodec;

use crate::{
    Collector, FILE_LEN, Far,
    collector::{hex, number, text},
    end, over,
    support::{Mounted, can_mount, noise},
};

pub type Spans = Vec<(String, Span)>;

pub fn spans_of(spans: &Spans, command: &str, kind: SpanKind) -> Vec<Span> {
    let of_kind = spans.iter().filter(|(of, span)| of == command && span.kind == kind as i32);
    of_kind.map(|(_, span)| span.clone()).collect()
}

/// Without the question by which a client connects ahead: it does so before anything is traced.
pub fn without_greetings(spans: Vec<Span>) -> Vec<Span> {
    let is_greeting =
        |span: &Span| span.parent_span_id.is_empty() && span.name.ends_with("BlobService/Stat");
    spans.into_iter().filter(|span| !is_greeting(span)).collect()
}

#[test]
fn a_read_through_a_mount_is_one_trace_over_both_processes() {
    if !can_mount() {
        return;
    }
    let (collector, far) = (Collector::new(), Far::new());
    let (daemon, address) = far.daemon(&collector.endpoint);
    let mut command = over(address);
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-who=the%20mount");
    let options = ["--otlp-endpoint", &collector.endpoint];
    let mounted = Mounted::with(&mut command, &far.mountpoint(), &options);
    let file = mounted.path.join(&far.name).join("file");
    assert_eq!(fs::read(&file).expect("it reads"), noise(1, FILE_LEN));
    assert!(collector.spans().is_empty(), "nothing was due yet");
    mounted.unmount();
    end(daemon);

    let spans = collector.spans();
    let requests = spans_of(&spans, "mount", SpanKind::Internal);
    let calls = spans_of(&spans, "mount", SpanKind::Client);
    let served = without_greetings(spans_of(&spans, "daemon", SpanKind::Server));
    assert!(!served.is_empty(), "{spans:?}");
    // Whatever the daemon did belongs to a call of the mount, which takes longer.
    for span in &served {
        let call = calls.iter().find(|call| call.span_id == span.parent_span_id);
        let call = call.unwrap_or_else(|| panic!("nobody asked for {span:?}"));
        assert_eq!((&call.trace_id, &call.name), (&span.trace_id, &span.name));
        assert!(call.start_time_unix_nano <= span.start_time_unix_nano, "{call:?} {span:?}");
        assert!(call.end_time_unix_nano >= call.start_time_unix_nano, "{call:?}");
        assert_eq!(text(&span.attributes, "rpc.system").as_deref(), Some("grpc"));
    }
    // And so it does for what the kernel asked: the store path was looked up, the file read.
    for (what, service) in [("lookup", "PathInfoService/Get"), ("read", "BlobRangeService/Read")] {
        let request = requests.iter().find(|request| request.name == what);
        let request = request.unwrap_or_else(|| panic!("no {what} among {requests:?}"));
        assert!(request.parent_span_id.is_empty());
        let of_trace = served.iter().filter(|span| span.trace_id == request.trace_id);
        let names: Vec<_> = of_trace.map(|span| span.name.as_str()).collect();
        assert!(names.iter().any(|name| name.ends_with(service)), "{what}: {names:?}");
        let operation = requests.iter().find(|span| span.parent_span_id == request.span_id);
        let operation = operation.unwrap_or_else(|| panic!("nothing below {what}: {requests:?}"));
        assert!(operation.name.starts_with("grpc "), "{operation:?}");
        let call = calls.iter().find(|call| call.parent_span_id == operation.span_id);
        assert!(call.is_some_and(|call| call.trace_id == request.trace_id), "{what}");
        assert!(number(&request.attributes, "lazystore.inode").is_some_and(|ino| ino > 0));
    }
    let moved: i64 = calls.iter().filter_map(|c| number(&c.attributes, "lazystore.bytes")).sum();
    assert!(moved >= FILE_LEN as i64, "{moved} bytes");
    assert_eq!(collector.headers(), ["the mount"]);
}

#[test]
fn what_is_at_hand_is_no_span() {
    if !can_mount() {
        return;
    }
    let (collector, far) = (Collector::new(), Far::new());
    let mut command = crate::sending(crate::lazystore(&far.dir.path().join("store")));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    let mounted = Mounted::new(&mut command, &far.mountpoint());
    let file = mounted.path.join(&far.name).join("file");
    assert_eq!(fs::read(&file).expect("it reads"), noise(1, FILE_LEN));
    mounted.unmount();
    assert_eq!(collector.spans(), []);
    assert!(!collector.metrics().is_empty(), "it has sent metrics");
}

#[test]
fn a_sampler_of_the_environment_is_asked() {
    if !can_mount() {
        return;
    }
    let (collector, far) = (Collector::new(), Far::new());
    let (daemon, address) = far.daemon(&collector.endpoint);
    let mut command = over(address);
    command.env("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let options = ["--otlp-endpoint", &collector.endpoint];
    let mounted = Mounted::with(&mut command, &far.mountpoint(), &options);
    let file = mounted.path.join(&far.name).join("file");
    assert_eq!(fs::read(&file).expect("it reads"), noise(1, FILE_LEN));
    mounted.unmount();
    end(daemon);
    // The daemon samples everything but what belongs to traces that were not sampled.
    let spans: Vec<_> = collector.spans().into_iter().map(|(_, span)| span).collect();
    assert_eq!(without_greetings(spans), []);
}

#[test]
fn any_client_can_say_to_which_trace_its_call_belongs_and_none_can_break_anything() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    let (collector, far) = (Collector::new(), Far::new());
    let (daemon, address) = far.daemon(&collector.endpoint);
    let long = "x".repeat(4000);
    let headers = [
        format!("00-{TRACE}-{PARENT}-01"),
        "garbage".to_owned(),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("ff-{TRACE}-{PARENT}-01-{long}"),
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = BlobServiceClient::connect(format!("http://{address}")).await;
        let mut client = client.expect("it connects");
        for header in &headers {
            let digest = blake3::hash(b"").as_bytes().to_vec().into();
            let mut request = Request::new(StatBlobRequest { digest, ..Default::default() });
            request.metadata_mut().insert("traceparent", header.parse().expect("ASCII"));
            request.metadata_mut().insert("tracestate", long.parse().expect("ASCII"));
            client.stat(request).await.expect("it answers");
        }
        // Nor by what it asks for: of a method that nobody knows not even the name is told.
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let mut grpc = Grpc::new(channel.connect().await.expect("it connects"));
        grpc.ready().await.expect("it is connected");
        let path = PathAndQuery::try_from(format!("/{long}/secret")).expect("legal");
        let codec = ProstCodec::<StatBlobRequest, StatBlobRequest>::default();
        let refused = grpc.unary(Request::new(StatBlobRequest::default()), path, codec).await;
        assert_eq!(refused.expect_err("nobody knows it").code(), Code::Unimplemented);
    });
    end(daemon);
    let mut spans = spans_of(&collector.spans(), "daemon", SpanKind::Server);
    assert!(!format!("{spans:?}").contains("xxxx"), "{spans:?}");
    let unknown = spans.pop_if(|span| span.name == "_OTHER").expect("the last");
    assert_eq!(text(&unknown.attributes, "rpc.method"), None);
    assert_eq!(spans.len(), headers.len());
    let told: Vec<_> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    assert_eq!(told.len(), 1, "{spans:?}");
    assert_eq!(hex(&told[0].parent_span_id), PARENT);
    let others = spans.iter().filter(|span| hex(&span.trace_id) != TRACE);
    assert!(others.clone().count() == 3 && others.clone().all(|s| s.parent_span_id.is_empty()));
}
