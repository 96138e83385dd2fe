//! The inodes that kernels know.
//!
//! An inode is here from the first time it is handed to a kernel until each kernel has forgotten it as often as it
//! was handed over. Kernels know of it apart from each other: a number means nothing to one that was not given it
//! through its own [view](super::Vfs), whatever others were given. Directory objects are not kept here: how long data stays in memory is the business of caches.
//!
//! Lock order: one shard at a time, and nothing else while it is held.

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicUsize, Ordering},
};

use indexmap::{IndexMap, map::Entry};
use parking_lot::Mutex;

use super::{
    Error, Ino, Inode, Result,
    holders::{Holders, Left, ViewId},
    memory,
};
use crate::castore::NodeRef;

/// How many parts the table has, each with its own lock.
const SHARDS: usize = 64;

/// A shard gives memory back once less than this share of it is used.
const SHRINK_BELOW: usize = 4;

/// A shard this small keeps what it has.
const SHRINK_ENTRIES_MIN: usize = 64;

/// After so many inodes were dropped, the allocator is asked to give memory back.
const GIVE_BACK_EVERY: usize = 100_000;

/// Inode numbers are hashes already.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("inode numbers hash as one u64");
    }

    fn write_u64(&mut self, number: u64) {
        // A collision of shard and bucket bits is avoided by mixing; see Knuth's multiplicative hashing.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Packed densely: a table that is half empty, as hash tables may be, costs little more than a full one.
type Shard = IndexMap<Ino, Known, BuildHasherDefault<NumberHasher>>;

struct Known {
    inode: Inode,
    /// Who was given this inode and has not forgotten it.
    holders: Holders,
}

/// The table of known inodes. The root is always known, and to everybody.
pub struct InodeTable {
    shards: Box<[Mutex<Shard>]>,
    dropped: AtomicUsize,
}

impl InodeTable {
    /// A table that knows the root.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        InodeTable { shards, dropped: AtomicUsize::new(0) }
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.raw() >> 8) as usize % SHARDS]
    }

    /// What the number stands for to the view, seen by `look` under the shard's lock.
    pub fn with<T>(&self, view: ViewId, ino: Ino, look: impl FnOnce(&Inode) -> T) -> Result<T> {
        if ino == Ino::ROOT {
            return Ok(look(&Inode::Root));
        }
        let shard = self.shard(ino).lock();
        let known = shard.get(&ino).filter(|known| known.holders.has(view));
        known.map(|known| look(&known.inode)).ok_or(Error::Stale)
    }

    /// Hands `node`, found under `name` in `parent`, to the view once more. Returns its number, and whether the view
    /// did not have it before.
    pub fn remember(
        &self,
        view: ViewId,
        parent: Ino,
        name: &[u8],
        node: NodeRef<'_>,
    ) -> (Ino, bool) {
        let mut ino = Ino::derive(parent, name, node);
        loop {
            match self.shard(ino).lock().entry(ino) {
                Entry::Vacant(vacant) => {
                    let (inode, holders) = (Inode::new(parent, node), Holders::new(view));
                    vacant.insert(Known { inode, holders });
                    return (ino, true);
                }
                Entry::Occupied(mut occupied) => {
                    if same(&occupied.get().inode, parent, node) {
                        return (ino, occupied.get_mut().holders.add(view));
                    }
                }
            }
            // Two things with one 64-bit hash: the later one moves on. A number never means two things.
            ino = ino.next();
        }
    }

    /// The view knows the inode from one more place: a lookup of `.` or `..`.
    pub fn remember_again(&self, view: ViewId, ino: Ino) -> Result<()> {
        if ino != Ino::ROOT {
            let mut shard = self.shard(ino).lock();
            let known = shard.get_mut(&ino).filter(|known| known.holders.has(view));
            known.ok_or(Error::Stale)?.holders.add(view);
        }
        Ok(())
    }

    /// The view takes back `count` of the times it was given the inode. `true` if it does not have it any more.
    pub fn forget(&self, view: ViewId, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Entry::Occupied(mut known) = shard.entry(ino) else { return false };
        match known.get_mut().holders.forget(view, count) {
            Left::Unchanged => return false,
            Left::Others => return true,
            Left::Nobody => known.swap_remove(),
        };
        shrink(&mut shard);
        drop(shard);
        if (self.dropped.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(GIVE_BACK_EVERY) {
            memory::give_back();
        }
        true
    }

    /// The view has ended: it takes everything back.
    pub fn forget_all(&self, view: ViewId) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, known| known.holders.forget_all(view) != Left::Nobody);
            shrink(&mut shard);
        }
    }

    /// How many inodes are known to anyone, besides the root.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether nobody knows anything but the root.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for InodeTable {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives memory back if little of it is used.
fn shrink(shard: &mut Shard) {
    if shard.capacity() > SHRINK_ENTRIES_MIN && shard.len() < shard.capacity() / SHRINK_BELOW {
        let keep = shard.len() * 2;
        shard.shrink_to(keep);
    }
}

/// Whether `inode` is what `node` in `parent` would become. For a directory the place has been compared by its
/// number only, so its parent is compared here.
fn same(inode: &Inode, parent: Ino, node: NodeRef<'_>) -> bool {
    match (inode, node) {
        (
            Inode::Directory { digest, size, parent: known_parent },
            NodeRef::Directory { digest: d, size: s },
        ) => *known_parent == parent && *digest == d && *size == s,
        // A directory may lie about the size: it must not spoil the file for those that tell the truth.
        (
            Inode::File { digest, size, executable },
            NodeRef::File { digest: d, size: s, executable: e },
        ) => *digest == d && *size == s && *executable == e,
        (Inode::Symlink { target }, NodeRef::Symlink { target: t }) => **target == *t,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::holders::ViewIds, *};
    use crate::castore::Digest;

    fn table() -> (InodeTable, ViewId, ViewId) {
        let mut ids = ViewIds::default();
        (InodeTable::new(), ids.take(), ids.take())
    }

    fn file(contents: &[u8], executable: bool) -> NodeRef<'static> {
        NodeRef::File { digest: Digest::of(contents), size: contents.len() as u64, executable }
    }

    #[test]
    fn an_inode_lives_until_it_is_forgotten_as_often_as_it_was_given() {
        let (table, view, _) = table();
        let ino = table.remember(view, Ino::ROOT, b"a", file(b"x", false)).0;
        assert_eq!(table.remember(view, Ino::ROOT, b"b", file(b"x", false)).0, ino);
        table.forget(view, ino, 1);
        assert!(table.with(view, ino, |_| ()).is_ok());
        table.forget(view, ino, 1);
        assert!(matches!(table.with(view, ino, |_| ()), Err(Error::Stale)));
        assert!(table.is_empty());
    }

    #[test]
    fn the_root_cannot_be_forgotten() {
        let (table, view, _) = table();
        table.forget(view, Ino::ROOT, u64::MAX);
        assert_eq!(table.with(view, Ino::ROOT, Inode::clone).ok(), Some(Inode::Root));
    }

    #[test]
    fn what_one_view_was_given_is_nothing_to_another() {
        let (table, one, other) = table();
        let (ino, new) = table.remember(one, Ino::ROOT, b"a", file(b"x", false));
        assert!(new);
        assert!(matches!(table.with(other, ino, |_| ()), Err(Error::Stale)));
        assert!(matches!(table.remember_again(other, ino), Err(Error::Stale)));
        assert!(!table.forget(other, ino, u64::MAX), "it had nothing to give back");
        assert!(table.with(one, ino, |_| ()).is_ok());
        assert_eq!(table.remember(other, Ino::ROOT, b"a", file(b"x", false)), (ino, true));
        assert_eq!(table.len(), 1);
        table.forget_all(one);
        assert!(matches!(table.with(one, ino, |_| ()), Err(Error::Stale)));
        assert!(table.with(other, ino, |_| ()).is_ok());
        assert!(table.forget(other, ino, 1));
        assert!(table.is_empty());
    }

    #[test]
    fn a_number_never_means_two_things() {
        // Two digests that agree in the bytes the number is made of.
        let digest = |last: u8| {
            let mut bytes = [7; 32];
            bytes[31] = last;
            Digest::from(bytes)
        };
        let node = |last| NodeRef::File { digest: digest(last), size: 1, executable: false };
        let (table, view, _) = table();
        let first = table.remember(view, Ino::ROOT, b"a", node(1)).0;
        let second = table.remember(view, Ino::ROOT, b"b", node(2)).0;
        assert_ne!(first, second);
        assert_eq!(table.remember(view, Ino::ROOT, b"c", node(2)).0, second);
        table.forget(view, second, 2);
        assert_eq!(table.remember(view, Ino::ROOT, b"a", node(1)).0, first);
    }

    #[test]
    fn an_inode_takes_at_most_120_bytes_and_memory_comes_back() {
        let (table, view, _) = table();
        let inos: Vec<_> = (0..100_000u32)
            .map(|n| table.remember(view, Ino::ROOT, b"", file(&n.to_le_bytes(), false)).0)
            .collect();
        let capacity = |table: &InodeTable| -> usize {
            table.shards.iter().map(|shard| shard.lock().capacity()).sum()
        };
        // An entry holds its hash, the index refers to it by number and has a byte of its own for it.
        let entry = size_of::<(u64, Ino, Known)>();
        let bytes = inos.len() * entry + capacity(&table) * 8 / 7 * (size_of::<usize>() + 1);
        assert!(bytes / inos.len() <= 120, "{} bytes an inode", bytes / inos.len());
        for ino in inos {
            table.forget(view, ino, 1);
        }
        assert!(capacity(&table) <= SHARDS * SHRINK_ENTRIES_MIN * 2);
    }
}
