//! Where in the tree something is.

use std::{ffi::OsString, fs::File, os::unix::ffi::OsStringExt as _, path::PathBuf, sync::Arc};

use bytes::Bytes;
use rustix::{
    fd::{AsFd as _, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags},
};

/// A name and the directories above it, from which its path can be told when an error needs it.
///
/// In a deep tree whole paths would be long and many; this costs one name a directory.
#[derive(Debug)]
pub(super) struct Place {
    parent: Option<Arc<Place>>,
    name: Bytes,
}

/// A place, with the directory that its name can be opened in.
#[derive(Debug)]
pub(super) struct Located {
    /// `None` is the working directory: the place is the root, and its name a whole path.
    pub(super) directory: Option<Arc<OwnedFd>>,
    pub(super) place: Place,
}

impl Place {
    pub(super) fn root(path: Bytes) -> Self {
        Place { parent: None, name: path }
    }

    pub(super) fn child(parent: &Arc<Place>, name: Bytes) -> Self {
        Place { parent: Some(parent.clone()), name }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The path, beginning with that of the root.
    pub(super) fn path(&self) -> PathBuf {
        let mut names = vec![&self.name];
        let mut place = self;
        while let Some(parent) = &place.parent {
            names.push(&parent.name);
            place = parent;
        }
        names.iter().rev().map(|name| OsString::from_vec(name.to_vec())).collect()
    }
}

impl Drop for Place {
    /// Frees a chain of places one by one: left to itself, that would recurse as deep as the tree.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut place) = next.and_then(Arc::into_inner) {
            next = place.parent.take();
        }
    }
}

impl Located {
    /// What [`Place::name`] is relative to.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        match &self.directory {
            Some(directory) => directory.as_fd(),
            None => rustix::fs::CWD,
        }
    }
    /// Opens a file to be read once.
    pub(super) fn open_file(&self) -> rustix::io::Result<File> {
        // NONBLOCK: whatever it has become since it was listed, opening it must not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(self.directory(), self.place.name(), flags, Mode::empty())
            .map(File::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_the_root_down() {
        let root = Arc::new(Place::root("some/root".into()));
        let inner = Arc::new(Place::child(&root, "inner".into()));
        let file = Place::child(&inner, Bytes::from_static(b"\xff"));
        assert_eq!(file.path().into_os_string().into_vec(), b"some/root/inner/\xff");
        assert_eq!(root.path(), PathBuf::from("some/root"));
    }

    #[test]
    fn a_long_chain_is_freed_without_recursion() {
        let mut place = Arc::new(Place::root("/".into()));
        for _ in 0..1_000_000 {
            place = Arc::new(Place::child(&place, "d".into()));
        }
        drop(place);
    }
}
