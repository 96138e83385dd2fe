//! What has to be found of contents so that their address vouches for them.

use std::io::{self, Write};

use super::{
    ca::Ca,
    hash::NixHash,
    hasher::NixHasher,
    path_info::{NarHash, NarInfo},
    self_references::SelfReferenceHasher,
    store_path::{StorePath, StorePathDigest},
};

/// What a content address that gives the very name of a store path says of the contents. Whoever has found that it
/// is so needs no signature: the name, the contents and the references belong together then. Of all else that is told
/// of the path (the deriver), it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentClaim {
    /// Their archive has this hash.
    Archive(NixHash),
    /// Their archive has this SHA-256 where it is left out what it says of itself: see
    /// [`SelfReferenceHasher`](super::SelfReferenceHasher).
    ArchiveBesidesItself {
        /// The hash.
        sha256: [u8; 32],
        /// What is left out: the digest of the store path, as text.
        digest: StorePathDigest,
    },
    /// They are a file that is not executable, and its bytes have this hash.
    File(NixHash),
}

impl ContentClaim {
    /// Whether it is so, as far as the SHA-256 of the archive tells, which must have been computed and not only
    /// read somewhere. `None` if the contents have to be hashed in another way: see
    /// [`render::is_as_claimed`](crate::render::is_as_claimed).
    pub fn holds_for(&self, nar: &NarHash) -> Option<bool> {
        match self {
            ContentClaim::Archive(NixHash::Sha256(sha256)) => Some(*sha256 == nar.sha256),
            ContentClaim::Archive(_)
            | ContentClaim::ArchiveBesidesItself { .. }
            | ContentClaim::File(_) => None,
        }
    }
}

/// How to find out whether a claim is so.
#[derive(Debug)]
pub enum ClaimCheck {
    /// By writing the archive to this.
    Archive(Box<ClaimHasher>),
    /// By hashing the bytes of a file that is not executable, which must give this.
    File(NixHash),
}

/// Takes the archive that a claim is about and keeps its hash only.
#[derive(Debug)]
pub enum ClaimHasher {
    /// Of the archive as it is, and what that should be.
    Archive(NixHasher, NixHash),
    /// Of the archive without what it says of itself, and what that should be.
    BesidesItself(SelfReferenceHasher, [u8; 32]),
}

impl ContentClaim {
    /// How to find out whether it is so.
    pub fn check(&self) -> ClaimCheck {
        ClaimCheck::Archive(Box::new(match self {
            ContentClaim::Archive(expected) => {
                ClaimHasher::Archive(NixHasher::new(expected.algorithm()), *expected)
            }
            ContentClaim::ArchiveBesidesItself { sha256, digest } => {
                ClaimHasher::BesidesItself(SelfReferenceHasher::new(*digest), *sha256)
            }
            ContentClaim::File(expected) => return ClaimCheck::File(*expected),
        }))
    }
}

impl ClaimHasher {
    /// Whether what was written is as was claimed.
    pub fn is_so(self) -> bool {
        match self {
            ClaimHasher::Archive(hasher, expected) => hasher.finish() == expected,
            ClaimHasher::BesidesItself(hasher, expected) => hasher.finish() == expected,
        }
    }
}

impl Write for ClaimHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            ClaimHasher::Archive(hasher, _) => hasher.write(bytes),
            ClaimHasher::BesidesItself(hasher, _) => hasher.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NarInfo {
    /// What the content address says of the contents of `store_path`. `None` if there is none, or it gives another
    /// name with these references: then only a signature can vouch for the path.
    pub fn content_claim(&self, store_path: &StorePath) -> Option<ContentClaim> {
        let ca = self.ca.filter(|_| self.is_addressed_by_content(store_path))?;
        Some(match ca {
            Ca::Text(sha256) => ContentClaim::File(NixHash::Sha256(sha256)),
            Ca::Flat(hash) => ContentClaim::File(hash),
            Ca::Nar(NixHash::Sha256(sha256)) if self.references.contains(store_path) => {
                ContentClaim::ArchiveBesidesItself { sha256, digest: store_path.digest() }
            }
            Ca::Nar(hash) => ContentClaim::Archive(hash),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "0jczh3s8axnp7dm6rl0yqb5lvs4jmvjj7jn3qmb02sa7kxb4yr22";

    fn nar_info(ca: Option<&str>, references: &[&str]) -> NarInfo {
        NarInfo {
            nar: NarHash { size: 1, sha256: [7; 32] },
            references: references.iter().map(|path| path.parse().expect("a path")).collect(),
            signatures: Vec::new(),
            deriver: None,
            ca: ca.map(|ca| ca.parse().expect("a content address")),
        }
    }

    #[test]
    fn the_claim_is_that_of_the_address() {
        let hello: StorePath = "c4dlvyi5zg15dffrnmsi6ix40cllfac7-hello".parse().expect("a path");
        let info = nar_info(Some(&format!("fixed:r:sha256:{SHA256}")), &[]);
        let Some(claim @ ContentClaim::Archive(NixHash::Sha256(sha256))) =
            info.content_claim(&hello)
        else {
            panic!("{:?}", info.content_claim(&hello));
        };
        assert_eq!(claim.holds_for(&NarHash { size: 9, sha256 }), Some(true));
        assert_eq!(claim.holds_for(&info.nar), Some(false));

        let md5: StorePath = "rham87ff45wz573288z971qy2wsx0wqm-plain.txt".parse().expect("a path");
        let info = nar_info(Some("fixed:md5:b1946ac92492d2347c6235b4d2611184"), &[]);
        let claim = info.content_claim(&md5).expect("it is addressed by content");
        assert!(matches!(claim, ContentClaim::File(NixHash::Md5(_))), "{claim:?}");
        assert_eq!(claim.holds_for(&info.nar), None);

        let sha1: StorePath = "rkqnxb0i03xmx69ji6zc1d2cf04zyl8x-plain.txt".parse().expect("a path");
        let info = nar_info(Some("fixed:r:sha1:0deb52c2735eb38d360f976b7b3823c4ad05cce7"), &[]);
        let claim = info.content_claim(&sha1).expect("it is addressed by content");
        assert!(matches!(claim, ContentClaim::Archive(NixHash::Sha1(_))), "{claim:?}");
        assert_eq!(claim.holds_for(&info.nar), None);

        let text = "q3laishhmk84vl44j1973qpzkyhmr90c-text";
        let text: StorePath = text.parse().expect("a path");
        let ca = "text:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq";
        let claim = nar_info(Some(ca), &[]).content_claim(&text);
        assert!(matches!(claim, Some(ContentClaim::File(NixHash::Sha256(_)))), "{claim:?}");
    }

    #[test]
    fn an_address_that_gives_another_name_claims_nothing() {
        let hello: StorePath = "c4dlvyi5zg15dffrnmsi6ix40cllfac7-hello".parse().expect("a path");
        let ca = format!("fixed:r:sha256:{SHA256}");
        let other = "q3laishhmk84vl44j1973qpzkyhmr90c-text";
        assert_eq!(nar_info(None, &[]).content_claim(&hello), None);
        assert_eq!(nar_info(Some(&ca), &[other]).content_claim(&hello), None);
        assert_eq!(nar_info(Some(&ca), &[&hello.to_string()]).content_claim(&hello), None);
        let flat = format!("fixed:sha256:{SHA256}");
        assert_eq!(nar_info(Some(&flat), &[]).content_claim(&hello), None);
    }
}
