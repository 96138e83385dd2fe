//! Takes an archive, in any compression.

use std::{
    io::{self, Cursor, Read},
    sync::{Arc, atomic::AtomicBool},
};

use axum::{body::Body, http::StatusCode, response::Response};
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    super::{BinaryCache, answer::respond, error::Error},
    File, Uploads,
    incoming::{Bounded, Measured, incoming},
};
use crate::{
    ingest::{IngestNarError, IngestedNar, PipeReader, decompress_into, ingest_nar, pipe},
    nix::{Compression, NarHash},
    observe::span::carrying,
    service::Stores,
};

/// What a gzip file begins with. Its name tells nothing.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How a file is compressed, as far as its name tells: `None` for what is either not compressed, or by gzip.
fn compression_of(url: &str) -> Option<Option<Compression>> {
    if url.ends_with(".nar") {
        return Some(None);
    }
    let named = |compression: &Compression| {
        !compression.suffix().is_empty()
            && url.strip_suffix(compression.suffix()).is_some_and(|url| url.ends_with(".nar"))
    };
    Compression::ALL.into_iter().find(named).map(Some)
}

impl BinaryCache {
    /// Takes the archive that a client wants to have at `url`.
    pub(in super::super) async fn take_nar(
        &self,
        uploads: &Uploads,
        url: &str,
        body: Body,
    ) -> Result<Response, Error> {
        let compression = compression_of(url).ok_or_else(|| Error::Compression(url.to_owned()))?;
        let _place = uploads.archives.acquire().await;
        let (stores, runtime) = (self.stores.clone(), Handle::current());
        let incoming = incoming(body);
        let nar_len_max = uploads.options.nar_len_max;
        let take = move || take(incoming, compression, nar_len_max, &stores, &runtime);
        let taken = spawn_blocking(carrying(take));
        let file = taken.await.map_err(|_| IngestNarError::Stopped)??;
        tracing::debug!(url, nar = ?file.nar, "took an archive");
        uploads.files.lock().put(url.into(), Arc::new(file));
        Ok(respond(StatusCode::CREATED, Body::empty()))
    }
}

/// Stores what the archive holds. Blocks.
fn take(
    mut incoming: PipeReader,
    compression: Option<Compression>,
    nar_len_max: u64,
    stores: &Stores,
    runtime: &Handle,
) -> Result<File, Error> {
    let mut magic = Vec::new();
    let begin = incoming.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic);
    begin.map_err(unreadable)?;
    let compression = compression.unwrap_or(match magic == GZIP_MAGIC {
        true => Compression::Gzip,
        false => Compression::None,
    });
    let (stream, ingested) = (Cursor::new(magic).chain(incoming), |archive: &mut dyn Read| {
        let archive = Bounded::new(archive, nar_len_max);
        ingest_nar(archive, None, &stores.blobs, &*stores.directories, runtime)
    });
    let (IngestedNar { node, nar, .. }, sha256, len) = match compression {
        Compression::None => {
            let found = ingested(&mut { stream })?;
            let NarHash { size, sha256 } = found.nar;
            (found, sha256, size)
        }
        compression => {
            // Hashed as a file and decompressed beside being hashed as an archive and stored.
            let mut file = Measured::new(stream);
            let (out, mut archive) = pipe();
            let unpacking = runtime.spawn_blocking(move || {
                decompress_into(compression, &mut file, out);
                file
            });
            let found = ingested(&mut archive)?;
            let file = runtime.block_on(unpacking).map_err(|_| IngestNarError::Stopped)?;
            let (sha256, len) = file.finish();
            (found, sha256, len)
        }
    };
    Ok(File { node, nar, compression, sha256, len, is_named: AtomicBool::new(false) })
}

fn unreadable(error: io::Error) -> Error {
    Error::Unreadable(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_compression() {
        for (url, compression) in [
            ("nar/x.nar", Some(None)),
            ("nar/x.nar.xz", Some(Some(Compression::Xz))),
            ("nar/x.nar.zst", Some(Some(Compression::Zstd))),
            ("nar/x.nar.bz2", Some(Some(Compression::Bzip2))),
            ("nar/x.nar.br", Some(Some(Compression::Br))),
            ("nar/x.nar.lz4", Some(Some(Compression::Lz4))),
            ("nar/x.nar.lzip", None),
            ("nar/x.xz", None),
            ("nar/x", None),
        ] {
            assert_eq!(compression_of(url), compression, "{url}");
        }
    }
}
