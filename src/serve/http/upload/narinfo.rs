//! Takes a narinfo, if all it says is true as far as that can be told.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::StatusCode,
    response::Response,
};
use tokio::time::timeout;

use super::{
    super::{
        BinaryCache,
        answer::respond,
        error::Error,
        route::{NarName, Route},
    },
    File, Uploads,
};
use crate::{
    castore::Node,
    nix::{
        ArchiveFile, Details, NARINFO_LEN_MAX, NARINFO_SIGNATURES_MAX, NarInfo, NarInfoFile,
        NixHash, PathInfo, StorePath, StorePathDigest,
    },
    observe::event,
    render::is_as_claimed,
};

/// How long a path waits for the references that others are bringing.
const REFERENCES_WAIT: Duration = Duration::from_secs(10);

/// How many missing references are named.
const MISSING_NAMED_MAX: usize = 5;

impl BinaryCache {
    /// Takes the narinfo of the store path with this digest.
    pub(in super::super) async fn take_narinfo(
        &self,
        uploads: &Uploads,
        digest: &StorePathDigest,
        body: Body,
    ) -> Result<Response, Error> {
        let text = to_bytes(body, NARINFO_LEN_MAX).await.map_err(|_| Error::NarInfoLength)?;
        let narinfo = NarInfoFile::parse(&text)?;
        let store_path = &narinfo.store_path;
        if store_path.digest() != *digest {
            return Err(Error::Unfit(format!("the narinfo is that of {store_path}")));
        }
        let (node, file) = self.archive_of(uploads, &narinfo).await?;
        self.check_content_address(&node, store_path, &narinfo.info).await?;
        self.wait_for_references(uploads, store_path, &narinfo.info.references).await?;
        let info = self.with_known_signatures(&node, store_path, narinfo.info.clone()).await?;
        // Its contents first, so that a power cut leaves no path without them.
        self.stores.blobs.sync().await?;
        self.stores.directories.sync().await?;
        let details = Details::NarInfo(info);
        let path_info = PathInfo { store_path: store_path.clone(), node, details };
        self.stores.path_infos.put(path_info).await?;
        tracing::info!(event = event::STORE_PATH_ADDED, %store_path, "took a store path");
        if let Some(file) = file {
            file.is_named.store(true, Relaxed);
        }
        uploads.stored.send_modify(|count| *count += 1);
        Ok(respond(StatusCode::CREATED, Body::empty()))
    }

    /// What the archive holds that a narinfo names: it was brought before, or is one that is served here.
    async fn archive_of(
        &self,
        uploads: &Uploads,
        narinfo: &NarInfoFile,
    ) -> Result<(Node, Option<Arc<File>>), Error> {
        let url = narinfo.archive.url.as_str();
        if let Some(file) = uploads.file(url) {
            check_fit(narinfo, &file)?;
            return Ok((file.node.clone(), Some(file)));
        }
        let digest = narinfo.store_path.digest();
        if let Some(Route::Nar(NarName { store_path, sha256, .. })) =
            Route::parse(&format!("/{url}"))
            && store_path == digest
            && let Some(known) = self.stores.path_infos.get(&digest).await?
            && let Some(info) = known.nar_info()
            && info.nar.sha256 == sha256
            && info.nar == narinfo.info.nar
        {
            return Ok((known.node, None));
        }
        Err(Error::NoArchive(url.to_owned()))
    }

    /// Nix asks for no signature of what is addressed by its contents, so that must be true.
    async fn check_content_address(
        &self,
        node: &Node,
        store_path: &StorePath,
        info: &NarInfo,
    ) -> Result<(), Error> {
        let Some(ca) = info.ca else { return Ok(()) };
        let is_true = match info.content_claim(store_path) {
            None => false,
            Some(claim) => match claim.holds_for(&info.nar) {
                Some(holds) => holds,
                None => {
                    let (blobs, directories) = (&self.stores.blobs, &self.stores.directories);
                    is_as_claimed(blobs, directories, node, &claim).await?
                }
            },
        };
        match is_true {
            true => Ok(()),
            false => Err(Error::Unfit(format!("{store_path} is not addressed by {ca}"))),
        }
    }

    /// Returns once all references are here, but the one to itself.
    async fn wait_for_references(
        &self,
        uploads: &Uploads,
        store_path: &StorePath,
        references: &[StorePath],
    ) -> Result<(), Error> {
        let mut missing: Vec<_> = references.iter().filter(|path| *path != store_path).collect();
        let mut stored = uploads.stored.subscribe();
        let all_come = async {
            loop {
                stored.mark_unchanged();
                let mut still = Vec::new();
                for path in &missing {
                    let found = self.stores.path_infos.get(&path.digest()).await?;
                    if found.is_none_or(|found| found.store_path != **path) {
                        still.push(*path);
                    }
                }
                missing = still;
                // The sender lives as long as the cache.
                if missing.is_empty() || stored.changed().await.is_err() {
                    return Ok::<_, Error>(());
                }
            }
        };
        match timeout(REFERENCES_WAIT, all_come).await {
            Ok(result) => result,
            Err(_) => Err(missing_references(store_path, &missing)),
        }
    }

    /// What is known of the path besides, if it is here with the same archive.
    async fn with_known_signatures(
        &self,
        node: &Node,
        store_path: &StorePath,
        mut info: NarInfo,
    ) -> Result<NarInfo, Error> {
        let Some(known) = self.stores.path_infos.get(&store_path.digest()).await? else {
            return Ok(info);
        };
        if known.store_path != *store_path || known.node != *node {
            return Err(Error::Taken(known.store_path));
        }
        let Details::NarInfo(known) = known.details else { return Ok(info) };
        for signature in known.signatures {
            if info.signatures.len() < NARINFO_SIGNATURES_MAX
                && !info.signatures.contains(&signature)
            {
                info.signatures.push(signature);
            }
        }
        Ok(info)
    }
}

fn missing_references(store_path: &StorePath, missing: &[&StorePath]) -> Error {
    let mut names: Vec<_> =
        missing.iter().take(MISSING_NAMED_MAX).map(|path| path.to_string()).collect();
    if let Some(more @ 1..) = missing.len().checked_sub(MISSING_NAMED_MAX) {
        names.push(format!("{more} more"));
    }
    Error::References { store_path: store_path.clone(), missing: names.join(", ") }
}

/// Whether a narinfo tells of the archive that was brought.
fn check_fit(narinfo: &NarInfoFile, file: &File) -> Result<(), Error> {
    let ArchiveFile { compression, sha256, size, .. } = &narinfo.archive;
    let differs = |what, told: String, found: String| {
        Err(Error::Unfit(format!("the narinfo says {what} {told}, and what came has {found}")))
    };
    let hash = |sha256: &[u8; 32]| NixHash::Sha256(*sha256).to_string();
    if narinfo.info.nar != file.nar {
        let (told, found) = (format!("{:?}", narinfo.info.nar), format!("{:?}", file.nar));
        return differs("the archive has", told, found);
    }
    if *compression != file.compression {
        return differs("compression", compression.to_string(), file.compression.to_string());
    }
    if let Some(told) = sha256.filter(|told| *told != file.sha256) {
        return differs("FileHash", hash(&told), hash(&file.sha256));
    }
    if let Some(told) = size.filter(|told| *told != file.len) {
        return differs("FileSize", told.to_string(), file.len.to_string());
    }
    Ok(())
}
