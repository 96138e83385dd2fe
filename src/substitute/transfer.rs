//! An archive on its way from a cache into the services.
//!
//! What arrives is decompressed by a thread of its own, beside the one that hashes the archive and takes it apart, and
//! those that store contents. Between any two of them a bounded number of pieces wait. Nothing that is read goes beyond
//! NarSize, and nothing that arrives beyond what such an archive can take.

use std::{
    io::{self, Read},
    sync::Arc,
};

use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    binary_cache::{BinaryCache, Told},
    checked_file::CheckedFile,
    client::Download,
    fault::CacheFault,
};
use crate::{
    ingest::{
        IngestNarError, IngestedNar, PipeWriter, decompress_into, ingest_nar,
        is_spooled_as_claimed, pipe, spool_nar,
    },
    nix::{Compression, nar::NarProblem},
    observe::span::carrying,
    service::{Error, Result, blob::BlobService, directory::DirectoryService},
};

/// Fetches the archive that was told of, and stores its contents. What comes back is what was told, in every point. If it
/// `looks_first`, nothing is stored of an archive that is not.
pub(super) async fn transfer(
    cache: &BinaryCache,
    told: &Told,
    blobs: Arc<dyn BlobService>,
    directories: Arc<dyn DirectoryService>,
    looks_first: bool,
) -> Result<IngestedNar> {
    let download = cache.download(told).await?;
    let (arriving, arrived) = pipe();
    let expected = told.file.info.nar;
    let file = CheckedFile::new(arrived, &told.file.archive, expected.size);
    let compression = told.file.archive.compression;
    let runtime = Handle::current();
    let claim = told.unproven_claim();
    let ingest = spawn_blocking(carrying(move || {
        let archive: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(file),
            _ => {
                let (out, archive) = pipe();
                spawn_blocking(move || decompress_into(compression, file, out));
                Box::new(archive)
            }
        };
        if !looks_first {
            return ingest_nar(archive, Some(expected), &blobs, &*directories, &runtime).map(Some);
        }
        let mut archive = spool_nar(archive, expected)?;
        if let Some(claim) = claim
            && !is_spooled_as_claimed(&mut archive, &claim)?
        {
            return Ok(None);
        }
        ingest_nar(archive, Some(expected), &blobs, &*directories, &runtime).map(Some)
    }));
    let ((), outcome) = tokio::join!(pump(download, arriving), ingest);
    let stopped = |_| Error::unavailable(cache.endpoint(), IngestNarError::Stopped);
    let ingested = outcome.map_err(stopped)?.map_err(|error| explain(cache, told, error))?;
    ingested.ok_or_else(|| cache.wrong(CacheFault::ContentAddress(told.file.store_path.clone())))
}

/// Hands on what arrives.
async fn pump(mut download: Download, out: PipeWriter) {
    let outcome = loop {
        match download.next().await {
            Ok(Some(bytes)) => {
                if !out.write(bytes).await {
                    return;
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    out.end(outcome.map_err(io::Error::other)).await;
}

/// Whose fault it was.
fn explain(cache: &BinaryCache, told: &Told, error: IngestNarError) -> Error {
    let below = match &error {
        IngestNarError::Store(error) => return error.clone(),
        IngestNarError::Stopped => {
            return Error::unavailable(cache.endpoint(), IngestNarError::Stopped);
        }
        IngestNarError::Archive(error) => match &error.problem {
            NarProblem::Io(error) => service_error(error),
            _ => None,
        },
        IngestNarError::Differs { .. } | IngestNarError::Directory { .. } => None,
    };
    below.cloned().unwrap_or_else(|| {
        let path = told.file.store_path.clone();
        cache.wrong(CacheFault::Archive {
            path,
            url: cache.archive_url(told),
            source: Box::new(error),
        })
    })
}

/// The error of the line, if it was that.
fn service_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}
