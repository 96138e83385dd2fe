//! Leads requests in the newer dialect to the services of the older one.
//!
//! The dialects differ in the names of their packages and in no byte of their messages, so the path of a request is
//! all there is to translate.

use std::task::{Context, Poll};

use tonic::codegen::http::{
    Request,
    uri::{PathAndQuery, Uri},
};
use tower::{Layer, Service};

/// The services, under all their names.
pub(super) const SERVICES: [&str; 7] = [
    "tvix.castore.v1.BlobService",
    "tvix.castore.v1.DirectoryService",
    "tvix.store.v1.PathInfoService",
    "snix.castore.v1.BlobService",
    "snix.castore.v1.DirectoryService",
    "snix.store.v1.PathInfoService",
    "lazystore.v1.BlobRangeService",
];

/// Puts a [`DialectService`] around a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct DialectLayer;

impl<S> Layer<S> for DialectLayer {
    type Service = DialectService<S>;

    fn layer(&self, inner: S) -> DialectService<S> {
        DialectService { inner }
    }
}

/// Hands on every request, under the older name if it came under the newer one.
#[derive(Debug, Clone)]
pub(super) struct DialectService<S> {
    inner: S,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for DialectService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if let Some(path) = older_path(request.uri().path()) {
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = Some(path);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
        self.inner.call(request)
    }
}

fn older_path(path: &str) -> Option<PathAndQuery> {
    let rest = path.strip_prefix("/snix.")?;
    format!("/tvix.{rest}").try_into().ok()
}
