//! What tells that a path info is as it was put. No digest covers one.

use crate::nix::StorePathDigest;

/// The length of a seal, in bytes. It stands before what it covers.
const SEAL_LEN: usize = 32;

/// Where what is sealed is kept: a seal of one place is none of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum SealedIn {
    /// The store directory of a cache.
    Cache,
    /// A bucket.
    #[cfg(feature = "cloud")]
    Bucket,
}

fn seal_of(place: SealedIn, digest: &StorePathDigest, message: &[u8]) -> [u8; SEAL_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key(match place {
        SealedIn::Cache => "lazystore 2026-11 path info in a cache",
        #[cfg(feature = "cloud")]
        SealedIn::Bucket => "lazystore 2026-11 path info in a bucket",
    });
    hasher.update(digest.as_bytes()).update(message);
    hasher.finalize().into()
}

/// What is kept of a path info.
pub(in crate::service) fn seal(
    place: SealedIn,
    digest: &StorePathDigest,
    message: &[u8],
) -> Vec<u8> {
    [&seal_of(place, digest, message), message].concat()
}

/// What was sealed, unless it was damaged since.
pub(in crate::service) fn unseal(
    place: SealedIn,
    digest: &StorePathDigest,
    mut sealed: Vec<u8>,
) -> Option<Vec<u8>> {
    let message = sealed.split_off(sealed.len().min(SEAL_LEN));
    (sealed == seal_of(place, digest, &message)).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_breaks_wherever_it_is_touched() {
        let digest = StorePathDigest::from([7; 20]);
        let sealed = seal(SealedIn::Cache, &digest, b"message");
        assert_eq!(
            unseal(SealedIn::Cache, &digest, sealed.clone()).as_deref(),
            Some(&b"message"[..])
        );
        assert_eq!(unseal(SealedIn::Cache, &StorePathDigest::from([8; 20]), sealed.clone()), None);
        #[cfg(feature = "cloud")]
        assert_eq!(unseal(SealedIn::Bucket, &digest, sealed.clone()), None);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(SealedIn::Cache, &digest, damaged), None, "{bit}");
        }
        for len in 0..sealed.len() {
            assert_eq!(unseal(SealedIn::Cache, &digest, sealed[..len].to_vec()), None, "{len}");
        }
    }
}
