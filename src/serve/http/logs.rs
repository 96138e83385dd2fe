//! Logs of builds, from a directory in which Nix or somebody like it keeps them.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{BinaryCache, answer::respond, body::paced, error::Error};
use crate::{
    ingest::decompress,
    nix::{Compression, StorePath},
    render::RenderError,
    service::{self, local::offload},
};

/// The pieces in which a log is read, in bytes.
const PIECE_LEN: usize = 64 << 10;

const ENDPOINT: &str = "the directory of logs";

/// Where the log of a derivation may be below the directory of logs, and how it is compressed. Nix itself divides them
/// by the first two characters of their names, and most are compressed.
fn places(derivation: &StorePath) -> Vec<(PathBuf, Compression)> {
    let name = derivation.to_string();
    let (first, rest) = name.split_at(2);
    let divided = [Path::new("drvs").join(first).join(rest), Path::new(first).join(rest)];
    let folders = divided.into_iter().chain([PathBuf::from(&name)]);
    let packed = [(".bz2", Compression::Bzip2), ("", Compression::None)];
    folders
        .flat_map(|path| {
            packed.map(|(suffix, compression)| {
                let mut path = path.clone().into_os_string();
                path.push(suffix);
                (PathBuf::from(path), compression)
            })
        })
        .collect()
}

fn open(folder: &Path, derivation: &StorePath) -> io::Result<Option<(File, Compression)>> {
    for (path, compression) in places(derivation) {
        match File::open(folder.join(path)) {
            Ok(file) if file.metadata()?.is_file() => return Ok(Some((file, compression))),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

impl BinaryCache {
    /// Answers with the log of a build, decompressed.
    pub(super) async fn log(&self, derivation: &StorePath) -> Result<Response, Error> {
        let absent = || Error::Absent(format!("a log of {derivation}"));
        let folder = self.options.logs.clone().ok_or_else(absent)?;
        let wanted = derivation.clone();
        let opened = offload(ENDPOINT, move || Ok(open(&folder, &wanted))).await?;
        let (file, compression) = opened.map_err(Error::Log)?.ok_or_else(absent)?;
        let reader = decompress(compression, file).map_err(Error::Log)?;
        let pieces = stream::try_unfold(Some(reader), |reader| async {
            let Some(mut reader) = reader else { return Ok(None) };
            let read = offload(ENDPOINT, move || {
                let mut piece = vec![0; PIECE_LEN];
                let len = reader.read(&mut piece);
                let len = len.map_err(|error| service::Error::unavailable(ENDPOINT, error))?;
                piece.truncate(len);
                Ok((Bytes::from(piece), reader))
            });
            let (piece, reader) = read.await.map_err(RenderError::Service)?;
            Ok(match piece.is_empty() {
                true => None,
                false => Some((piece, Some(reader))),
            })
        });
        let mut response = respond(StatusCode::OK, paced(pieces.boxed(), ()));
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}
