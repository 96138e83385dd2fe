//! Compressing what is sent while it is sent.

use std::io;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::compress::{self, Compress};
use crate::{
    nix::Compression,
    render::RenderError,
    service::{self, local::offload},
};

/// Whether the client says that it takes zstd.
pub(super) fn takes_zstd(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    let lines = values.iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_zstd = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("zstd"));
        let refused = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.trim().parse::<f32>() == Ok(0.0))
        };
        is_zstd && !parts.any(refused)
    })
}

/// The pieces as one compressed file.
pub(super) fn compressed(
    compression: Compression,
    pieces: BoxStream<'static, Result<Bytes, RenderError>>,
) -> BoxStream<'static, Result<Bytes, RenderError>> {
    let begin = (pieces, None, false);
    stream::try_unfold(begin, move |(mut pieces, compressor, is_done)| async move {
        if is_done {
            return Ok(None);
        }
        let mut compressor = match compressor {
            Some(compressor) => compressor,
            None => compress::compressor(compression).map_err(failed)?,
        };
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let output;
            (compressor, output) = compress(compressor, piece).await?;
            if !output.is_empty() {
                return Ok(Some((output, (pieces, Some(compressor), false))));
            }
        }
        let rest = compressor.finish().map_err(failed)?;
        Ok(Some((rest.into(), (pieces, None, true))))
    })
    .boxed()
}

/// On a thread where it may take its time. Returns what came out, which may be nothing yet.
async fn compress(
    mut compressor: Box<dyn Compress>,
    piece: Bytes,
) -> service::Result<(Box<dyn Compress>, Bytes)> {
    offload(ENDPOINT, move || {
        let written = compressor.write_all(&piece);
        written.map_err(|error| service::Error::unavailable(ENDPOINT, error))?;
        let output = compressor.take();
        Ok((compressor, output.into()))
    })
    .await
}

const ENDPOINT: &str = "a compressor";

fn failed(error: io::Error) -> RenderError {
    RenderError::Service(service::Error::unavailable(ENDPOINT, error))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures::TryStreamExt as _;

    use super::*;

    #[test]
    fn who_takes_zstd_says_so() {
        for (value, takes) in [
            ("zstd", true),
            ("gzip, br;q=0.5, ZSTD ; q=0.1", true),
            ("zstd, br, gzip, deflate, bzip2, xz", true),
            ("zstd;q=0", false),
            ("zstd; q=0.000", false),
            ("*", false),
            ("gzip", false),
            ("zstdx", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(value);
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]);
            assert_eq!(takes_zstd(&headers), takes, "{headers:?}");
        }
        assert!(!takes_zstd(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn what_is_compressed_is_read_back() {
        for pieces in [0, 1, 3, 50] {
            let all: Vec<_> = (0..pieces).map(|n| Bytes::from(vec![n as u8; 100_000])).collect();
            let pieces = stream::iter(all.clone().into_iter().map(Ok)).boxed();
            let packed: Vec<Bytes> =
                compressed(Compression::Zstd, pieces).try_collect().await.expect("no errors");
            let unpacked = zstd::decode_all(&packed.concat()[..]).expect("a whole frame");
            assert!(unpacked == all.concat());
        }
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(RenderError::Stopped)]);
        let result = compressed(Compression::Zstd, broken.boxed()).try_collect::<Vec<_>>().await;
        assert!(matches!(result, Err(RenderError::Stopped)));
    }
}
