//! Streams of contents that are not kept.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;

use crate::{
    castore::outboard::Tree,
    observe::tally::Reason,
    service::{
        Result,
        blob::{BLOB_PIECE_LEN_MAX, BlobStream, ProvenStream},
    },
};

/// What is fetched for a reader, and not kept.
pub(super) fn counted(pieces: BlobStream) -> BlobStream {
    let count = |piece: &Result<Bytes>| {
        Reason::Read.fetched(piece.as_ref().map_or(0, Bytes::len) as u64);
    };
    pieces.inspect(count).boxed()
}

/// The next part of a range to be read.
pub(super) fn step(range: &Range<u64>) -> Range<u64> {
    range.start..range.end.min(range.start + BLOB_PIECE_LEN_MAX as u64)
}

/// Of whole groups that touch `range`, what lies in it.
pub(super) fn cut(size: u64, range: Range<u64>, pieces: ProvenStream) -> BlobStream {
    let tree = Tree::new(size);
    let mut at = tree.bytes_of(&tree.groups_of(&range)).start;
    let cut = pieces.map(move |piece| {
        let mut data = piece?.data;
        let place = at..at + data.len() as u64;
        at = place.end;
        data.truncate((range.end.clamp(place.start, place.end) - place.start) as usize);
        let from = range.start.clamp(place.start, place.end) - place.start;
        Ok(data.split_off(data.len().min(from as usize)))
    });
    let is_something = |piece: &Result<Bytes>| {
        let keep = piece.as_ref().map_or(true, |piece| !piece.is_empty());
        futures::future::ready(keep)
    };
    cut.filter(is_something).boxed()
}
