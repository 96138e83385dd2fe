//! One blob that is arriving.

use std::{
    fs::{File, Permissions},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Names;
use crate::{
    castore::{
        Digest,
        outboard::{
            Checked, NODE_LEN, Outboard, ProofError, RangeWalk, Tree, TreeMismatch, TreeNode,
            Visit, check_group, prove,
        },
    },
    service::{
        Error, Result,
        blob::{LocalBlob, LocalPlace, ProvenPiece},
        local::{
            LocalStore, OUTBOARD_ABOVE_LEN,
            outboards::{StoredOutboard, hash_blob},
            usage::{STAT_BLOCK_LEN, on_disk},
        },
        range_set::RangeSet,
    },
};

/// What is here of one blob, in files that no other process uses meanwhile. Dropped, it stays for whoever wants more of
/// the blob later.
#[derive(Debug)]
pub struct Partial {
    store: Arc<LocalStore>,
    digest: Digest,
    tree: Tree,
    names: Names,
    data: Arc<File>,
    outboard: Mutex<StoredOutboard>,
    state: Mutex<State>,
}

/// What is known of the bytes in the file. What is in neither set is not here.
#[derive(Debug)]
struct State {
    /// Here and right, as this process has seen.
    present: RangeSet,
    /// Left by an earlier process and not looked at.
    unchecked: RangeSet,
    /// What was reserved for the files and they have not given back, in bytes.
    reserved: u64,
}

impl Partial {
    pub(super) fn new(
        store: Arc<LocalStore>,
        digest: Digest,
        tree: Tree,
        names: Names,
        data: File,
        outboard: StoredOutboard,
        is_old: bool,
    ) -> Self {
        let mut unchecked = RangeSet::default();
        if is_old {
            unchecked.insert(0..tree.size());
        }
        let state = Mutex::new(State { present: RangeSet::default(), unchecked, reserved: 0 });
        let (data, outboard) = (Arc::new(data), Mutex::new(outboard));
        let partial = Partial { store, digest, tree, names, data, outboard, state };
        if is_old {
            // Counted since they were written.
            partial.state.lock().reserved = partial.taken();
        }
        partial
    }

    /// The blob.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The shape of its tree.
    pub fn tree(&self) -> Tree {
        self.tree
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::unavailable(self.store.endpoint(), error)
    }

    /// Whether all of `range` is here and right.
    pub fn has(&self, range: &Range<u64>) -> bool {
        self.state.lock().present.contains(range)
    }

    /// What of `range` is here and right, as this process has seen.
    pub fn present(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.state.lock().present.within(range)
    }

    /// What of `range` is not known to be here and right.
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.state.lock().present.gaps(range)
    }

    /// What of `range` an earlier process left here and nobody looked at since.
    pub fn unchecked(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.state.lock().unchecked.within(range)
    }

    /// Whether all of the blob is here and right.
    pub fn is_complete(&self) -> bool {
        self.has(&(0..self.tree.size()))
    }

    /// As a file, of which only what [`Partial::has`] tells may be read.
    pub fn as_local(&self) -> LocalBlob {
        LocalBlob { file: self.data.clone(), place: LocalPlace::Whole, size: self.tree.size() }
    }

    /// The bytes of `range`, all of which [are here](Partial::has).
    pub fn read(&self, range: &Range<u64>) -> Result<Bytes> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.data.read_exact_at(&mut bytes, range.start).map_err(|error| self.failed(error))?;
        Ok(bytes.into())
    }

    /// Takes bytes that have been checked, and the nodes of the tree that came with them. An error says that the disk is
    /// full or broken, or the cache has no room.
    pub fn write(&self, start: u64, bytes: &[u8], nodes: &[(u64, TreeNode)]) -> Result<()> {
        let range = start..start + bytes.len() as u64;
        if !self.has(&range) {
            self.place(start, bytes, nodes)?;
            self.settle(&range, true);
        }
        Ok(())
    }

    /// As [`Partial::write`], but nobody may read it before it is [settled](Partial::settle).
    pub fn place(&self, start: u64, bytes: &[u8], nodes: &[(u64, TreeNode)]) -> Result<()> {
        let taken = on_disk((bytes.len() + nodes.len() * NODE_LEN) as u64);
        self.store.reserve(taken)?;
        let written = self.store.write_in_full(|| {
            let written = self.data.write_all_at(bytes, start);
            written.and_then(|()| self.write_nodes(nodes)).map_err(|error| self.failed(error))
        });
        if let Err(error) = written {
            self.store.release(taken);
            return Err(error);
        }
        self.state.lock().reserved += taken;
        Ok(())
    }

    /// Nodes that lie in a row are written at once.
    fn write_nodes(&self, nodes: &[(u64, TreeNode)]) -> io::Result<()> {
        let mut outboard = self.outboard.lock();
        for row in nodes.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
            let bytes: Vec<u8> = row.iter().flat_map(|(_, node)| *node).collect();
            outboard.file().write_all_at(&bytes, Tree::node_offset(row[0].0))?;
        }
        outboard.forget();
        Ok(())
    }

    /// Decides about what was unchecked, or has been fetched again.
    pub fn settle(&self, range: &Range<u64>, is_right: bool) {
        let mut state = self.state.lock();
        state.unchecked.remove(range);
        if is_right {
            state.present.insert(range.clone());
        }
    }

    /// Looks at what an earlier process left of `range`, by the tree: afterwards it is here, or it is not. Blocks.
    pub fn check(&self, range: &Range<u64>) {
        for part in self.unchecked(range) {
            let groups = self.tree.groups_of(&part);
            let mut next = groups.start;
            while next < groups.end {
                let mut walk = RangeWalk::new(&self.digest, self.tree, next..groups.end);
                let mut checking = Checking { partial: self, next };
                match walk.advance(groups.end, &mut checking) {
                    Ok(()) => next = groups.end,
                    Err(mismatch) => {
                        next = checking.next;
                        // Without the node, its subtree is not here.
                        if !self.forget_node(mismatch) {
                            break;
                        }
                    }
                }
            }
            self.settle(&part, false);
        }
    }

    /// Takes out a node that is wrong. Whether that was possible.
    fn forget_node(&self, mismatch: TreeMismatch) -> bool {
        let TreeMismatch::Node { node } = mismatch else { return false };
        self.write_nodes(&[(node, [0; NODE_LEN])]).is_ok()
    }

    fn node(&self, index: u64) -> io::Result<Option<TreeNode>> {
        // No subtree has the hash zero.
        Ok(self.outboard.lock().node(index)?.filter(|node| *node != [0; NODE_LEN]))
    }

    /// The next piece of a walk, up to the group `end`, with its proof. All of it [is here](Partial::has).
    pub fn prove(&self, walk: &mut RangeWalk, end: u64) -> Result<ProvenPiece> {
        let bytes = self.tree.bytes_of(&(walk.left().start..end));
        let mut nodes = Vec::new();
        let proven = prove(walk, end, &mut nodes, |index| self.node(index));
        proven.map_err(|error: ProofError<io::Error>| {
            Error::unavailable(self.store.endpoint(), format!("blob {}: {error}", self.digest))
        })?;
        Ok(ProvenPiece { nodes: nodes.into(), data: self.read(&bytes)? })
    }

    /// Hashes all of it. What comes out is not what it should be if it was not checked by the tree. Blocks.
    pub fn hash(&self) -> Result<(Digest, Outboard)> {
        hash_blob(&self.as_local()).map_err(|error| self.failed(error))
    }

    /// Makes it a blob of the store like others, once it [is complete](Partial::is_complete). Where its tree did not come
    /// with it, it is `hashed`. The blob can still be read here.
    pub fn adopt(&self, hashed: Option<&Outboard>) -> Result<()> {
        let blobs = self.store.blobs();
        let read_only = Permissions::from_mode(0o444);
        self.data.set_permissions(read_only).map_err(|error| self.failed(error))?;
        let partials = self.store.partials();
        let mut kept = 0;
        if blobs.adopt(&self.digest, &partials.folder, &self.names.data)? {
            kept += on_disk(self.tree.size());
        }
        if self.tree.size() > OUTBOARD_ABOVE_LEN {
            match self.adopt_outboard(hashed) {
                Ok(()) => kept += on_disk(self.tree.outboard_len()),
                Err(error) => {
                    tracing::debug!(digest = %self.digest, %error, "the tree of a blob is not kept");
                }
            }
        }
        partials.remove(&self.names);
        self.give_back_all_but(kept);
        Ok(())
    }

    fn adopt_outboard(&self, hashed: Option<&Outboard>) -> Result<()> {
        if let Some(outboard) = hashed {
            let mut file = self.outboard.lock();
            let written = file.file().write_all_at(outboard.as_bytes(), 0);
            file.forget();
            written.map_err(|error| self.failed(error))?;
        }
        let folder = &self.store.partials().folder;
        self.store.blobs().adopt_outboard(&self.digest, folder, &self.names.outboard)
    }

    /// Removes it: what is here is not to be believed.
    pub fn discard(&self) {
        self.store.partials().remove(&self.names);
        self.give_back_all_but(0);
        let mut state = self.state.lock();
        (state.present, state.unchecked) = (RangeSet::default(), RangeSet::default());
    }

    /// What the files take of the disk, in bytes.
    fn taken(&self) -> u64 {
        let outboard = self.outboard.lock();
        let files = [&*self.data, outboard.file()].map(File::metadata);
        files.into_iter().flatten().map(|metadata| metadata.blocks() * STAT_BLOCK_LEN).sum()
    }

    /// Of what was reserved, `kept` bytes are another's business from now on, and the rest is free.
    fn give_back_all_but(&self, kept: u64) {
        let reserved = std::mem::take(&mut self.state.lock().reserved);
        self.store.release(reserved.saturating_sub(kept));
    }
}

impl Drop for Partial {
    /// What was reserved by the piece may be more than the files take in the end.
    fn drop(&mut self) {
        let reserved = self.state.get_mut().reserved;
        if reserved > 0 {
            self.store.release(reserved.saturating_sub(self.taken()));
        }
    }
}

/// Finds out which groups are here.
struct Checking<'a> {
    partial: &'a Partial,
    /// The first group that is not decided.
    next: u64,
}

impl Visit for Checking<'_> {
    type Error = TreeMismatch;

    fn node(&mut self, index: u64) -> Result<Option<TreeNode>, TreeMismatch> {
        // What cannot be read is not here.
        Ok(self.partial.node(index).unwrap_or(None))
    }

    fn group(&mut self, group: Checked) -> Result<(), TreeMismatch> {
        let bytes = self.partial.tree.bytes_of(&(group.group..group.group + 1));
        let read = self.partial.read(&bytes);
        let is_right = read.is_ok_and(|read| check_group(group, &read).is_ok());
        self.partial.settle(&bytes, is_right);
        self.next = group.group + 1;
        Ok(())
    }
}
