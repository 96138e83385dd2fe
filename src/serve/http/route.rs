//! What a path of a URL names.

use crate::nix::{StorePath, StorePathDigest, base32};

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// What this cache is.
    CacheInfo,
    /// What is known of a store path.
    NarInfo(StorePathDigest),
    /// The listing of its archive.
    Listing(StorePathDigest),
    /// Its archive.
    Nar(NarName),
    /// A file that somebody has brought: its URL below the cache's.
    File(String),
    /// The log of a build.
    Log(StorePath),
    /// Numbers for those who run this.
    Metrics,
    /// Whether this works.
    Health,
}

/// The name of an archive: of which store path it is, and what it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NarName {
    pub(super) store_path: StorePathDigest,
    pub(super) sha256: [u8; 32],
    /// Whether it is asked for as a zstd file.
    pub(super) is_zstd: bool,
}

impl Route {
    /// Takes a path apart, which begins with a slash. `None` if nothing here has such a name.
    pub(super) fn parse(path: &str) -> Option<Route> {
        let path = path.strip_prefix('/')?;
        if let Some(name) = path.strip_prefix("nar/") {
            let file = || is_file_name(name).then(|| Route::File(path.to_owned()));
            return NarName::parse(name).map(Route::Nar).or_else(file);
        }
        if let Some(name) = path.strip_prefix("log/") {
            return StorePath::from_base_name(name.as_bytes()).ok().map(Route::Log);
        }
        if let Some(digest) = path.strip_suffix(".narinfo") {
            return digest.parse().ok().map(Route::NarInfo);
        }
        if let Some(digest) = path.strip_suffix(".ls") {
            return digest.parse().ok().map(Route::Listing);
        }
        match path {
            "nix-cache-info" => Some(Route::CacheInfo),
            "metrics" => Some(Route::Metrics),
            "healthz" => Some(Route::Health),
            _ => None,
        }
    }

    /// The form of its path.
    pub(super) fn form(&self) -> &'static str {
        match self {
            Route::CacheInfo => "/nix-cache-info",
            Route::NarInfo(_) => "/{hash}.narinfo",
            Route::Listing(_) => "/{hash}.ls",
            Route::Nar(_) | Route::File(_) => "/nar/{file}",
            Route::Log(_) => "/log/{derivation}",
            Route::Metrics => "/metrics",
            Route::Health => "/healthz",
        }
    }

    /// What metrics and spans call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Route::CacheInfo => "cache_info",
            Route::NarInfo(_) => "narinfo",
            Route::Listing(_) => "listing",
            Route::Nar(_) => "nar",
            Route::File(_) => "file",
            Route::Log(_) => "log",
            Route::Metrics => "metrics",
            Route::Health => "healthz",
        }
    }
}

/// The longest name of a file that somebody brings, in bytes.
const FILE_NAME_LEN_MAX: usize = 255;

/// Whether a file may be called so. None lies on a disk: this only keeps names sane.
fn is_file_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._=".contains(&byte);
    (1..=FILE_NAME_LEN_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.contains(".nar")
        && name.bytes().all(legal)
}

impl NarName {
    fn parse(name: &str) -> Option<NarName> {
        let (name, is_zstd) = match name.strip_suffix(".zst") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (store_path, sha256) = name.strip_suffix(".nar")?.split_once('-')?;
        Some(NarName {
            store_path: store_path.parse().ok()?,
            sha256: base32::decode(sha256.as_bytes()).ok()?,
            is_zstd,
        })
    }

    /// Where the archive is, below the cache's URL.
    pub(super) fn url(&self) -> String {
        let suffix = if self.is_zstd { ".zst" } else { "" };
        format!("nar/{}-{}.nar{suffix}", self.store_path, base32::encode(&self.sha256))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_understood() {
        let digest = StorePathDigest::from([7; 20]);
        let name = NarName { store_path: digest, sha256: [9; 32], is_zstd: false };
        let zstd = NarName { is_zstd: true, ..name };
        let drv = StorePath::new(digest, "x+y.drv").expect("legal");
        for (path, route) in [
            ("/nix-cache-info".to_owned(), Route::CacheInfo),
            (format!("/{digest}.narinfo"), Route::NarInfo(digest)),
            (format!("/{digest}.ls"), Route::Listing(digest)),
            (format!("/{}", name.url()), Route::Nar(name)),
            (format!("/{}", zstd.url()), Route::Nar(zstd)),
            ("/nar/x.nar.xz".to_owned(), Route::File("nar/x.nar.xz".to_owned())),
            (format!("/log/{digest}-x+y.drv"), Route::Log(drv)),
            ("/metrics".to_owned(), Route::Metrics),
            ("/healthz".to_owned(), Route::Health),
        ] {
            assert_eq!(Route::parse(&path), Some(route), "{path}");
        }
    }

    #[test]
    fn nothing_else_is() {
        let digest = StorePathDigest::from([7; 20]);
        let short = &digest.to_string()[1..];
        for path in [
            "",
            "/",
            "nix-cache-info",
            "//nix-cache-info",
            "/nar/nix-cache-info",
            "/.narinfo",
            &format!("/{short}.narinfo"),
            &format!("/{digest}.narinfo/"),
            &format!("/{digest}-x.narinfo"),
            "/nar/",
            "/nar/.nar",
            "/nar/a/b.nar",
            "/nar/x",
            "/nar/x.nar%20",
            &format!("/nar/{}.nar", "x".repeat(252)),
            &format!("/nar/../{digest}.narinfo"),
            &format!("/log/{digest}-"),
            &format!("/log/{digest}-../x"),
            "/log/../../etc/passwd",
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }
}
