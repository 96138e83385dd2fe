//! How archives are compressed in a binary cache.

use std::{fmt, str::FromStr};

/// A compression, displayed and read as in the `Compression` field of a narinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not compressed.
    None,
    /// Brotli.
    Br,
    /// bzip2.
    Bzip2,
    /// gzip.
    Gzip,
    /// LZ4, in frames.
    Lz4,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

/// A compression that nobody here knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of the compressions none, br, bzip2, gzip, lz4, xz, zstd")]
pub struct CompressionError(pub String);

impl Compression {
    /// All there are.
    pub const ALL: [Compression; 7] = [
        Compression::None,
        Compression::Br,
        Compression::Bzip2,
        Compression::Gzip,
        Compression::Lz4,
        Compression::Xz,
        Compression::Zstd,
    ];

    /// Its name, as in `xz`.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Br => "br",
            Compression::Bzip2 => "bzip2",
            Compression::Gzip => "gzip",
            Compression::Lz4 => "lz4",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
        }
    }

    /// What Nix appends to `.nar` in the name of a file that is compressed so.
    pub const fn suffix(self) -> &'static str {
        match self {
            Compression::None | Compression::Gzip => "",
            Compression::Br => ".br",
            Compression::Bzip2 => ".bz2",
            Compression::Lz4 => ".lz4",
            Compression::Xz => ".xz",
            Compression::Zstd => ".zst",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    /// Reads a name. The empty one means bzip2, which Nix used before there was a choice.
    fn from_str(text: &str) -> Result<Self, CompressionError> {
        if text.is_empty() {
            return Ok(Compression::Bzip2);
        }
        Self::ALL
            .into_iter()
            .find(|compression| compression.name() == text)
            .ok_or_else(|| CompressionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for compression in Compression::ALL {
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
        assert_eq!("".parse(), Ok(Compression::Bzip2));
    }

    #[test]
    fn other_names_are_refused() {
        for text in ["XZ", "xz ", "zst", "lzip", "identity"] {
            assert_eq!(text.parse::<Compression>(), Err(CompressionError(text.to_owned())));
        }
    }
}
