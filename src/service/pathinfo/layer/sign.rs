//! What is put gets signatures.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    nix::{PathInfo, SecretKey, StorePathDigest},
    service::{
        Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// Adds signatures to what is put.
///
/// You want it where a store is written by those who may say that what they write is right, and read by those who believe
/// only who has signed. A signature that the key has given already stays; a wrong one in its name is replaced.
///
/// It never signs a path info without an archive hash, since that is what is signed, and changes nothing that is read.
pub struct SignedPathInfos {
    inner: Arc<dyn PathInfoService>,
    keys: Vec<SecretKey>,
}

impl SignedPathInfos {
    /// Signs with each of `keys`.
    pub fn new(inner: Arc<dyn PathInfoService>, keys: Vec<SecretKey>) -> Self {
        SignedPathInfos { inner, keys }
    }
}

impl fmt::Debug for SignedPathInfos {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keys.iter().map(SecretKey::name).collect();
        f.debug_struct("SignedPathInfos").field("inner", &self.inner).field("keys", &names).finish()
    }
}

#[async_trait]
impl PathInfoService for SignedPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.inner.get(digest).await
    }

    async fn put(&self, mut path_info: PathInfo) -> Result<PathInfo> {
        for key in &self.keys {
            path_info.sign(key);
        }
        self.inner.put(path_info).await
    }

    fn list(&self) -> PathInfoStream {
        self.inner.list()
    }
}
