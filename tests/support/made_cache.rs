//! Binary caches made by hand, so that anything can be wrong with them.
#![allow(dead_code)] // Each binary uses its part.

use std::io::Write as _;

use lazystore::nix::{
    ArchiveFile, Compression, NarHash, NarInfo, NarInfoFile, SecretKey, StorePath,
};
use sha2::{Digest as _, Sha256};

use crate::web::HttpServer;

/// A store path in a cache: what is told of it, and the file with its archive.
#[derive(Debug, Clone)]
pub struct Made {
    pub told: NarInfoFile,
    pub file: Vec<u8>,
}

/// The key that is trusted.
pub fn key() -> SecretKey {
    SecretKey::from_seed("made-1", &[1; 32]).expect("a key")
}

/// The address of a cache that trusts that key.
pub fn address(server: &HttpServer) -> String {
    format!("nix+{}?trusted-public-keys={}", server.url(), key().public())
}

/// Serves what every cache has.
pub fn serve_info(server: &HttpServer) {
    server.put("nix-cache-info", "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Words of an archive, each with its length and filled up with zeros.
pub fn words(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words {
        out.extend_from_slice(&(word.len() as u64).to_le_bytes());
        out.extend_from_slice(word);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}

/// The archive of one file.
pub fn file_archive(contents: &[u8]) -> Vec<u8> {
    words(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents", contents, b")"])
}

impl Made {
    /// A path with this archive, signed by the trusted key.
    pub fn new(name: &str, archive: &[u8], compression: Compression) -> Self {
        let file = compress(compression, archive);
        let digest: [u8; 20] = sha256(name.as_bytes())[..20].try_into().expect("20 bytes");
        let store_path = StorePath::new(digest.into(), name).expect("a legal name");
        let url = format!("nar/{name}.nar{}", compression.suffix());
        let mut made = Made {
            told: NarInfoFile {
                store_path,
                info: NarInfo {
                    nar: NarHash { size: archive.len() as u64, sha256: sha256(archive) },
                    references: Vec::new(),
                    signatures: Vec::new(),
                    deriver: None,
                    ca: None,
                },
                archive: ArchiveFile {
                    url: url.parse().expect("a URL"),
                    compression,
                    sha256: Some(sha256(&file)),
                    size: Some(file.len() as u64),
                },
                system: None,
            },
            file,
        };
        made.sign(&key());
        made
    }

    /// Replaces the signatures.
    pub fn sign(&mut self, key: &SecretKey) {
        let fingerprint = self.told.info.fingerprint(&self.told.store_path);
        self.told.info.signatures = vec![key.sign(fingerprint.as_bytes())];
    }

    /// Nothing is told of the file.
    pub fn without_file_hash(mut self) -> Self {
        (self.told.archive.sha256, self.told.archive.size) = (None, None);
        self
    }

    pub fn narinfo_name(&self) -> String {
        format!("{}.narinfo", self.told.store_path.digest())
    }

    pub fn serve(&self, server: &HttpServer) {
        server.put(&self.narinfo_name(), self.told.to_string());
        server.put(self.told.archive.url.as_str(), self.file.clone());
    }
}

/// Compressed as one stream; Brotli as blocks that are not compressed, for which no encoder is needed.
pub fn compress(compression: Compression, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match compression {
        Compression::None => out.extend_from_slice(contents),
        Compression::Br => {
            for (number, block) in contents.chunks(1 << 16).enumerate() {
                let len = (block.len() - 1) as u32;
                // Before the first block there is a bit for the size of the window.
                let header = match number {
                    0 => len << 4 | 1 << 20,
                    _ => len << 3 | 1 << 19,
                };
                out.extend_from_slice(&header.to_le_bytes()[..3]);
                out.extend_from_slice(block);
            }
            out.push(3);
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::fast());
            encoder.write_all(contents).expect("memory");
            encoder.finish().expect("memory");
        }
        Compression::Gzip => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(&mut out, level);
            encoder.write_all(contents).expect("memory");
            encoder.finish().expect("memory");
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut out);
            encoder.write_all(contents).expect("memory");
            encoder.finish().expect("memory");
        }
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(&mut out, 1);
            encoder.write_all(contents).expect("memory");
            encoder.finish().expect("memory");
        }
        Compression::Zstd => out = zstd::encode_all(contents, 1).expect("memory"),
    }
    out
}
