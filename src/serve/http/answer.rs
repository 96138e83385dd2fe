//! From a request to its answer.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use bytes::Bytes;
use futures::stream;

use super::{
    BinaryCache,
    body::paced,
    error::Error,
    metrics::Answering,
    route::Route,
    traced,
    upload::{self, Uploads},
};
use crate::{
    nix::{STORE_DIR, StorePathDigest},
    render::render_listing,
    serve::metrics,
};

/// Of what is at a URL now and for ever.
pub(super) const IMMUTABLE: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));

/// What may be asked, of whatever is not to be changed.
pub(super) const READING: &str = "GET, HEAD";

/// No contents, of whatever length they would have.
pub(super) fn unsent() -> Body {
    Body::from_stream(stream::empty::<Result<Bytes, Infallible>>())
}

/// A response without headers.
pub(super) fn respond(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn text(kind: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}

/// Answers any request.
pub(super) async fn answer(State(cache): State<Arc<BinaryCache>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = Route::parse(&path);
    let name = route.as_ref().map_or("none", Route::name);
    let answering = Answering::begin();
    let span = traced::begin(&method, route.as_ref(), request.headers(), &path);
    let answer = async {
        match route {
            Some(route) => cache.answer(&route, request).await,
            None => Err(Error::Absent("what was asked for".to_owned())),
        }
    };
    let (response, spent) = answering.watch(span.covers(answer)).await;
    let response = response.unwrap_or_else(|error| traced::refuse(&span, error));
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    answering.answered((&method, &path, name), response.status(), spent);
    traced::follow(span, &method, response)
}

impl BinaryCache {
    async fn answer(&self, route: &Route, request: Request) -> Result<Response, Error> {
        match (request.method(), &self.uploads) {
            (&Method::GET | &Method::HEAD, _) => {
                let is_head = request.method() == Method::HEAD;
                self.read(route, request.headers(), is_head).await
            }
            (&Method::PUT, Some(uploads)) => {
                if !uploads.allow(request.headers()) {
                    return Err(Error::Token);
                }
                self.put(uploads, route, request.into_body()).await
            }
            _ => Err(Error::Method(READING)),
        }
    }

    async fn put(&self, uploads: &Uploads, route: &Route, body: Body) -> Result<Response, Error> {
        match route {
            Route::NarInfo(digest) => self.take_narinfo(uploads, digest, body).await,
            Route::Nar(name) => self.take_nar(uploads, &name.url(), body).await,
            Route::File(url) => self.take_nar(uploads, url, body).await,
            // We make our own.
            Route::Listing(_) => upload::take_and_forget(body).await,
            Route::CacheInfo | Route::Log(_) | Route::Metrics | Route::Health => {
                Err(Error::Method(READING))
            }
        }
    }

    async fn read(
        &self,
        route: &Route,
        headers: &HeaderMap,
        is_head: bool,
    ) -> Result<Response, Error> {
        match route {
            Route::CacheInfo => Ok(text("text/x-nix-cache-info", self.cache_info())),
            Route::NarInfo(digest) => {
                Ok(text("text/x-nix-narinfo", self.narinfo(digest).await?.to_string()))
            }
            Route::Listing(digest) => self.listing(digest, is_head).await,
            Route::Nar(name) => self.nar(name, headers, is_head).await,
            Route::File(url) => {
                let file = self.brought(url, headers).ok_or_else(|| Error::Absent(url.clone()))?;
                self.file(&file, headers, is_head).await
            }
            Route::Log(derivation) => self.log(derivation).await,
            Route::Metrics => Ok(metrics::numbers_for_clients()),
            Route::Health => self.health().await,
        }
    }

    /// A file that was brought. Only those who may bring something see one that no narinfo names yet.
    fn brought(&self, url: &str, headers: &HeaderMap) -> Option<Arc<upload::File>> {
        let uploads = self.uploads.as_ref()?;
        uploads.file(url).filter(|file| file.is_named() || uploads.allow(headers))
    }

    fn cache_info(&self) -> String {
        let priority = self.options.priority;
        format!("StoreDir: {STORE_DIR}\nWantMassQuery: 1\nPriority: {priority}\n")
    }

    async fn listing(&self, digest: &StorePathDigest, is_head: bool) -> Result<Response, Error> {
        let (path_info, _) = self.known(digest).await?;
        let body = match is_head {
            true => unsent(),
            false => paced(render_listing(self.stores.directories.clone(), path_info.node), ()),
        };
        let mut response = respond(StatusCode::OK, body);
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }

    /// Works if the store answers, whatever it says.
    async fn health(&self) -> Result<Response, Error> {
        self.stores.path_infos.get(&StorePathDigest::from([0; 20])).await?;
        Ok(text("text/plain", "ok\n".to_owned()))
    }
}
