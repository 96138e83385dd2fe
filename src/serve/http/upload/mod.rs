//! What clients bring: archives first, then the narinfos that name them.
//!
//! An archive goes into the store while it arrives, and is seen by nobody until a narinfo fits it: the hash and length
//! of the archive, the compression, and, where they are told, the hash and length of the file. The references of a
//! narinfo must be here; those that others are bringing at the same time are waited for, for a bounded time. A content
//! address must be true. What is here already is not replaced: the same archive only gains signatures.
//!
//! Which file holds which archive is remembered in memory, of a bounded number of files ([`FILES_MAX`]). Clients keep
//! the names of the files they brought, so these can be read back, compressed as they were, as long as that is
//! remembered.

mod incoming;
mod nar;
mod narinfo;

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use futures::StreamExt as _;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::{answer::respond, error::Error};
use crate::{
    castore::Node,
    nix::{Compression, NarHash},
    serve::Tokens,
};

/// How many archives are taken at once. Further clients wait. Each takes some 20 MB, and what its decompressor needs.
const ARCHIVES_AT_ONCE_MAX: usize = 16;

/// How many files are remembered: some 20 MB of them.
const FILES_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// What may be brought, and by whom.
#[derive(Debug)]
pub struct UploadOptions {
    /// Who knows one of these may bring something. They may be replaced meanwhile. `None` for everybody.
    pub tokens: Option<Arc<ArcSwap<Tokens>>>,
    /// The longest archive, decompressed, in bytes.
    pub nar_len_max: u64,
}

/// The state of uploads.
#[derive(Debug)]
pub(super) struct Uploads {
    options: UploadOptions,
    files: Mutex<LruCache<Box<str>, Arc<File>>>,
    archives: Semaphore,
    /// How many path infos were stored. Watched by those who wait for references.
    stored: watch::Sender<u64>,
}

/// A file that was brought.
#[derive(Debug)]
pub(super) struct File {
    /// What the archive holds.
    pub(super) node: Node,
    pub(super) nar: NarHash,
    pub(super) compression: Compression,
    /// Of the file.
    pub(super) sha256: [u8; 32],
    /// Of the file, in bytes.
    pub(super) len: u64,
    /// Whether a narinfo names it.
    is_named: AtomicBool,
}

impl Uploads {
    pub(super) fn new(options: UploadOptions) -> Self {
        Uploads {
            options,
            files: Mutex::new(LruCache::new(FILES_MAX)),
            archives: Semaphore::new(ARCHIVES_AT_ONCE_MAX),
            stored: watch::Sender::new(0),
        }
    }

    /// Whether a request comes from somebody who may bring something.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        self.options.tokens.as_ref().is_none_or(|tokens| tokens.load().allow(headers))
    }

    /// The file at a URL below the cache's own.
    pub(super) fn file(&self, url: &str) -> Option<Arc<File>> {
        self.files.lock().get(url).cloned()
    }
}

impl File {
    /// Whether a narinfo names it.
    pub(super) fn is_named(&self) -> bool {
        self.is_named.load(Relaxed)
    }
}

/// The longest listing that is taken, in bytes.
const LISTING_LEN_MAX: usize = 256 << 20;

/// Takes what is not needed, so that who brings it goes on.
pub(super) async fn take_and_forget(body: Body) -> Result<Response, Error> {
    let mut pieces = body.into_data_stream();
    let mut len = 0;
    while let Some(piece) = pieces.next().await {
        len += piece.map_err(|error| Error::Unreadable(io::Error::other(error)))?.len();
        if len > LISTING_LEN_MAX {
            return Err(Error::ListingLength);
        }
    }
    Ok(respond(StatusCode::CREATED, Body::empty()))
}
