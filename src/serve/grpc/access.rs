//! Who may do what: by the token that a client shows.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use futures::future::Either;
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderMap, Request, Response},
};
use tower::{Layer, Service};

use crate::{observe::event, serve::Tokens};

/// Who may do what. Whoever asks whether the server lives needs nothing.
#[derive(Debug, Default)]
pub struct Access {
    /// With one of these a client may read and write.
    pub write: Option<Tokens>,
    /// With one of these it may only read.
    pub read: Option<Tokens>,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Nothing,
    Read,
    Write,
}

/// What the method at `path`, under its older name, needs. Reading, if it is not known.
fn needed(path: &str) -> Right {
    match path.trim_start_matches('/').rsplit_once('/') {
        Some(("grpc.health.v1.Health", _)) => Right::Nothing,
        Some((_, "Put")) => Right::Write,
        Some(_) | None => Right::Read,
    }
}

impl Access {
    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        let shows = |tokens: &Option<Tokens>| tokens.as_ref().is_some_and(|t| t.allow(headers));
        let right = needed(path);
        if right == Right::Nothing || shows(&self.write) {
            return Ok(());
        }
        match (right, shows(&self.read)) {
            (Right::Nothing | Right::Read, true) => Ok(()),
            (Right::Write, true) => Err(Status::permission_denied("this token may only read")),
            (_, false) => Err(Status::unauthenticated(
                "this server wants a token that it knows, as a bearer (token-file=FILE in the address)",
            )),
        }
    }
}

/// Lets those pass who may do what they ask for; without an [`Access`] everybody.
#[derive(Debug, Clone)]
pub(super) struct AccessLayer(pub(super) Option<Arc<ArcSwap<Access>>>);

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> AccessService<S> {
        AccessService { inner, access: self.0.clone() }
    }
}

/// The service behind the layer.
#[derive(Debug, Clone)]
pub(super) struct AccessService<S> {
    inner: S,
    access: Option<Arc<ArcSwap<Access>>>,
}

impl<S, B> Service<Request<B>> for AccessService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let allowed = self
            .access
            .as_ref()
            .map_or(Ok(()), |access| access.load().check(request.uri().path(), request.headers()));
        match allowed {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(refusal) => {
                tracing::info!(
                    event = event::REQUEST_REFUSED,
                    path = request.uri().path(),
                    %refusal,
                    "refused a request"
                );
                Either::Left(ready(Ok(refusal.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::{
        Code,
        codegen::http::{HeaderValue, header::AUTHORIZATION},
    };

    use super::*;

    #[test]
    fn each_method_needs_its_right() {
        for (path, right) in [
            ("/tvix.castore.v1.BlobService/Put", Right::Write),
            ("/tvix.castore.v1.BlobService/Read", Right::Read),
            ("/tvix.castore.v1.BlobService/Stat", Right::Read),
            ("/lazystore.v1.BlobRangeService/Read", Right::Read),
            ("/tvix.castore.v1.DirectoryService/Get", Right::Read),
            ("/tvix.castore.v1.DirectoryService/Put", Right::Write),
            ("/tvix.store.v1.PathInfoService/Put", Right::Write),
            ("/tvix.store.v1.PathInfoService/List", Right::Read),
            ("/tvix.store.v1.PathInfoService/CalculateNAR", Right::Read),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Right::Read),
            ("/grpc.health.v1.Health/Check", Right::Nothing),
            ("/x/grpc.health.v1.Health/Put", Right::Write),
            ("", Right::Read),
        ] {
            assert_eq!(needed(path), right, "{path}");
        }
    }

    #[test]
    fn a_token_is_needed_and_its_right() {
        let tokens = |text| Some(Tokens::parse(text).expect("tokens"));
        let access =
            Access { write: tokens("the-token-that-writes"), read: tokens("the-token-that-reads") };
        let ask = |token: &str, path| {
            let value = HeaderValue::try_from(format!("Bearer {token}")).expect("legal");
            let refusal = access.check(path, &HeaderMap::from_iter([(AUTHORIZATION, value)]));
            refusal.map_err(|status| status.code())
        };
        let (read, write) =
            ("/tvix.castore.v1.BlobService/Read", "/tvix.castore.v1.BlobService/Put");
        assert_eq!(ask("the-token-that-writes", read), Ok(()));
        assert_eq!(ask("the-token-that-writes", write), Ok(()));
        assert_eq!(ask("the-token-that-reads", read), Ok(()));
        assert_eq!(ask("the-token-that-reads", write), Err(Code::PermissionDenied));
        assert_eq!(ask("the-token-of-nobody", read), Err(Code::Unauthenticated));
        assert_eq!(ask("the-token-of-nobody", write), Err(Code::Unauthenticated));
        let nothing = access.check(read, &HeaderMap::new()).map_err(|status| status.code());
        assert_eq!(nothing, Err(Code::Unauthenticated));
        access.check("/grpc.health.v1.Health/Check", &HeaderMap::new()).expect("for everybody");
    }
}
