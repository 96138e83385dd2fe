//! One bucket of an object store, or a folder in one: what the backends for blobs, directories and path infos share.
//!
//! ```text
//! <prefix>/chunks/b3/<4 hex>/<64 hex>      a chunk's bytes, in zstd; the only object of a blob that is one chunk
//! <prefix>/blobs/b3/<4 hex>/<64 hex>       the list of the chunks of a longer blob: a StatBlobResponse
//! <prefix>/dirs/b3/<4 hex>/<64 hex>        the closure of a root directory, in zstd
//! <prefix>/pathinfos/<2>/<32 nixbase32>    a path info behind its seal
//! ```
//!
//! See `docs/formats.md` for what is in them. An object is never changed, except that a path info may be replaced; and
//! nothing is ever removed. All that is read is bounded before room is made for it.
//!
//! **One deadline an operation.** What does not reach the store is tried again within it. A long object has more time,
//! as long as it moves at all ([`BYTES_PER_SECOND_MIN`]). Only the answer that there is no such object makes something
//! absent; whatever else goes wrong is an error.

mod codec;
#[cfg(test)]
mod counted;
mod error;
mod layout;
mod open;
#[cfg(test)]
mod tests;
mod traced;

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{GetOptions, GetResult, ObjectStore, PutMode, PutOptions, path::Path};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

pub use codec::{Unpacker, compress, compressed_len_max, decompress};
#[cfg(test)]
pub(crate) use counted::Counted;
pub use layout::{Kind, path_info_digest};
pub use open::{BucketError, BucketOptions, BucketUrl};

use super::{
    Error, Result,
    circuit::{Circuit, News, try_until_it_answers},
    local::offload,
};

/// How many requests are under way at once.
pub const REQUESTS_AT_ONCE_MAX: usize = 64;

/// A body that moves more slowly than this, after the deadline, is given up.
pub const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// A folder of an object store. Cheap to clone.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    endpoint: Arc<str>,
    deadline: Duration,
    offline: bool,
    places: Semaphore,
    circuit: Circuit,
    /// Unset once the store turned out not to know how to create what is not there.
    creates: AtomicBool,
    /// Where the objects are, if they are files of this machine.
    folder: Option<PathBuf>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.0.endpoint).finish()
    }
}

impl Bucket {
    /// The folder `prefix` of `store`, which errors call `endpoint`. For tests, and for stores that are opened
    /// elsewhere; see [`BucketUrl::open`].
    pub fn new(
        endpoint: &str,
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        options: BucketOptions,
    ) -> Self {
        Bucket(Arc::new(Inner {
            store,
            prefix,
            circuit: Circuit::new(endpoint.into(), options.deadline),
            endpoint: endpoint.into(),
            deadline: options.deadline,
            offline: options.offline,
            places: Semaphore::new(REQUESTS_AT_ONCE_MAX),
            creates: AtomicBool::new(true),
            folder: None,
        }))
    }

    /// The same, whose objects are the files of `folder`.
    fn of_folder(mut self, folder: PathBuf) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.folder = Some(folder);
        }
        self
    }

    /// What errors call it.
    pub fn endpoint(&self) -> &Arc<str> {
        &self.0.endpoint
    }

    /// Whether a question costs next to nothing, since it is one about a file of this machine.
    pub fn is_near(&self) -> bool {
        self.0.folder.is_some()
    }

    /// A whole object of at most `len_max` bytes. `None` if it is absent; a longer one is corrupt.
    pub async fn get(&self, path: &Path, len_max: u64) -> Result<Option<Bytes>> {
        let _place = self.enter(path).await?;
        let opened = self.0.store.get_opts(path, GetOptions::default());
        let Some(found) = self.found(self.ask(path, 0, opened).await?)? else {
            return Ok(None);
        };
        let len = found.meta.size;
        if len > len_max {
            let what = format!("{path} has {len} bytes, more than {len_max}");
            return Err(Error::corrupt(&self.0.endpoint, what));
        }
        self.within(path, len, self.body(path, found)).await?.map(Some)
    }

    /// All bytes of an answer, and not one more than it said.
    async fn body(&self, path: &Path, found: GetResult) -> Result<Bytes> {
        let len = found.meta.size;
        let wrong = |got: usize| {
            let what = format!("{path} came with {got} bytes instead of {len}");
            Error::unavailable(&self.0.endpoint, what)
        };
        let mut pieces = found.into_stream();
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.refused(error))?;
            if all.len() as u64 + piece.len() as u64 > len {
                return Err(wrong(all.len() + piece.len()));
            }
            // Most objects come in one piece.
            if all.is_empty() && piece.len() as u64 == len {
                return Ok(piece);
            }
            all.extend_from_slice(&piece);
        }
        match all.len() as u64 == len {
            true => Ok(all.into()),
            false => Err(wrong(all.len())),
        }
    }

    /// Whether an object is there.
    pub async fn has(&self, path: &Path) -> Result<bool> {
        let _place = self.enter(path).await?;
        let options = GetOptions { head: true, ..GetOptions::default() };
        let asked = self.0.store.get_opts(path, options);
        Ok(self.found(self.ask(path, 0, asked).await?)?.is_some())
    }

    /// Puts an object where there is none. Says whether there was none; where the store cannot tell, it is asked first.
    pub async fn create(&self, path: &Path, contents: Bytes) -> Result<bool> {
        if let Some(is_new) = self.try_create(path, contents.clone()).await? {
            return Ok(is_new);
        }
        if self.has(path).await? {
            return Ok(false);
        }
        self.put(path, contents).await.map(|()| true)
    }

    /// As [`Bucket::create`], for one of which it was just said that it is not there.
    pub async fn create_asked(&self, path: &Path, contents: Bytes) -> Result<bool> {
        match self.try_create(path, contents.clone()).await? {
            Some(is_new) => Ok(is_new),
            None => self.put(path, contents).await.map(|()| true),
        }
    }

    /// `None` if the store cannot do that.
    async fn try_create(&self, path: &Path, contents: Bytes) -> Result<Option<bool>> {
        if !self.0.creates.load(Relaxed) {
            return Ok(None);
        }
        match self.put_mode(path, contents, PutMode::Create).await? {
            Ok(()) => Ok(Some(true)),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Some(false)),
            Err(object_store::Error::NotImplemented { .. }) => {
                self.0.creates.store(false, Relaxed);
                Ok(None)
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Puts an object in place of one that may be there.
    pub async fn put(&self, path: &Path, contents: Bytes) -> Result<()> {
        let put = self.put_mode(path, contents, PutMode::Overwrite).await?;
        put.map_err(|error| self.refused(error))
    }

    async fn put_mode(
        &self,
        path: &Path,
        contents: Bytes,
        mode: PutMode,
    ) -> Result<object_store::Result<()>> {
        let _place = self.enter(path).await?;
        let len = contents.len() as u64;
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.0.store.put_opts(path, contents.into(), options);
        Ok(self.ask(path, len, put).await?.map(drop))
    }

    /// The paths of all objects of a kind, in no order, page by page.
    pub fn list(&self, kind: Kind) -> BoxStream<'static, Result<Path>> {
        let (this, folder) = (self.clone(), kind.folder(&self.0.prefix));
        if let Err(error) = self.check_online(&folder) {
            return futures::stream::iter([Err(error)]).boxed();
        }
        let objects = self.0.store.list(Some(&folder)).map_ok(|object| object.location);
        let state = Some((this, objects, folder));
        futures::stream::unfold(state, |state| async move {
            let (this, mut objects, folder) = state?;
            match this.within(&folder, 0, objects.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(path))) => Some((Ok(path), Some((this, objects, folder)))),
                Ok(Some(Err(error))) => Some((Err(this.refused(error)), None)),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// Where an object lies.
    pub fn path(&self, kind: Kind, key: &[u8]) -> Path {
        kind.path(&self.0.prefix, key)
    }

    /// Returns once all that was put survives a power cut. A store that is asked over the network promises that with its
    /// answer; files are brought to the disk here.
    pub async fn sync(&self) -> Result<()> {
        let Some(folder) = self.0.folder.clone() else { return Ok(()) };
        let endpoint = self.0.endpoint.clone();
        offload(&self.0.endpoint, move || {
            let failed = |error: std::io::Error| Error::unavailable(&endpoint, error);
            let folder = std::fs::File::open(&folder).map_err(failed)?;
            rustix::fs::syncfs(&folder).map_err(|errno| failed(errno.into()))
        })
        .await
    }

    /// Something that the store holds is wrong.
    pub fn corrupt(&self, what: impl fmt::Display) -> Error {
        Error::corrupt(&self.0.endpoint, what.to_string())
    }

    fn refused(&self, error: object_store::Error) -> Error {
        error::refused(&self.0.endpoint, error)
    }

    fn check_online(&self, path: &Path) -> Result<()> {
        match self.0.offline {
            true => Err(Error::Offline {
                endpoint: self.0.endpoint.clone(),
                what: path.as_ref().into(),
            }),
            false => Ok(()),
        }
    }

    async fn enter(&self, path: &Path) -> Result<SemaphorePermit<'_>> {
        self.check_online(path)?;
        self.0.circuit.enter()?;
        self.0.places.acquire().await.map_err(|error| Error::unavailable(&self.0.endpoint, error))
    }

    /// The answer to a request that moves so many bytes. One that does not come is remembered, so that not everybody
    /// waits for the next.
    async fn ask<T>(
        &self,
        path: &Path,
        len: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<object_store::Result<T>> {
        let began = Instant::now();
        let answer = self.within(path, len, request).await;
        let failure = match &answer {
            Err(error) => Some(error.clone()),
            // So it calls what is tried in vain. Of files it tells that one of them cannot be read.
            Ok(Err(error @ object_store::Error::Generic { .. })) if !self.is_near() => {
                Some(Error::unavailable(&self.0.endpoint, error.to_string()))
            }
            Ok(_) => None,
        };
        match failure {
            None => self.0.circuit.answered(),
            Some(error) if self.0.circuit.failed(began, &error) == News::Opened => {
                try_until_it_answers(
                    &self.0,
                    |inner| async move { Bucket(inner).is_answering().await },
                );
            }
            Some(_) => {}
        }
        answer
    }

    /// Asks for something that nobody has.
    async fn is_answering(&self) -> bool {
        let path = self.path(Kind::Blob, &[0; 32]);
        let options = GetOptions { head: true, ..GetOptions::default() };
        let asked = self.0.store.get_opts(&path, options);
        let answers = !matches!(
            self.within(&path, 0, asked).await,
            Ok(Err(object_store::Error::Generic { .. })) | Err(_)
        );
        if answers {
            self.0.circuit.answered();
        }
        answers
    }

    /// The outcome of `work`, which moves so many bytes.
    async fn within<T>(&self, path: &Path, len: u64, work: impl Future<Output = T>) -> Result<T> {
        let patience = self.0.deadline + Duration::from_secs(len / BYTES_PER_SECOND_MIN);
        timeout(patience, work).await.map_err(|_| Error::TimedOut {
            endpoint: self.0.endpoint.clone(),
            what: path.as_ref().into(),
        })
    }

    fn found(&self, answer: object_store::Result<GetResult>) -> Result<Option<GetResult>> {
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.refused(error)),
        }
    }
}
