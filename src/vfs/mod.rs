//! The filesystem without a kernel: what FUSE and virtiofs have in common.
//!
//! Nothing here knows errno values, message layouts or sockets; [`crate::mount`] translates. The tree is immutable:
//! what a number or a name below the root stands for never changes. Only the root gains names.
//!
//! A [`Tree`] is a store with its inodes and caches; a [`Vfs`] is a view of it for one kernel: which names its root
//! has, and which inodes that kernel was given. Many views may share a tree, and none reaches what only another was
//! given: the root lets through visible names only, every number is looked up as one of this view's, and everything
//! below a visible name may be seen.
//!
//! Operations that may have to fetch something are `async`. They are polled once in the thread of the request
//! ([`Answer::of`]), which completes them if what they need is at hand; only the others become tasks.
//!
//! Deliberately absent: writing (everything is read-only), file handles (a read names an inode, and nothing about
//! an open file needs remembering), and access checks (the kernel does them from the attributes).

mod answer;
mod error;
mod holders;
mod inode;
mod memory;
mod observer;
mod roots;
mod siblings;
mod table;
mod tree;
mod visible;
mod xattr;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::OwnedMutexGuard;

pub use answer::Answer;
pub use error::{Error, Result};
pub use holders::ViewId;
pub use inode::{Attributes, FileKind, Ino, Inode};
pub use observer::{Access, Observer};
pub use roots::ROOT_NAMES_MAX;
pub use table::InodeTable;
pub use tree::Tree;
pub use visible::{RootListing, Visible};

use visible::ViewRoot;

// What an adapter needs of the rooms below, so that it depends on this one alone.
pub use crate::{
    castore::NodeRef,
    service::{
        Error as ServiceError,
        blob::{LocalBlob, LocalPlace},
    },
};

use crate::{
    castore::{Digest, Directory, Node},
    nix::StorePath,
    service::{Stores, directory::DirectoryService},
};

/// What a view shows besides names and contents.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether the root lists everything in the store, or only what has been looked up.
    pub list_root: bool,
    /// Whether digests show as extended attributes.
    pub show_xattr: bool,
}

/// What `statfs(2)` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statfs {
    /// How many blocks there are, all of them used.
    pub blocks: u64,
    /// The size of a block, in bytes.
    pub block_size: u32,
    /// How many inodes there are, all of them used.
    pub files: u64,
    /// The longest name, in bytes.
    pub name_len_max: u32,
}

/// The filesystem as one kernel sees it: a view of a tree.
pub struct Vfs {
    tree: Arc<Tree>,
    /// Whose inodes are this kernel's.
    id: ViewId,
    root: ViewRoot,
    show_xattr: bool,
    observer: Option<Arc<dyn Observer>>,
    /// How many inodes the kernel knows, besides the root.
    known: AtomicU64,
    /// The sizes of the files that were looked up, in bytes. A file counts each time, so this tells an order of
    /// magnitude at best.
    bytes_seen: AtomicU64,
}

impl Vfs {
    /// A view of everything in a store, and the only one of its tree.
    pub fn new(stores: &Stores, options: Options) -> Self {
        Vfs::of(Arc::new(Tree::new(stores)), Visible::Everything, options)
    }

    /// A view of a tree.
    pub fn of(tree: Arc<Tree>, visible: Visible, options: Options) -> Self {
        Vfs {
            id: tree.begin_view(),
            root: ViewRoot::new(tree.roots.clone(), visible, options.list_root),
            show_xattr: options.show_xattr,
            observer: None,
            known: AtomicU64::new(0),
            bytes_seen: AtomicU64::new(0),
            tree,
        }
    }

    /// Tells `observer` from now on what is read.
    pub fn observed_by(mut self, observer: Option<Arc<dyn Observer>>) -> Self {
        self.observer = observer;
        self
    }

    /// The thread `reader` opens a file.
    pub fn observe_open(&self, ino: Ino, reader: u32) {
        if let Some(observer) = &self.observer {
            observer.accessed(ino, reader, Access::Open);
        }
    }

    /// The thread `reader` reads up to `len` bytes of a file at `offset`, which are `at_hand` or have to be fetched.
    pub fn observe_read(&self, ino: Ino, reader: u32, offset: u64, len: usize, at_hand: bool) {
        if let Some(observer) = &self.observer
            && let Ok((_, size)) = self.file(ino)
        {
            let len = size.saturating_sub(offset).min(len as u64);
            let fetched = !at_hand && !self.is_local();
            observer.accessed(ino, reader, Access::Read { len, fetched });
        }
    }

    /// As [`Vfs::lookup`], if what it takes is at hand; `None` if somebody has to be asked. Below the root it allocates
    /// nothing but room for the inode.
    pub fn lookup_at_hand(&self, parent: Ino, name: &[u8]) -> Result<Option<Attributes>> {
        match name {
            b"." => return self.lookup_again(parent).map(Some),
            b".." => return self.lookup_again(self.parent(parent)?).map(Some),
            _ => {}
        }
        if parent == Ino::ROOT {
            let known = self.root.known(name)?;
            return known.map(|node| self.remember(parent, name, node.as_ref())).transpose();
        }
        let digest = self.directory_digest(parent)?;
        let Some(directory) = self.tree.directories.get_local(&digest)? else { return Ok(None) };
        let entry = directory.find(name).ok_or(Error::NotFound)?;
        self.remember(parent, name, entry.node).map(Some)
    }

    /// Finds `name` in `parent` and hands the inode to the kernel: a [`Vfs::forget`] is owed.
    /// [`Error::NotFound`] if there is none.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attributes> {
        match self.lookup_at_hand(parent, name)? {
            Some(attributes) => Ok(attributes),
            None => self.ask(parent, name).await,
        }
    }

    /// As [`Vfs::lookup`], for what [`Vfs::lookup_at_hand`] did not find.
    pub async fn ask(&self, parent: Ino, name: &[u8]) -> Result<Attributes> {
        if parent == Ino::ROOT {
            let node = self.root.ask(name).await?;
            return self.remember(parent, name, node.as_ref());
        }
        let digest = self.directory_digest(parent)?;
        let directory = directory(&*self.tree.directories, &digest).await?;
        let entry = directory.find(name).ok_or(Error::NotFound)?;
        self.remember(parent, name, entry.node)
    }

    /// Hands an entry of a listing of `parent` to the kernel: a [`Vfs::forget`] is owed.
    pub fn remember(&self, parent: Ino, name: &[u8], node: NodeRef<'_>) -> Result<Attributes> {
        if let NodeRef::File { size, .. } = node {
            self.bytes_seen.fetch_add(size, Ordering::Relaxed);
        }
        let (ino, new) = self.tree.inodes.remember(self.id, parent, name, node);
        if new {
            self.known.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(observer) = &self.observer {
            observer.placed(parent, name, ino);
        }
        self.attributes(ino)
    }

    /// The number that [`Vfs::remember`] would most likely return, without handing anything to the kernel.
    pub fn number(&self, parent: Ino, name: &[u8], node: NodeRef<'_>) -> Ino {
        Ino::derive(parent, name, node)
    }

    fn lookup_again(&self, ino: Ino) -> Result<Attributes> {
        self.tree.inodes.remember_again(self.id, ino)?;
        self.attributes(ino)
    }

    /// Takes back `count` of the times the inode was handed to the kernel.
    pub fn forget(&self, ino: Ino, count: u64) {
        if self.tree.inodes.forget(self.id, ino, count) {
            self.known.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What `stat` tells.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes> {
        self.with(ino, |inode| inode.attributes(ino))
    }

    /// The directory that `ino`, a directory, lies in. The root lies in itself.
    pub fn parent(&self, ino: Ino) -> Result<Ino> {
        self.with(ino, |inode| match inode {
            Inode::Root => Ok(Ino::ROOT),
            Inode::Directory { parent, .. } => Ok(*parent),
            Inode::File { .. } | Inode::Symlink { .. } => Err(Error::NotDirectory),
        })?
    }

    /// Where a symlink points.
    pub fn readlink(&self, ino: Ino) -> Result<Box<[u8]>> {
        self.with(ino, |inode| match inode {
            Inode::Symlink { target } => Ok(target.clone()),
            Inode::Root | Inode::Directory { .. } | Inode::File { .. } => Err(Error::WrongKind),
        })?
    }

    /// The listing of the root.
    pub async fn root_listing(&self) -> OwnedMutexGuard<RootListing> {
        self.root.listing().await
    }

    /// The entries of a directory other than the root. They are always the same.
    pub async fn list(&self, ino: Ino) -> Result<Arc<Directory>> {
        let digest = self.directory_digest(ino)?;
        let listed = match self.tree.directories.get_local(&digest)? {
            Some(directory) => directory,
            None => directory(&*self.tree.directories, &digest).await?,
        };
        if let Some(siblings) = &self.tree.siblings {
            siblings.listed(&digest, &listed);
        }
        Ok(listed)
    }

    /// The contents of a file as an open local file, if they are here as one.
    pub fn local(&self, ino: Ino) -> Result<Option<LocalBlob>> {
        let (digest, size) = self.file(ino)?;
        check_size(self.tree.blobs.open_local(&digest)?, &digest, size)
    }

    /// As [`Vfs::local`], if only up to `len` bytes at `offset` will be read: the rest of the file need not be here.
    pub fn local_range(&self, ino: Ino, offset: u64, len: usize) -> Result<Option<LocalBlob>> {
        let (digest, size) = self.file(ino)?;
        if offset == 0
            && let Some(siblings) = &self.tree.siblings
        {
            siblings.read(&digest);
        }
        let range = offset..offset.saturating_add(len as u64);
        check_size(self.tree.blobs.open_local_range(&digest, size, &range)?, &digest, size)
    }

    /// Whether every file that is there is on this machine.
    pub fn is_local(&self) -> bool {
        self.tree.blobs.is_local()
    }

    /// Whether long files are read as if they were on this machine: one who is here lends them.
    pub async fn lends(&self) -> bool {
        self.tree.blobs.lends().await
    }

    /// The mean length of the blobs that are on this machine, in bytes, as far as that is known.
    pub fn mean_local_len(&self) -> Option<u64> {
        self.tree.blobs.mean_local_len()
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    pub async fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<Bytes>> {
        let (digest, size) = self.file(ino)?;
        let end = offset.saturating_add(len as u64).min(size);
        if offset >= end {
            return Ok(Vec::new());
        }
        let missing = || Error::Missing(format!("blob {digest}"));
        let stream = self.tree.blobs.read_sized(&digest, size, offset..end).await?;
        let mut stream = stream.ok_or_else(missing)?;
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            pieces.push(piece?);
        }
        // A blob that is shorter than its directory says must not read as one that ends early.
        let got: usize = pieces.iter().map(Bytes::len).sum();
        if got as u64 != end - offset {
            return Err(Error::Missing(format!("byte {} of blob {digest}", offset + got as u64)));
        }
        Ok(pieces)
    }

    /// The value of an extended attribute. `None` if they are turned off.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<String>> {
        if !self.show_xattr {
            return Ok(None);
        }
        self.with(ino, |inode| xattr::get(inode, name))?.map(Some)
    }

    /// The names of the extended attributes, each ended by a NUL. `None` if they are turned off.
    pub fn xattr_names(&self, ino: Ino) -> Result<Option<Vec<u8>>> {
        if !self.show_xattr {
            return Ok(None);
        }
        self.with(ino, xattr::list).map(Some)
    }

    /// Numbers for `statfs(2)`: how much there is in all cannot be known, so this tells what was seen so far. A
    /// read-only filesystem has nothing free.
    pub fn statfs(&self) -> Statfs {
        const BLOCK_SIZE: u32 = 4096;
        let seen = self.bytes_seen.load(Ordering::Relaxed);
        Statfs {
            blocks: seen.div_ceil(u64::from(BLOCK_SIZE)).max(1),
            block_size: BLOCK_SIZE,
            files: self.known.load(Ordering::Relaxed) + 1,
            name_len_max: crate::castore::NAME_LEN_MAX as u32,
        }
    }

    /// What the number stands for, for a log.
    pub fn describe(&self, ino: Ino) -> String {
        let text = self.with(ino, |inode| match inode {
            Inode::Root => "the root".to_owned(),
            Inode::Directory { digest, .. } => format!("directory {digest}"),
            Inode::File { digest, size, .. } => format!("blob {digest} of {size} bytes"),
            Inode::Symlink { .. } => "a symlink".to_owned(),
        });
        text.unwrap_or_else(|_| "nothing".to_owned())
    }

    /// What the number stands for, if this kernel was given it.
    fn with<T>(&self, ino: Ino, look: impl FnOnce(&Inode) -> T) -> Result<T> {
        self.tree.inodes.with(self.id, ino, look)
    }

    fn file(&self, ino: Ino) -> Result<(Digest, u64)> {
        self.with(ino, |inode| match inode {
            Inode::File { digest, size, .. } => Ok((*digest, *size)),
            Inode::Root | Inode::Directory { .. } => Err(Error::IsDirectory),
            Inode::Symlink { .. } => Err(Error::WrongKind),
        })?
    }

    /// The digest of a directory other than the root.
    fn directory_digest(&self, ino: Ino) -> Result<Digest> {
        self.with(ino, |inode| match inode {
            Inode::Directory { digest, .. } => Ok(*digest),
            Inode::Root | Inode::File { .. } | Inode::Symlink { .. } => Err(Error::NotDirectory),
        })?
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        self.tree.end_view(self.id);
    }
}

/// A file that lost its end must not read as one that ends early.
fn check_size(blob: Option<LocalBlob>, digest: &Digest, size: u64) -> Result<Option<LocalBlob>> {
    match blob {
        Some(blob) if blob.size != size => Err(Error::Missing(format!(
            "part of blob {digest} ({size} bytes according to its directory, {} here)",
            blob.size
        ))),
        blob => Ok(blob),
    }
}

fn missing(digest: &Digest) -> Error {
    Error::Missing(format!("directory {digest}"))
}

async fn directory(directories: &dyn DirectoryService, digest: &Digest) -> Result<Arc<Directory>> {
    directories.get(digest).await?.ok_or_else(|| missing(digest))
}

/// Finds the node at `inner`, a relative path, in a store path whose contents are `root`. Symlinks are not followed.
/// `None` if there is nothing there.
pub async fn descend(
    directories: &dyn DirectoryService,
    root: Node,
    inner: &[u8],
) -> Result<Option<Node>> {
    let mut node = root;
    for name in inner.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let Node::Directory { digest, .. } = node else { return Ok(None) };
        let parent = directory(directories, &digest).await?;
        match parent.find(name) {
            Some(entry) => node = entry.node.to_node(),
            None => return Ok(None),
        }
    }
    Ok(Some(node))
}

/// The contents of a store path. `None` if the store has none of exactly that name.
pub async fn store_path_node(stores: &Stores, store_path: &StorePath) -> Result<Option<Node>> {
    let path_info = stores.path_infos.get(&store_path.digest()).await?;
    Ok(path_info.filter(|info| info.store_path == *store_path).map(|info| info.node))
}
