//! What is known of a store path.

use super::{
    base32,
    ca::Ca,
    compute::{ContentReferences, content_addressed_path},
    signature::{PublicKey, SecretKey, Signature},
    store_path::{StorePath, StorePathDigest, check_store_path_name},
};
use crate::castore::Node;

/// What the name of a derivation ends with.
pub const DERIVATION_SUFFIX: &str = ".drv";

/// The length and hash of an archive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NarHash {
    /// The length, in bytes.
    pub size: u64,
    /// The SHA-256.
    pub sha256: [u8; 32],
}

/// A store path with its contents and what Nix keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The store path.
    pub store_path: StorePath,
    /// Its contents.
    pub node: Node,
    /// The rest.
    pub details: Details,
}

/// How much is known besides the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Details {
    /// Only which store paths the contents mention, without their names.
    References(Vec<StorePathDigest>),
    /// All that Nix keeps.
    NarInfo(NarInfo),
}

/// What Nix keeps of a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The length and hash of the archive.
    pub nar: NarHash,
    /// The store paths that the contents mention. May include the path itself.
    pub references: Vec<StorePath>,
    /// Who vouches for it, each to be verified.
    pub signatures: Vec<Signature>,
    /// The derivation that built it. Its name ends with [`DERIVATION_SUFFIX`].
    pub deriver: Option<StorePath>,
    /// What makes it content-addressed, if it is.
    pub ca: Option<Ca>,
}

/// Which rule a path info breaks that its types do not hold already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathInfoError {
    /// The deriver is no derivation. The protocol could not carry it: it leaves the suffix out.
    #[error("the deriver {0} is no derivation: its name does not end with {DERIVATION_SUFFIX}")]
    Deriver(StorePath),
}

impl std::fmt::Debug for NarHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, sha256:{}", self.size, base32::encode(&self.sha256))
    }
}

impl PathInfo {
    /// Checks what the types do not hold: to be called by a store before it accepts one.
    pub fn check(&self) -> Result<(), PathInfoError> {
        match self.nar_info().and_then(|nar_info| nar_info.deriver.as_ref()) {
            Some(deriver) if derivation_stem(deriver).is_none() => {
                Err(PathInfoError::Deriver(deriver.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// All that Nix keeps of it, if that is known.
    pub fn nar_info(&self) -> Option<&NarInfo> {
        match &self.details {
            Details::NarInfo(nar_info) => Some(nar_info),
            Details::References(_) => None,
        }
    }

    /// The digests of the store paths that the contents mention.
    pub fn references(&self) -> impl Iterator<Item = StorePathDigest> {
        let (digests, paths) = match &self.details {
            Details::References(digests) => (&digests[..], &[][..]),
            Details::NarInfo(nar_info) => (&[][..], &nar_info.references[..]),
        };
        digests.iter().copied().chain(paths.iter().map(StorePath::digest))
    }

    /// What is signed: see [`NarInfo::fingerprint`]. `None` as long as the archive's hash is unknown.
    pub fn fingerprint(&self) -> Option<String> {
        self.nar_info().map(|nar_info| nar_info.fingerprint(&self.store_path))
    }

    /// Adds the signature of `key`, in place of a wrong one in its name. `false` if it is there already, or the archive's
    /// hash is unknown.
    pub fn sign(&mut self, key: &SecretKey) -> bool {
        let Details::NarInfo(info) = &mut self.details else { return false };
        if !info.valid_signatures(&self.store_path, &[key.public()]).is_empty() {
            return false;
        }
        info.signatures.retain(|signature| signature.key_name() != key.name());
        info.signatures.push(key.sign(info.fingerprint(&self.store_path).as_bytes()));
        true
    }

    /// The signatures that one of `keys` made.
    pub fn valid_signatures(&self, keys: &[PublicKey]) -> Vec<&Signature> {
        match self.nar_info() {
            Some(nar_info) => nar_info.valid_signatures(&self.store_path, keys),
            None => Vec::new(),
        }
    }
}

impl NarInfo {
    /// The text that is signed: the path, the hash and size of its archive, and its references, sorted, each once.
    pub fn fingerprint(&self, store_path: &StorePath) -> String {
        let mut references: Vec<_> = self.references.iter().collect();
        references.sort_unstable();
        references.dedup();
        let references: Vec<_> = references.into_iter().map(StorePath::absolute).collect();
        format!(
            "1;{};sha256:{};{};{}",
            store_path.absolute(),
            base32::encode(&self.nar.sha256),
            self.nar.size,
            references.join(",")
        )
    }

    /// The signatures of this, as what is known of `store_path`, that one of `keys` made.
    pub fn valid_signatures(&self, store_path: &StorePath, keys: &[PublicKey]) -> Vec<&Signature> {
        let fingerprint = self.fingerprint(store_path);
        let valid = |signature: &&Signature| {
            keys.iter().any(|key| key.verify(fingerprint.as_bytes(), signature))
        };
        self.signatures.iter().filter(valid).collect()
    }

    /// Whether the content address gives the very name `store_path`, with these references. Whoever then finds that
    /// the contents have the hash in the address needs no signature; until then this says nothing about them.
    pub fn is_addressed_by_content(&self, store_path: &StorePath) -> bool {
        let itself = self.references.contains(store_path);
        let others: Vec<_> =
            self.references.iter().filter(|path| *path != store_path).cloned().collect();
        let references = ContentReferences { others: &others, itself };
        self.ca.as_ref().is_some_and(|ca| {
            content_addressed_path(store_path.name(), ca, references).as_ref() == Ok(store_path)
        })
    }
}

/// The name of a derivation without its suffix. `None` if it has none, or would then be no name.
pub fn derivation_stem(deriver: &StorePath) -> Option<&str> {
    let stem = deriver.name().strip_suffix(DERIVATION_SUFFIX)?;
    check_store_path_name(stem.as_bytes()).ok()
}

#[cfg(test)]
#[path = "path_info_tests.rs"]
mod tests;
