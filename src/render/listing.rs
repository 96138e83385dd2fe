//! A node of the store as the listing of its archive.

use std::{mem, sync::Arc};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::{
    RenderError,
    walk::{Step, TreeWalk},
};
use crate::{
    castore::{Node, NodeRef},
    nix::nar::ListingWriter,
    service::directory::DirectoryService,
};

/// A piece of a listing ends once it has so many bytes.
const PIECE_LEN: usize = 64 << 10;

/// The listing of the archive of `node`, in pieces: see [`ListingWriter`]. Reads directories and no contents, and holds
/// the directories on the way to where it is.
pub fn render_listing(
    directories: Arc<dyn DirectoryService>,
    node: Node,
) -> BoxStream<'static, Result<Bytes, RenderError>> {
    // Made when it is polled, so that there is one place for errors.
    let first = Some((TreeWalk::new(directories, node), None));
    stream::try_unfold(first, |rendering| async {
        let Some((mut walk, listing)) = rendering else { return Ok(None) };
        let mut listing = match listing {
            Some(listing) => listing,
            None => ListingWriter::new(Vec::new())?,
        };
        while listing.get_mut().len() < PIECE_LEN {
            let Some(step) = walk.next().await? else {
                return Ok(Some((Bytes::from(listing.finish()?), None)));
            };
            write_step(&mut listing, &step)?;
        }
        let piece = Bytes::from(mem::take(listing.get_mut()));
        Ok(Some((piece, Some((walk, Some(listing))))))
    })
    .boxed()
}

fn write_step(listing: &mut ListingWriter<Vec<u8>>, step: &Step) -> Result<(), RenderError> {
    let Some((name, node)) = step.node() else { return Ok(listing.end_directory()?) };
    if let Some(name) = name {
        listing.entry(name)?;
    }
    match node {
        NodeRef::Directory { .. } => listing.begin_directory()?,
        NodeRef::Symlink { target } => listing.symlink(target)?,
        NodeRef::File { size, executable, .. } => {
            listing.file(executable, size)?;
        }
    }
    Ok(())
}
