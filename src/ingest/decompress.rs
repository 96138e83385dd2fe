//! What was compressed, as it was before.

use std::io::{self, BufRead, BufReader, Read};

use brotli_decompressor::Decompressor as BrotliDecoder;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::{bufread::XzDecoder, stream::Stream};
use lz4_flex::frame::FrameDecoder;

use crate::nix::Compression;

/// How much memory an xz file may ask for, in bytes. The highest level that there is takes about half.
pub const XZ_MEMORY_MAX: u64 = 128 << 20;

/// How far back a zstd file may refer, as a power of two of bytes. More is only written by who asks for it, and
/// would have to be asked for by those who read it, too.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How much is read at once, in bytes.
const BUFFER_LEN: usize = 128 << 10;

/// `LZMA_CONCATENATED`: another stream may follow where one ends.
const XZ_CONCATENATED: u32 = 0x08;

/// What `input` holds, decompressed. Several streams, members or frames in a row are one file, and all of them are read.
///
/// Whoever reads it to the end knows that `input` was read to its end, that it was whole, and that nothing else was in
/// it. Memory is bounded by the format, [`XZ_MEMORY_MAX`] and [`ZSTD_WINDOW_LOG_MAX`]; how much comes out is to be
/// bounded by the reader.
pub fn decompress<'a>(
    compression: Compression,
    input: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let buffered = |input| BufReader::with_capacity(BUFFER_LEN, input);
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Br => Box::new(Brotli(BrotliDecoder::new(input, BUFFER_LEN))),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(buffered(input))),
        Compression::Gzip => Box::new(MultiGzDecoder::new(buffered(input))),
        Compression::Lz4 => Box::new(Lz4::new(buffered(input))),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, XZ_CONCATENATED)?;
            Box::new(XzDecoder::new_stream(buffered(input), stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(input))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// Of a Brotli file, whose end is not that of `R` for its decoder.
struct Brotli<R: Read>(BrotliDecoder<R>);

impl<R: Read> Read for Brotli<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(buffer)?;
        if len > 0 || buffer.is_empty() {
            return Ok(len);
        }
        // Only when it is asked again does it tell of what it holds.
        match self.0.read(buffer)? + self.0.get_mut().read(&mut [0])? {
            0 => Ok(0),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "something follows its end")),
        }
    }
}

/// LZ4, whose decoder is good for one frame, and takes the end of its input for the end of that.
struct Lz4<R: Read> {
    /// `None` after the last frame.
    frame: Option<FrameDecoder<Input<R>>>,
}

/// Remembers whether more was wanted of `R` than there is.
struct Input<R> {
    input: BufReader<R>,
    wanted_more: bool,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.wanted_more |= len == 0 && !buffer.is_empty();
        Ok(len)
    }
}

impl<R: Read> Lz4<R> {
    fn new(input: BufReader<R>) -> Self {
        Lz4 { frame: Some(FrameDecoder::new(Input { input, wanted_more: false })) }
    }
}

impl<R: Read> Read for Lz4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(frame) = &mut self.frame {
            let len = frame.read(buffer)?;
            if len > 0 || buffer.is_empty() {
                return Ok(len);
            }
            if frame.get_ref().wanted_more {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a frame is cut off"));
            }
            if let Some(frame) = self.frame.take() {
                let mut rest = frame.into_inner();
                let is_end = rest.input.fill_buf()?.is_empty();
                self.frame = (!is_end).then(|| FrameDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Compressed as one stream. There is no encoder for Brotli here.
    fn compress(compression: Compression, contents: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match compression {
            Compression::None => out.extend_from_slice(contents),
            Compression::Br => unreachable!("nobody asks for it"),
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(&mut out, Default::default());
                encoder.write_all(contents).expect("memory");
            }
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(&mut out, Default::default());
                encoder.write_all(contents).expect("memory");
            }
            Compression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut out);
                encoder.write_all(contents).expect("memory");
                encoder.finish().expect("memory");
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(&mut out, 1);
                encoder.write_all(contents).expect("memory");
            }
            Compression::Zstd => out = zstd::encode_all(contents, 1).expect("memory"),
        }
        out
    }

    fn read(compression: Compression, input: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(compression, input)?.read_to_end(&mut out)?;
        Ok(out)
    }

    /// All that there is an encoder for.
    fn encoders() -> impl Iterator<Item = Compression> {
        let others = [Compression::None, Compression::Br];
        Compression::ALL.into_iter().filter(move |compression| !others.contains(compression))
    }

    /// Long enough for several blocks, and compressible.
    fn contents() -> Vec<u8> {
        (0..300_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect()
    }

    #[test]
    fn any_number_of_streams_is_one_file() {
        for compression in encoders() {
            let contents = contents();
            for cuts in [&[][..], &[0], &[100_000], &[1, 2, 500_000, 500_000, 1_100_000]] {
                let mut file = Vec::new();
                let mut at = 0;
                for cut in cuts.iter().copied().chain([contents.len()]) {
                    file.extend(compress(compression, &contents[at..cut]));
                    at = cut;
                }
                let got = read(compression, &file).expect("it is whole");
                assert!(got == contents, "{compression} {cuts:?}: {} bytes", got.len());
            }
        }
        assert_eq!(read(Compression::None, b"as it is").expect("plain"), b"as it is");
    }

    #[test]
    fn a_file_that_is_cut_off_or_followed_by_something_is_no_file() {
        for compression in encoders() {
            let contents = contents();
            let file = compress(compression, &contents);
            for len in [file.len() - 1, file.len() / 2, 30] {
                let read = read(compression, &file[..len]);
                assert!(read.is_err(), "{compression} {len}: {:?}", read.map(|read| read.len()));
            }
            let followed = [&file[..], b"garbage that is no stream"].concat();
            let read = read(compression, &followed);
            assert!(read.is_err(), "{compression}: {:?}", read.map(|read| read.len()));
        }
    }

    #[test]
    fn brotli_is_read_to_the_end_of_its_file() {
        // A window of 64 KiB, then a block of 64 bytes that are not compressed, then the last, empty block.
        let file = [&[0xf0, 0x03, 0x10][..], &[b'X'; 64], &[0x03]].concat();
        let decoded = read(Compression::Br, &file).expect("it is whole");
        assert_eq!(decoded, [b'X'; 64]);
        read(Compression::Br, &file[..file.len() - 1]).expect_err("cut off");
        for more in [&b"x"[..], &[0; BUFFER_LEN * 2]] {
            read(Compression::Br, &[&file[..], more].concat()).expect_err("followed");
        }
    }

    #[test]
    fn zstd_frames_to_be_skipped_are_skipped() {
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frames = |text: &[u8]| compress(Compression::Zstd, text);
        let file = [&skippable[..], &frames(b"one "), &skippable, &frames(b"two"), &skippable];
        assert_eq!(read(Compression::Zstd, &file.concat()).expect("whole"), b"one two");
    }

    #[test]
    fn more_memory_than_is_allowed_is_refused() {
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).expect("a preset");
        options.dict_size(1 << 29);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let check = liblzma::stream::Check::Crc32;
        let stream = Stream::new_stream_encoder(&filters, check).expect("it can be written");
        let mut file = Vec::new();
        let mut encoder = liblzma::write::XzEncoder::new_stream(&mut file, stream);
        encoder.write_all(b"little").expect("memory");
        encoder.finish().expect("memory");
        let error = read(Compression::Xz, &file).expect_err("too much");
        assert!(error.to_string().contains("memory"), "{error}");

        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).expect("it can be written");
        encoder.write_all(&contents()).expect("memory");
        let file = encoder.finish().expect("memory");
        let error = read(Compression::Zstd, &file).expect_err("too much");
        assert!(error.to_string().contains("memory"), "{error}");
    }
}
