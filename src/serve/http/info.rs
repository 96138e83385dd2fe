//! What is told of store paths.

use super::{BinaryCache, error::Error, route::NarName};
use crate::{
    nix::{
        ArchiveFile, Compression, Details, NarInfo, NarInfoFile, PathInfo, StorePath,
        StorePathDigest,
    },
    service,
};

impl BinaryCache {
    /// What is known of a store path, with all that Nix wants to know.
    pub(super) async fn known(
        &self,
        digest: &StorePathDigest,
    ) -> Result<(PathInfo, NarInfo), Error> {
        let absent = || Error::Absent(format!("the store path {digest}-…"));
        let mut path_info = self.stores.path_infos.get(digest).await?.ok_or_else(absent)?;
        let info = match &mut path_info.details {
            Details::NarInfo(info) => info.clone(),
            Details::References(digests) => {
                let references = self.with_names(digests).await?.ok_or_else(absent)?;
                let nar = self.stores.nars.calculate_nar(&path_info.node).await?;
                NarInfo { nar, references, signatures: Vec::new(), deriver: None, ca: None }
            }
        };
        Ok((path_info, info))
    }

    /// The store paths with these digests. `None` if one of them is not here, and so nobody knows its name.
    async fn with_names(
        &self,
        digests: &[StorePathDigest],
    ) -> service::Result<Option<Vec<StorePath>>> {
        let mut references = Vec::with_capacity(digests.len());
        for digest in digests {
            let Some(path_info) = self.stores.path_infos.get(digest).await? else {
                tracing::debug!(%digest, "a path is not served: it refers to one that is not here");
                return Ok(None);
            };
            references.push(path_info.store_path);
        }
        Ok(Some(references))
    }

    /// The narinfo of a store path: with the signatures that came with it, and our own.
    pub(super) async fn narinfo(&self, digest: &StorePathDigest) -> Result<NarInfoFile, Error> {
        let (path_info, info) = self.known(digest).await?;
        let nar = info.nar;
        let name = NarName { store_path: *digest, sha256: nar.sha256, is_zstd: false };
        let archive = ArchiveFile {
            url: name.url().parse().expect("base 32, a hyphen and dots make a legal URL"),
            compression: Compression::None,
            sha256: Some(nar.sha256),
            size: Some(nar.size),
        };
        let store_path = path_info.store_path;
        let mut file = NarInfoFile { store_path, info, archive, system: None };
        for key in self.options.keys.load().iter() {
            if file.valid_signatures(&[key.public()]).is_empty() {
                let fingerprint = file.info.fingerprint(&file.store_path);
                file.info.signatures.push(key.sign(fingerprint.as_bytes()));
            }
        }
        Ok(file)
    }
}
