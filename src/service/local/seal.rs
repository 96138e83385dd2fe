//! What tells that a path info in a cache is as it was put. No digest covers one.

use crate::nix::StorePathDigest;

/// The length of a seal, in bytes. It stands before what it covers.
const SEAL_LEN: usize = 32;

fn seal_of(digest: &StorePathDigest, message: &[u8]) -> [u8; SEAL_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key("lazystore 2026-11 path info in a cache");
    hasher.update(digest.as_bytes()).update(message);
    hasher.finalize().into()
}

/// What is kept of a path info.
pub(in crate::service) fn seal(digest: &StorePathDigest, message: &[u8]) -> Vec<u8> {
    [&seal_of(digest, message), message].concat()
}

/// What was sealed, unless it was damaged since.
pub(in crate::service) fn unseal(digest: &StorePathDigest, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let message = sealed.split_off(sealed.len().min(SEAL_LEN));
    (sealed == seal_of(digest, &message)).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_breaks_wherever_it_is_touched() {
        let digest = StorePathDigest::from([7; 20]);
        let sealed = seal(&digest, b"message");
        assert_eq!(unseal(&digest, sealed.clone()).as_deref(), Some(&b"message"[..]));
        assert_eq!(unseal(&StorePathDigest::from([8; 20]), sealed.clone()), None);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&digest, damaged), None, "{bit}");
        }
        for len in 0..sealed.len() {
            assert_eq!(unseal(&digest, sealed[..len].to_vec()), None, "{len}");
        }
    }
}
