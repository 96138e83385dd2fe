//! Compressing a stream, in all the ways that clients may have chosen for what they brought.

use std::io::{self, Write};

use bzip2::write::BzEncoder;
use flate2::write::GzEncoder;
use liblzma::write::XzEncoder;
use lz4_flex::frame::FrameEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::nix::Compression;

/// How hard zstd tries. One processor compresses some 300 MB a second at this level.
const ZSTD_LEVEL: i32 = 3;

/// How hard the others try: not at all hard, since it is done anew for each client.
const LEVEL: u32 = 1;

/// Takes bytes, and gives those of a compressed file.
pub(super) trait Compress: Write + Send {
    /// What has come out so far, and was not taken yet.
    fn take(&mut self) -> Vec<u8>;

    /// Ends the file. Returns what came out since.
    fn finish(self: Box<Self>) -> io::Result<Vec<u8>>;
}

/// Begins a compressed file.
pub(super) fn compressor(compression: Compression) -> io::Result<Box<dyn Compress>> {
    let out = Vec::new();
    Ok(match compression {
        Compression::None => Box::new(Plain(out)),
        Compression::Br => Box::new(StoredBrotli { out, begun: false }),
        Compression::Bzip2 => Box::new(BzEncoder::new(out, bzip2::Compression::fast())),
        Compression::Gzip => Box::new(GzEncoder::new(out, flate2::Compression::new(LEVEL))),
        Compression::Lz4 => Box::new(FrameEncoder::new(out)),
        Compression::Xz => Box::new(XzEncoder::new(out, LEVEL)),
        Compression::Zstd => {
            let mut encoder = ZstdEncoder::new(out, ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            Box::new(encoder)
        }
    })
}

/// The encoders are alike, but share no trait.
macro_rules! compress {
    ($($encoder:ty),*) => {$(
        impl Compress for $encoder {
            fn take(&mut self) -> Vec<u8> {
                std::mem::take(self.get_mut())
            }

            fn finish(self: Box<Self>) -> io::Result<Vec<u8>> {
                (*self).finish().map_err(Into::into)
            }
        }
    )*};
}

compress!(
    BzEncoder<Vec<u8>>,
    GzEncoder<Vec<u8>>,
    FrameEncoder<Vec<u8>>,
    XzEncoder<Vec<u8>>,
    ZstdEncoder<'static, Vec<u8>>
);

/// No compression.
struct Plain(Vec<u8>);

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Compress for Plain {
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    fn finish(self: Box<Self>) -> io::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Brotli without compression, as a file of meta-blocks that are stored (RFC 7932, section 9.2): enough for who
/// expects Brotli, and needs no encoder.
struct StoredBrotli {
    out: Vec<u8>,
    begun: bool,
}

/// The longest meta-block whose length takes 4 digits of 4 bits, in bytes.
const META_BLOCK_LEN_MAX: usize = 1 << 16;

impl StoredBrotli {
    /// Appends the bits of a header, the lowest first, and fills the last byte up with zeros.
    fn header(&mut self, mut bits: u32, mut count: u32) {
        if !std::mem::replace(&mut self.begun, true) {
            // The file begins with one bit that is 0, for a window of 64 KiB.
            (bits, count) = (bits << 1, count + 1);
        }
        let bytes = bits.to_le_bytes();
        self.out.extend_from_slice(&bytes[..count.div_ceil(8) as usize]);
    }
}

impl Write for StoredBrotli {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for block in bytes.chunks(META_BLOCK_LEN_MAX) {
            // Not the last (1 bit, 0); 4 digits (2 bits, 0); the length less one (16 bits); stored (1 bit, 1).
            let len = (block.len() - 1) as u32;
            self.header(len << 3 | 1 << 19, 20);
            self.out.extend_from_slice(block);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Compress for StoredBrotli {
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn finish(mut self: Box<Self>) -> io::Result<Vec<u8>> {
        // The last, and empty.
        self.header(0b11, 2);
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::ingest::decompress;

    #[test]
    fn what_is_compressed_is_read_back() {
        for compression in Compression::ALL {
            for lens in [&[][..], &[1], &[65_536], &[65_537, 1, 200_000], &[100_000; 30]] {
                let mut compressor = compressor(compression).expect("it begins");
                let (mut all, mut packed) = (Vec::new(), Vec::new());
                for (at, len) in lens.iter().enumerate() {
                    let piece = vec![at as u8; *len];
                    compressor.write_all(&piece).expect("memory");
                    all.extend_from_slice(&piece);
                    packed.append(&mut compressor.take());
                }
                packed.append(&mut compressor.finish().expect("memory"));
                let mut unpacked = Vec::new();
                let mut reader = decompress(compression, &packed[..]).expect("it begins");
                reader.read_to_end(&mut unpacked).unwrap_or_else(|e| panic!("{compression}: {e}"));
                assert!(unpacked == all, "{compression}, {lens:?}");
            }
        }
    }
}
