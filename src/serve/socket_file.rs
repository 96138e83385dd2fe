//! The file of a unix socket.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The file of a socket that this process has bound. Dropping it removes the file, unless another is there by then:
/// whoever finds a socket that nobody serves may replace it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// What was bound. Held open, so that the number of its inode is not given to another file.
    bound: File,
}

impl SocketFile {
    /// For what has just been bound at `path`.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let bound = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(SocketFile { path: path.to_owned(), bound })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is_there(&self) -> io::Result<bool> {
        let (there, bound) = (fs::symlink_metadata(&self.path)?, self.bound.metadata()?);
        Ok((there.dev(), there.ino()) == (bound.dev(), bound.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let removed = match self.is_there() {
            Ok(true) => fs::remove_file(&self.path),
            // It was replaced.
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove a socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::serve::Listener;

    #[test]
    fn the_file_goes_with_whoever_bound_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        drop(Listener::unix(&path).expect("it is free"));
        assert!(!path.exists());
        // One that is gone already harms nobody.
        let listener = Listener::unix(&path).expect("it is free");
        fs::remove_file(&path).expect("it is there");
        drop(listener);
    }

    #[test]
    fn the_file_of_another_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let Listener::Unix(file, listener) = Listener::unix(&path).expect("it is free") else {
            panic!("it is a unix socket");
        };
        // From here on it is taken for one that a dead server has left.
        drop(listener);
        let other = Listener::unix(&path).expect("it can be replaced");
        drop(file);
        UnixStream::connect(&path).expect("the other one is served");
        drop(other);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_is_served_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let served = Listener::unix(&path).expect("it is free");
        let error = Listener::unix(&path).expect_err("somebody has it");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("it is served still");
        drop(served);
    }
}
