//! The object that holds a closure: each directory's length in four bytes, big-endian, then its message; root first; all of
//! it in zstd.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    castore::{DIRECTORY_LEN_MAX, Directory},
    service::bucket::Unpacker,
};

/// The longest object that is read or written, in bytes.
pub(super) const OBJECT_LEN_MAX: u64 = 256 << 20;

/// How long a closure may be, in bytes, before it is compressed.
pub(super) const CLOSURE_LEN_MAX: u64 = 1 << 30;

/// How many directories a closure may have.
const DIRECTORIES_MAX: usize = 1 << 22;

/// What each directory takes besides its message, in bytes.
pub(super) const HEAD_LEN: usize = 4;

/// Compresses a closure, whose directories come root first.
pub(super) fn encode<'a>(
    root_first: impl Iterator<Item = &'a Arc<Directory>>,
) -> io::Result<Bytes> {
    let mut encoder = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
    for directory in root_first {
        let message = directory.encoded();
        // A message is shorter than DIRECTORY_LEN_MAX.
        encoder.write_all(&(message.len() as u32).to_be_bytes())?;
        encoder.write_all(message)?;
    }
    encoder.finish().map(Bytes::from)
}

/// The directories in an object, each decoded when it is asked for. Their order is not looked at. Nothing comes after an
/// error.
pub(super) fn decode(
    object: Bytes,
) -> io::Result<impl Iterator<Item = io::Result<Arc<Directory>>> + Send> {
    let mut unpacker = Some(Unpacker::new(object, CLOSURE_LEN_MAX)?);
    let mut count = 0;
    Ok(std::iter::from_fn(move || {
        let mut rest = unpacker.take()?;
        count += 1;
        let next = match count <= DIRECTORIES_MAX {
            true => next(&mut rest),
            false => Err(io::Error::other(format!("more than {DIRECTORIES_MAX} directories"))),
        };
        if matches!(next, Ok(Some(_))) {
            unpacker = Some(rest);
        }
        next.transpose()
    }))
}

fn next(unpacker: &mut Unpacker) -> io::Result<Option<Arc<Directory>>> {
    let Some(head) = unpacker.next(HEAD_LEN)? else { return Ok(None) };
    let head = head[..].try_into().map_err(io::Error::other)?;
    let len = u32::from_be_bytes(head) as usize;
    if len > DIRECTORY_LEN_MAX {
        let what = format!("a directory of {len} bytes, more than {DIRECTORY_LEN_MAX}");
        return Err(io::Error::other(what));
    }
    let cut = || io::Error::other("it ends before a directory that was announced");
    let message = unpacker.next(len)?.ok_or_else(cut)?;
    Directory::decode(message).map(|directory| Some(Arc::new(directory))).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::castore::{Digest, Name, Node};

    fn directory(name: &str) -> Arc<Directory> {
        let mut builder = Directory::builder();
        let node = Node::File { digest: Digest::of(name.as_bytes()), size: 1, executable: false };
        builder.add(Name::try_from(name).expect("legal"), node);
        Arc::new(builder.build().expect("legal"))
    }

    fn all(object: Bytes) -> io::Result<Vec<Arc<Directory>>> {
        decode(object)?.collect()
    }

    #[test]
    fn a_closure_comes_back_in_its_order() -> io::Result<()> {
        let closure = [directory("a"), Arc::new(Directory::empty()), directory("b")];
        assert_eq!(all(encode(closure.iter())?)?, closure);
        Ok(())
    }

    #[test]
    fn an_object_is_what_others_write() -> io::Result<()> {
        let one = directory("a");
        let plain = [&(one.encoded().len() as u32).to_be_bytes()[..], one.encoded()].concat();
        assert_eq!(zstd::decode_all(&encode([&one].into_iter())?[..])?, plain);
        assert_eq!(all(zstd::encode_all(&plain[..], 19)?.into())?, [one]);
        Ok(())
    }

    #[test]
    fn what_is_no_closure_is_refused_before_room_is_made_for_it() -> io::Result<()> {
        let bomb = zstd::encode_all(io::Read::take(io::repeat(0), 1 << 28), 3)?;
        for (plain, reason) in [
            (u32::MAX.to_be_bytes().to_vec(), "a directory of 4294967295 bytes"),
            ((1u32 << 20).to_be_bytes().to_vec(), "before a directory that was announced"),
            (vec![0, 0, 0, 2, 7], "1 bytes where 2"),
            (vec![0, 0], "2 bytes where 4"),
            (vec![0, 0, 0, 1, 7], "not a canonical directory"),
        ] {
            let error = all(zstd::encode_all(&plain[..], 3)?.into()).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
        let error = all(bomb.into()).expect_err("a bomb").to_string();
        assert!(error.contains("more than 4194304 directories"), "{error}");
        all(Bytes::from_static(b"no frame")).expect_err("no frame");
        Ok(())
    }
}
