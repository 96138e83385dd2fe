//! What must hold of any bytes at all: they are refused, or what is read of them is printed and read back as the same.
//!
//! The fuzz targets call these with what libFuzzer comes up with, and the tests of lazystore with the seeds.
#![allow(dead_code)] // Each target calls one.

use std::io::{self, Read};

use lazystore::{
    castore::Directory,
    nix::{
        NarInfoFile, PathInfo, StorePath, StorePathDigest,
        nar::{NarEvent, NarReader, NarWriter},
        path_list,
    },
    proto,
};
use prost::Message as _;
use serde_json::{Map, Value};

/// Whether the bytes were accepted: the seeds must be, or must not.
pub type Accepted = bool;

/// Of a tree there is one archive: what is read is written as the very same bytes.
pub fn nar(bytes: &[u8]) -> Accepted {
    // However they come.
    let input = InPieces { bytes, len: bytes.len() % 23 + 1 };
    let mut reader = NarReader::new(input);
    let mut writer = NarWriter::new(Vec::new()).expect("memory takes everything");
    loop {
        let event = match reader.next_event() {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(_) => {
                assert!(reader.next_event().is_err(), "there is no way on after an error");
                return false;
            }
        };
        match event {
            NarEvent::Directory => writer.begin_directory(),
            NarEvent::EndDirectory => writer.end_directory(),
            NarEvent::Entry(name) => writer.entry(name.as_bytes()),
            NarEvent::Symlink(target) => writer.symlink(target.as_bytes()),
            NarEvent::File { executable, len } => {
                writer.begin_file(executable, len).expect("a file may stand here");
                loop {
                    match reader.contents() {
                        Ok(Some(piece)) => writer.contents(piece).expect("not more than announced"),
                        Ok(None) => break,
                        Err(_) => return false,
                    }
                }
                writer.end_file()
            }
        }
        .expect("what was read in order can be written in order");
    }
    assert_eq!(reader.offset(), bytes.len() as u64);
    assert!(writer.finish().expect("it is complete") == bytes, "another archive of the same tree");
    true
}

/// What is printed of a narinfo is read back.
pub fn narinfo(bytes: &[u8]) -> Accepted {
    let Ok(read) = NarInfoFile::parse(bytes) else { return false };
    let printed = read.to_string();
    assert_eq!(NarInfoFile::parse(printed.as_bytes()).expect("it was printed"), read);
    true
}

/// A store path has one spelling as a base name, and one as a path.
pub fn store_path(bytes: &[u8]) -> Accepted {
    let digest = str::from_utf8(bytes).ok().and_then(|text| text.parse::<StorePathDigest>().ok());
    if let Some(digest) = digest {
        assert_eq!(digest.to_string().as_bytes(), bytes);
    }
    let base_name = StorePath::from_base_name(bytes);
    if let Ok(path) = &base_name {
        assert_eq!(path.to_string().as_bytes(), bytes);
        assert_eq!(StorePath::new(path.digest(), path.name()).as_ref(), Ok(path));
        assert_eq!(StorePath::from_absolute(path.absolute().as_bytes()).as_ref(), Ok(path));
    }
    let absolute = StorePath::from_absolute(bytes);
    if let Ok(path) = &absolute {
        assert_eq!(path.absolute().as_bytes(), bytes);
        assert_eq!(StorePath::split_absolute(bytes), Ok((path.clone(), None)));
    }
    if let Ok((path, Some(inner))) = StorePath::split_absolute(bytes) {
        assert_eq!([path.absolute().as_bytes(), b"/", inner].concat(), bytes);
    }
    base_name.is_ok() || absolute.is_ok() || digest.is_some()
}

/// What is printed of a list of store paths, in the one form that is printed, is read back.
pub fn path_list(bytes: &[u8]) -> Accepted {
    let Ok(mut read) = path_list::read(bytes) else { return false };
    let printed: Map<_, _> = read
        .iter()
        .map(|path| (path.store_path.absolute(), Value::Object(path_list::to_json(&path.info))))
        .collect();
    let printed = Value::Object(printed).to_string();
    let mut again = path_list::read(printed.as_bytes()).expect("it was printed");
    // A map has no order.
    read.sort_unstable_by(|a, b| a.store_path.cmp(&b.store_path));
    again.sort_unstable_by(|a, b| a.store_path.cmp(&b.store_path));
    assert_eq!(again, read);
    true
}

/// A directory is read only from the one message that it has, and can be built anew from its entries.
pub fn directory(bytes: &[u8]) -> Accepted {
    // Any reader of protobuf takes more messages than ours takes bytes, but makes the same of them.
    if let Ok(message) = proto::castore::Directory::decode(bytes)
        && let Ok(directory) = Directory::try_from(message.clone())
    {
        assert_eq!(proto::castore::Directory::from(&directory), message);
    }
    let Ok(directory) = Directory::decode(bytes.to_vec().into()) else { return false };
    assert_eq!(directory.encoded(), bytes);
    let mut builder = Directory::builder();
    for entry in directory.entries() {
        let name = entry.name.to_vec();
        let name = lazystore::castore::Name::try_from(prost::bytes::Bytes::from(name));
        builder.add(name.expect("it was checked"), entry.node.to_node());
        assert!(directory.find(entry.name).is_some_and(|found| found.name == entry.name));
    }
    let rebuilt = builder.build().expect("the entries are legal");
    assert_eq!((rebuilt.encoded(), rebuilt.digest()), (directory.encoded(), directory.digest()));
    true
}

/// What is made of a path info's message goes back into a message, and from there is the same.
pub fn path_info(bytes: &[u8]) -> Accepted {
    let Ok(message) = proto::store::PathInfo::decode(bytes) else { return false };
    let Ok(read) = PathInfo::try_from(message) else { return false };
    let printed = proto::store::PathInfo::from(&read).encode_to_vec();
    let message = proto::store::PathInfo::decode(&printed[..]).expect("it was encoded");
    assert_eq!(PathInfo::try_from(message).expect("it was accepted"), read);
    if read.check().is_ok()
        && let Some(info) = read.nar_info()
    {
        // Whoever is told of it as a list, keeps the same; but an archive is never empty there.
        let list = Map::from_iter([(read.store_path.absolute(), path_list::to_json(info).into())]);
        let listed = path_list::read(Value::Object(list).to_string().as_bytes());
        match listed {
            Ok(listed) => assert_eq!(listed[0].info, *info),
            Err(error) => assert_eq!(info.nar.size, 0, "{error}"),
        }
    }
    true
}

/// Gives a few bytes at a time.
struct InPieces<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl Read for InPieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.len.min(self.bytes.len()).min(buffer.len());
        let (piece, rest) = self.bytes.split_at(len);
        buffer[..len].copy_from_slice(piece);
        self.bytes = rest;
        Ok(len)
    }
}
