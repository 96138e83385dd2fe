//! Archives, rendered while they are sent.

use std::ops::Range;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use futures::StreamExt as _;

use super::{
    BinaryCache,
    answer::{IMMUTABLE, respond, unsent},
    body::paced,
    encoding,
    error::Error,
    metrics::NAR_BYTES,
    range::{Wanted, parse_range},
    route::NarName,
    upload,
};
use crate::{
    castore::Node,
    nix::{Compression, NarHash, base32},
};

/// In which form an archive is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is.
    Plain,
    /// As it is, compressed on the way.
    Coded,
    /// A file that is compressed so.
    Packed(Compression),
}

impl Form {
    fn new(name: &NarName, headers: &HeaderMap) -> Self {
        match name.is_zstd {
            true => Form::Packed(Compression::Zstd),
            // A range counts bytes of what is sent. Those of what is compressed are not the same each time.
            false if headers.contains_key(header::RANGE) => Form::Plain,
            false if encoding::takes_zstd(headers) => Form::Coded,
            false => Form::Plain,
        }
    }

    fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        let nar = HeaderValue::from_static("application/x-nix-nar");
        let varies = (header::VARY, HeaderValue::from_static("accept-encoding"));
        let zstd = (header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        match self {
            Form::Plain => {
                let ranges = (header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
                vec![(header::CONTENT_TYPE, nar), ranges, varies]
            }
            Form::Coded => vec![(header::CONTENT_TYPE, nar), zstd, varies],
            Form::Packed(_) => {
                let unknown = HeaderValue::from_static("application/octet-stream");
                vec![(header::CONTENT_TYPE, unknown)]
            }
        }
    }

    /// Archives are what their hash says. Compressed ones are the same only until this program changes.
    fn etag(self, nar: &NarHash) -> String {
        let hash = base32::encode(&nar.sha256);
        match self {
            Form::Plain => format!("\"{hash}\""),
            Form::Coded => format!("W/\"{hash}-zstd\""),
            Form::Packed(compression) => format!("W/\"{hash}-{compression}\""),
        }
    }
}

/// Whether one of the tags in a header is `etag`, as far as weak comparison goes.
fn has_tag(value: Option<&HeaderValue>, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.trim() == "*" || text.split(',').any(|tag| strong(tag) == strong(etag))
}

impl BinaryCache {
    /// Answers for an archive. `is_head` for the headers alone.
    pub(super) async fn nar(
        &self,
        name: &NarName,
        headers: &HeaderMap,
        is_head: bool,
    ) -> Result<Response, Error> {
        let (path_info, info) = self.known(&name.store_path).await?;
        if info.nar.sha256 != name.sha256 {
            return Err(Error::Absent(name.url()));
        }
        let form = Form::new(name, headers);
        self.archive(&path_info.node, &info.nar, form, headers, is_head).await
    }

    /// Answers for a file that somebody has brought: the same archive, compressed anew in the same way.
    pub(super) async fn file(
        &self,
        file: &upload::File,
        headers: &HeaderMap,
        is_head: bool,
    ) -> Result<Response, Error> {
        let form = match file.compression {
            Compression::None => Form::Plain,
            compression => Form::Packed(compression),
        };
        self.archive(&file.node, &file.nar, form, headers, is_head).await
    }

    async fn archive(
        &self,
        node: &Node,
        nar: &NarHash,
        form: Form,
        headers: &HeaderMap,
        is_head: bool,
    ) -> Result<Response, Error> {
        let etag = form.etag(nar);
        let mut response = if has_tag(headers.get(header::IF_NONE_MATCH), &etag) {
            respond(StatusCode::NOT_MODIFIED, Body::empty())
        } else {
            let wanted = match (form, headers.get(header::RANGE)) {
                (Form::Plain, Some(range)) if is_still(headers, &etag) => {
                    parse_range(range.to_str().unwrap_or_default(), nar.size)
                }
                (Form::Plain | Form::Coded | Form::Packed(_), _) => Wanted::All,
            };
            self.part(node, form, wanted, nar.size, is_head).await?
        };
        let etag = HeaderValue::try_from(etag).expect("base 32 in quotes is legal");
        response.headers_mut().extend(form.headers());
        response.headers_mut().extend([(header::ETAG, etag), IMMUTABLE]);
        Ok(response)
    }

    /// The wanted part of an archive of `size` bytes.
    async fn part(
        &self,
        node: &Node,
        form: Form,
        wanted: Wanted,
        size: u64,
        is_head: bool,
    ) -> Result<Response, Error> {
        let (status, range) = match wanted {
            Wanted::All => (StatusCode::OK, 0..size),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Wanted::Nothing => return Err(Error::Range(size)),
        };
        let body = match is_head {
            true => unsent(),
            false => {
                // Beyond its end, too: if it is longer than it should be, the client must not take it for right.
                let end = if range.end == size { u64::MAX } else { range.end };
                self.send(node, form, range.start..end).await
            }
        };
        let mut response = respond(status, body);
        let headers = response.headers_mut();
        if form == Form::Plain {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        }
        if status == StatusCode::PARTIAL_CONTENT {
            let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let value = HeaderValue::try_from(text).expect("digits are legal");
            headers.insert(header::CONTENT_RANGE, value);
        }
        Ok(response)
    }

    /// Renders an archive once there is room for that.
    async fn send(&self, node: &Node, form: Form, range: Range<u64>) -> Body {
        let place = self.archives.clone().acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        let pieces = self.renderer().stream(node, range).inspect(|piece| {
            let len = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            NAR_BYTES.add(len);
        });
        let pieces = match form {
            Form::Plain => pieces.boxed(),
            Form::Coded => encoding::compressed(Compression::Zstd, pieces.boxed()),
            Form::Packed(compression) => encoding::compressed(compression, pieces.boxed()),
        };
        paced(pieces, place)
    }
}

/// Whether a range is wanted of the archive that is here, or of any.
fn is_still(headers: &HeaderMap, etag: &str) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|tag| has_tag(Some(tag), etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared() {
        for (value, is_same) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(value);
            assert_eq!(has_tag(Some(&value), "\"a\""), is_same, "{value:?}");
        }
        assert!(has_tag(Some(&HeaderValue::from_static("\"a\"")), "W/\"a\""));
        assert!(!has_tag(None, "\"a\""));
    }
}
