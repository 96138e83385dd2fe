//! Trace context in headers, as <https://www.w3.org/TR/trace-context/> wants it.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

/// How much of what other systems say of a trace is handed on, in bytes. Whoever asks us says it, and we say it to
/// everybody whom we ask for them: a header that is too long for those must not get there. The standard wants at least so
/// much.
const TRACESTATE_LEN_MAX: usize = 512;

/// To which trace a request belongs, as far as its headers tell.
pub(super) fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// Tells it in headers.
pub(super) fn inject(context: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(context, &mut HeadersMut(headers));
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.to_str().ok()?;
        (value.len() <= TRACESTATE_LEN_MAX).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        // There is no state to tell of, mostly.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt as _;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_others_say_of_a_trace_is_handed_on_as_long_as_it_is_short() {
        let longest = format!("a={},b={}", "x".repeat(253), "x".repeat(254));
        assert_eq!(longest.len(), TRACESTATE_LEN_MAX);
        for (state, goes_on) in
            [("a=1,b=2", true), (&longest, true), (&format!("{longest}x"), false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(PARENT));
            headers.insert("tracestate", HeaderValue::from_str(state).expect("legal"));
            let context = extract(&headers);
            assert!(context.span().span_context().is_valid());
            let mut told = HeaderMap::new();
            inject(&context, &mut told);
            assert_eq!(told.get("traceparent"), headers.get("traceparent"));
            assert_eq!(told.get("tracestate"), headers.get("tracestate").filter(|_| goes_on));
        }
    }
}
