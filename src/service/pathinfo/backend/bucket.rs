//! Path infos of a bucket.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;

use crate::{
    nix::{PathInfo, StorePathDigest},
    proto,
    service::{
        Error, Result,
        bucket::{Bucket, Kind, path_info_digest},
        pathinfo::{PathInfoService, PathInfoStream},
        seal::{SealedIn, seal, unseal},
    },
};

/// The longest object that is read or written, in bytes: a path info with some 50,000 references.
const OBJECT_LEN_MAX: u64 = 4 << 20;

/// How many path infos a listing reads at once.
const LISTED_AT_ONCE_MAX: usize = 32;

/// Keeps path infos in a bucket, each in an object of its own: the message that the protocol sends, behind a seal, since no
/// digest covers it. One that is damaged, or lies in the place of another, is corrupt and not absent.
///
/// A listing holds a page of names and some path infos; it takes a request a path info besides those for the names.
#[derive(Debug, Clone)]
pub struct BucketPathInfos {
    bucket: Bucket,
}

impl BucketPathInfos {
    /// The path infos of `bucket`.
    pub fn new(bucket: Bucket) -> Self {
        BucketPathInfos { bucket }
    }

    fn decode(&self, digest: &StorePathDigest, object: Bytes) -> Result<PathInfo> {
        let corrupt = |what: String| self.bucket.corrupt(format!("path info {digest}: {what}"));
        let Some(message) = unseal(SealedIn::Bucket, digest, object.into()) else {
            return Err(corrupt("its seal is broken".to_owned()));
        };
        let message = proto::store::PathInfo::decode(Bytes::from(message))
            .map_err(|error| corrupt(error.to_string()))?;
        let path_info = PathInfo::try_from(message).map_err(|error| corrupt(error.to_string()))?;
        match path_info.store_path.digest() == *digest {
            true => Ok(path_info),
            false => Err(corrupt(format!("it is about {}", path_info.store_path))),
        }
    }
}

#[async_trait]
impl PathInfoService for BucketPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let path = self.bucket.path(Kind::PathInfo, digest.as_bytes());
        let object = self.bucket.get(&path, OBJECT_LEN_MAX).await?;
        object.map(|object| self.decode(digest, object)).transpose()
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        path_info.check().map_err(Error::invalid)?;
        let digest = path_info.store_path.digest();
        let message = proto::store::PathInfo::from(&path_info).encode_to_vec();
        let object = seal(SealedIn::Bucket, &digest, &message);
        if object.len() as u64 > OBJECT_LEN_MAX {
            let (path, len) = (&path_info.store_path, object.len());
            let what =
                format!("the path info of {path} has {len} bytes, more than {OBJECT_LEN_MAX}");
            return Err(Error::invalid(what));
        }
        let path = self.bucket.path(Kind::PathInfo, digest.as_bytes());
        self.bucket.put(&path, object.into()).await?;
        self.bucket.sync().await?;
        Ok(path_info)
    }

    fn list(&self) -> PathInfoStream {
        let this = self.clone();
        let digests = self.bucket.list(Kind::PathInfo).try_filter_map(|path| async move {
            let digest = path_info_digest(&path);
            if digest.is_none() {
                tracing::debug!(%path, "no path info is named like this");
            }
            Ok(digest)
        });
        let path_infos = digests.map(move |digest| {
            let this = this.clone();
            async move { this.get(&digest?).await }
        });
        // One may be gone by now.
        let found =
            path_infos.buffered(LISTED_AT_ONCE_MAX).try_filter_map(|found| async { Ok(found) });
        // Nothing comes after an error.
        let state = Some(found.boxed());
        stream::unfold(state, |state| async move {
            let mut found = state?;
            let next = found.next().await?;
            let goes_on = next.is_ok();
            Some((next, goes_on.then_some(found)))
        })
        .boxed()
    }
}
