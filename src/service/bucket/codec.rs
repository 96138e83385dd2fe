//! zstd, bounded by what is expected and not by what a frame says of itself.

use std::io::{self, Cursor, Read as _};

use bytes::Bytes;

/// Level 3, as all others who write such buckets.
const LEVEL: i32 = 3;

/// The largest window that a frame may ask for, as a power of two: 8 MiB. Level 3 takes 2 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// Compresses what is in memory into one frame.
pub fn compress(contents: &[u8]) -> io::Result<Bytes> {
    zstd::bulk::compress(contents, LEVEL).map(Bytes::from)
}

/// How long `len` bytes may become when they are compressed, however badly.
pub fn compressed_len_max(len: u64) -> u64 {
    len + len / 128 + 1024
}

/// Decompresses what has at most `len_max` bytes. Longer contents are an error, once they have come so far.
pub fn decompress(compressed: &[u8], len_max: usize) -> io::Result<Bytes> {
    let mut decoder = decoder(Cursor::new(compressed))?.take(len_max as u64 + 1);
    // What the frame says is good for a guess.
    let said = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let guess = said.unwrap_or(compressed.len() as u64 * 4).min(len_max as u64);
    let mut contents = Vec::with_capacity(guess as usize + 1);
    decoder.read_to_end(&mut contents)?;
    if contents.len() > len_max {
        return Err(io::Error::other(format!("it has more than {len_max} bytes decompressed")));
    }
    Ok(contents.into())
}

/// Decompresses piece by piece what is in memory. Holds a window of at most 8 MiB besides.
pub struct Unpacker {
    decoder: zstd::Decoder<'static, Cursor<Bytes>>,
    left: u64,
}

impl Unpacker {
    /// Gives out at most `len_max` bytes; what comes after them is an error.
    pub fn new(compressed: Bytes, len_max: u64) -> io::Result<Self> {
        Ok(Unpacker { decoder: decoder(Cursor::new(compressed))?, left: len_max })
    }

    /// The next `len` bytes. `None` at the end; an end in the midst of them is an error.
    pub fn next(&mut self, len: usize) -> io::Result<Option<Bytes>> {
        if len as u64 > self.left {
            return Err(io::Error::other("it has too many bytes decompressed"));
        }
        self.left -= len as u64;
        // It grows with what comes, and not with what was said.
        let mut bytes = Vec::with_capacity(len.min(1 << 20));
        self.decoder.by_ref().take(len as u64).read_to_end(&mut bytes)?;
        match bytes.len() {
            got if got == len => Ok(Some(bytes.into())),
            0 => Ok(None),
            got => Err(io::Error::other(format!("{got} bytes where {len} should be"))),
        }
    }
}

fn decoder<B: io::BufRead>(compressed: B) -> io::Result<zstd::Decoder<'static, B>> {
    let mut decoder = zstd::Decoder::with_buffer(compressed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_whole_or_not_at_all() -> io::Result<()> {
        for contents in [vec![], vec![7; 1], vec![0; 300_000], b"abc".repeat(1000)] {
            let compressed = compress(&contents)?;
            assert!(compressed.len() as u64 <= compressed_len_max(contents.len() as u64));
            assert_eq!(decompress(&compressed, contents.len())?, contents);
            if !contents.is_empty() {
                let error = decompress(&compressed, contents.len() - 1).expect_err("too long");
                assert!(error.to_string().contains("more than"), "{error}");
                decompress(&compressed[..compressed.len() - 1], contents.len()).expect_err("cut");
            }
        }
        decompress(b"this is no frame", 100).expect_err("no frame");
        Ok(())
    }

    #[test]
    fn frames_of_others_are_understood() -> io::Result<()> {
        // Without its length, and in two frames.
        let mut compressed = zstd::encode_all(&b"hello "[..], 19)?;
        compressed.extend(zstd::encode_all(&b"world"[..], 1)?);
        assert_eq!(decompress(&compressed, 11)?, &b"hello world"[..]);
        Ok(())
    }

    #[test]
    fn a_bomb_is_not_unpacked() -> io::Result<()> {
        let bomb = zstd::encode_all(io::repeat(0).take(1 << 30), 3)?;
        let error = decompress(&bomb, 1 << 20).expect_err("a bomb");
        assert!(error.to_string().contains("more than 1048576"), "{error}");
        let mut unpacker = Unpacker::new(bomb.into(), 1 << 20)?;
        assert_eq!(unpacker.next(1 << 20)?.map(|bytes| bytes.len()), Some(1 << 20));
        unpacker.next(1).expect_err("a bomb");
        Ok(())
    }

    #[test]
    fn a_frame_that_wants_a_huge_window_is_refused() -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
        encoder.window_log(27)?;
        io::Write::write_all(&mut encoder, &vec![1; 1 << 20])?;
        let frame = encoder.finish()?;
        decompress(&frame, 1 << 20).expect_err("128 MiB");
        Ok(())
    }

    #[test]
    fn an_end_in_the_midst_is_no_end() -> io::Result<()> {
        let mut unpacker = Unpacker::new(compress(b"123456")?, 100)?;
        assert_eq!(unpacker.next(4)?.as_deref(), Some(&b"1234"[..]));
        unpacker.next(4).expect_err("two bytes");
        let mut unpacker = Unpacker::new(compress(b"1234")?, 100)?;
        assert_eq!(unpacker.next(4)?.as_deref(), Some(&b"1234"[..]));
        assert_eq!(unpacker.next(4)?, None);
        Ok(())
    }
}
