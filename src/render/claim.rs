//! Whether contents are what their content address says.

use std::{io::Write as _, sync::Arc};

use futures::StreamExt as _;

use super::{RenderError, write_nar};
use crate::{
    castore::Node,
    nix::{ClaimCheck, ContentClaim, NixHash, NixHasher},
    service::{blob::BlobService, directory::DirectoryService},
};

/// Whether the contents `node` are as `claim` says, found by hashing them. For the most frequent claim, the SHA-256 of
/// the archive, that can be spared by whoever knows it: see [`ContentClaim::holds_for`].
pub async fn is_as_claimed(
    blobs: &Arc<dyn BlobService>,
    directories: &Arc<dyn DirectoryService>,
    node: &Node,
    claim: &ContentClaim,
) -> Result<bool, RenderError> {
    match claim.check() {
        ClaimCheck::Archive(hasher) => {
            Ok(write_nar(blobs, directories, node, hasher).await?.is_so())
        }
        ClaimCheck::File(expected) => is_file(&**blobs, node, &expected).await,
    }
}

/// Whether `node` is a file that is not executable, whose bytes have this hash.
async fn is_file(
    blobs: &dyn BlobService,
    node: &Node,
    expected: &NixHash,
) -> Result<bool, RenderError> {
    let Node::File { digest, size, executable: false } = node else { return Ok(false) };
    let pieces = blobs.read_sized(digest, *size, 0..u64::MAX).await?;
    let mut pieces = pieces.ok_or_else(|| RenderError::Missing(format!("blob {digest}")))?;
    let mut hasher = NixHasher::new(expected.algorithm());
    let mut len = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        len += piece.len() as u64;
        hasher.write_all(&piece).expect("a hasher takes everything");
    }
    Ok(len == *size && hasher.finish() == *expected)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        castore::{Digest, Directory, Name, SizeRule},
        nix::{HashAlgorithm, SelfReferenceHasher, StorePathDigest},
        service::{blob::backend::MemoryBlobs, directory::backend::MemoryDirectories},
    };

    fn hash(algorithm: HashAlgorithm, bytes: &[u8]) -> NixHash {
        let mut hasher = NixHasher::new(algorithm);
        hasher.write_all(bytes).expect("it takes everything");
        hasher.finish()
    }

    fn memory() -> (Arc<dyn BlobService>, Arc<dyn DirectoryService>) {
        (Arc::new(MemoryBlobs::new()), Arc::new(MemoryDirectories::new()))
    }

    #[tokio::test]
    async fn each_kind_of_claim_is_told_from_a_false_one() {
        let (blobs, directories) = memory();
        let own = StorePathDigest::from([7; 20]);
        let contents = Bytes::from(format!("I am in /nix/store/{own}-x"));
        let digest = blobs.put(contents.clone()).await.expect("memory").digest;
        let size = contents.len() as u64;
        let file = Node::File { digest, size, executable: false };
        let script = Node::File { digest, size, executable: true };
        let mut builder = Directory::builder();
        builder.add(Name::try_from(Bytes::from_static(b"x")).expect("a name"), script.clone());
        let directory = builder.build().expect("legal");
        let tree = directory.node(SizeRule::Documented);
        directories.put(directory.into()).await.expect("memory");
        let claimed = async |node: &Node, claim| {
            is_as_claimed(&blobs, &directories, node, &claim).await.expect("all is there")
        };

        use HashAlgorithm::*;
        for algorithm in [Md5, Sha1, Sha256, Sha512] {
            let flat = ContentClaim::File(hash(algorithm, &contents));
            assert!(claimed(&file, flat).await);
            assert!(!claimed(&script, flat).await && !claimed(&tree, flat).await);
            assert!(!claimed(&file, ContentClaim::File(hash(algorithm, b"x"))).await);
            for node in [&file, &script, &tree] {
                let nar = write_nar(&blobs, &directories, node, Vec::new()).await.expect("there");
                assert!(claimed(node, ContentClaim::Archive(hash(algorithm, &nar))).await);
                assert!(!claimed(node, ContentClaim::Archive(hash(algorithm, b"x"))).await);
            }
        }
        let mut hasher = SelfReferenceHasher::new(own);
        let nar = write_nar(&blobs, &directories, &tree, Vec::new()).await.expect("there");
        hasher.write_all(&nar).expect("it takes everything");
        let sha256 = hasher.finish();
        let claim = |digest| ContentClaim::ArchiveBesidesItself { sha256, digest };
        assert!(claimed(&tree, claim(own)).await);
        assert!(!claimed(&tree, claim(StorePathDigest::from([8; 20]))).await);
        assert!(!claimed(&file, claim(own)).await);
    }

    #[tokio::test]
    async fn contents_that_are_missing_are_an_error() {
        let node = Node::File { digest: Digest::of(b"x"), size: 1, executable: false };
        let claim = ContentClaim::File(hash(HashAlgorithm::Sha256, b"x"));
        let (blobs, directories) = memory();
        let found = is_as_claimed(&blobs, &directories, &node, &claim).await;
        assert!(matches!(found, Err(RenderError::Missing(_))));
    }
}
