//! A process's folder of blobs on their way, and what becomes of it when the process is gone.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};

use crate::{castore::Digest, observe::event};

const LOCK: &str = "lock";
const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder in `staging/` that belongs to this process for as long as it lives.
#[derive(Debug)]
pub(super) struct Session {
    staging: OwnedFd,
    name: String,
    /// The folder itself.
    pub(super) folder: OwnedFd,
    /// Holds the lock.
    _lock: OwnedFd,
}

impl Session {
    /// Makes a folder and locks it. The caller holds the lock on `staging`, so that nobody takes the folder for that
    /// of a dead process in the moment before it is locked.
    pub(super) fn start(staging: OwnedFd) -> io::Result<Self> {
        let process = std::process::id();
        let mut attempt = 0u32;
        let name = loop {
            let name = format!("{process}-{attempt}");
            match rustix::fs::mkdirat(&staging, &name, Mode::from(0o755)) {
                Ok(()) => break name,
                Err(Errno::EXIST) => attempt += 1,
                Err(errno) => return Err(errno.into()),
            }
        };
        let folder = rustix::fs::openat(&staging, &name, FOLDER_FLAGS, Mode::empty())?;
        let lock = try_lock(&folder)?.ok_or(Errno::WOULDBLOCK)?;
        Ok(Session { staging, name, folder, _lock: lock })
    }

    /// Removes the folder, which is empty but for the lock.
    pub(super) fn remove(&self) -> io::Result<()> {
        rustix::fs::unlinkat(&self.folder, LOCK, AtFlags::empty())?;
        rustix::fs::unlinkat(&self.staging, &self.name, AtFlags::REMOVEDIR)?;
        Ok(())
    }
}

/// Locks a session's folder. `None` if a living process holds it.
fn try_lock(folder: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(folder, LOCK, flags, Mode::from(0o644))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Finishes the sessions of dead processes: blobs that are what their names say move into `blobs`, all else goes.
/// The caller holds the lock on `staging`.
pub(super) fn tidy(staging: &OwnedFd, blobs: &OwnedFd) -> io::Result<()> {
    for name in names(staging)? {
        let folder = match rustix::fs::openat(staging, &name, FOLDER_FLAGS, Mode::empty()) {
            Ok(folder) => folder,
            // Its owner has just removed it; or it is none of ours.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let lock = match try_lock(&folder) {
            Ok(Some(lock)) => lock,
            Ok(None) => continue,
            // Its owner removed it after it was opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (kept, removed) = finish(&folder, blobs)?;
        rustix::fs::unlinkat(&folder, LOCK, AtFlags::empty())?;
        rustix::fs::unlinkat(staging, &name, AtFlags::REMOVEDIR)?;
        drop(lock);
        tracing::info!(
            event = event::TIDIED,
            session = name,
            kept,
            removed,
            "tidied up after a process that died"
        );
    }
    Ok(())
}

/// Empties a dead session's folder but for its lock. Says how many files were kept and how many were not.
fn finish(folder: &OwnedFd, blobs: &OwnedFd) -> io::Result<(usize, usize)> {
    let mut complete = Vec::new();
    let mut removed = 0;
    for name in names(folder)? {
        if name == LOCK {
            continue;
        }
        match parse_name(&name) {
            Some(digest) if holds(folder, &name, &digest)? => complete.push(digest),
            _ => {
                rustix::fs::unlinkat(folder, &name, AtFlags::empty())?;
                removed += 1;
            }
        }
    }
    if !complete.is_empty() {
        // What the process wrote may be in memory only.
        rustix::fs::syncfs(blobs)?;
    }
    for digest in &complete {
        publish(folder, blobs, digest)?;
    }
    Ok((complete.len(), removed))
}

/// Whether the file is what its name says.
fn holds(folder: &OwnedFd, name: &str, digest: &Digest) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(Digest::from(hasher.finalize()) == *digest)
}

/// Moves a staged blob to where all see it. Returns whether it was not there before.
pub(super) fn publish(folder: &OwnedFd, blobs: &OwnedFd, digest: &Digest) -> io::Result<bool> {
    let (from, to) = (digest.to_hex(), blob_path(digest));
    match rustix::fs::renameat_with(folder, &from, blobs, &to, RenameFlags::NOREPLACE) {
        // Another process was first: its file has the same contents, and may be open already.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(folder, &from, AtFlags::empty())?;
            return Ok(false);
        }
        // Some file systems cannot refuse to replace. That is harmless, the contents being the same.
        Err(Errno::INVAL) => rustix::fs::renameat(folder, &from, blobs, &to)?,
        result => result?,
    }
    Ok(true)
}

/// Where a blob lies below `blobs`.
pub(super) fn blob_path(digest: &Digest) -> String {
    let hex = digest.to_hex();
    format!("{}/{hex}", &hex[..2])
}

/// The digest that a staged blob's name is, if it is one as we write it.
pub(super) fn parse_name(name: &str) -> Option<Digest> {
    name.parse().ok().filter(|digest: &Digest| digest.to_hex() == name)
}

/// The names in a folder; those that are not UTF-8 cannot be ours.
fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
