//! A store in memory that counts what it is asked, for tests.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};

use super::{Bucket, BucketOptions, Kind};

/// What a store was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked {
    /// For objects.
    pub(crate) gets: u64,
    /// Whether there are objects.
    pub(crate) heads: u64,
    /// To take objects.
    pub(crate) puts: u64,
    /// How many bytes those had.
    pub(crate) put_bytes: u64,
}

impl Asked {
    /// All requests.
    pub(crate) fn requests(&self) -> u64 {
        self.gets + self.heads + self.puts
    }
}

/// Counts. May not know how to create what is not there.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) memory: InMemory,
    creates_not: bool,
    gets: AtomicU64,
    heads: AtomicU64,
    puts: AtomicU64,
    put_bytes: AtomicU64,
}

impl Counted {
    /// A bucket over a new one.
    pub(crate) fn bucket() -> (Arc<Self>, Bucket) {
        Self::default().into_bucket()
    }

    /// A bucket over a new one that only knows how to replace.
    pub(crate) fn without_create() -> (Arc<Self>, Bucket) {
        Counted { creates_not: true, ..Counted::default() }.into_bucket()
    }

    fn into_bucket(self) -> (Arc<Self>, Bucket) {
        let store = Arc::new(self);
        let bucket = store.again();
        (store, bucket)
    }

    /// The same as somebody else sees it.
    pub(crate) fn again(self: &Arc<Self>) -> Bucket {
        let prefix = Path::parse("some/where").expect("legal");
        Bucket::new("test", self.clone(), prefix, BucketOptions::default())
    }

    /// What it was asked since it was asked this.
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            gets: self.gets.swap(0, Relaxed),
            heads: self.heads.swap(0, Relaxed),
            puts: self.puts.swap(0, Relaxed),
            put_bytes: self.put_bytes.swap(0, Relaxed),
        }
    }

    /// Puts what somebody else may have put there.
    pub(crate) async fn place(&self, bucket: &Bucket, kind: Kind, key: &[u8], object: Vec<u8>) {
        self.memory.put(&bucket.path(kind, key), object.into()).await.expect("it works");
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counted")
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if self.creates_not && options.mode == PutMode::Create {
            let (operation, implementer) = ("create".to_owned(), "test".to_owned());
            return Err(object_store::Error::NotImplemented { operation, implementer });
        }
        self.puts.fetch_add(1, Relaxed);
        self.put_bytes.fetch_add(payload.content_length() as u64, Relaxed);
        self.memory.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let count = if options.head { &self.heads } else { &self.gets };
        count.fetch_add(1, Relaxed);
        self.memory.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.memory.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}
