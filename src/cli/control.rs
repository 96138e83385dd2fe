//! Where a mount can be asked how it does.
//!
//! Each mount listens on a unix socket that is named after its device number, in a folder of its user's own. It answers
//! what `--metrics` does. So it can be found from the directory alone, needs no option, can be asked also while all of the
//! mount's threads wait (an extended attribute of its root could not), and shows a guest or a sandbox nothing.

use std::{
    env, fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

#[cfg(feature = "fuse")]
use {
    crate::serve::{Listener, Running, metrics},
    std::{
        os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
        time::Duration,
    },
    tokio::runtime::Handle,
};

/// Answers for the mount on `mountpoint`, for as long as the process lives. A mount without a socket works as well: only
/// nobody can ask it.
#[cfg(feature = "fuse")]
pub(super) fn answer(mountpoint: &Path, runtime: &Handle) {
    let listed = Listed::containing(mountpoint);
    let listed = listed.and_then(|listed| listed.ok_or_else(|| io::ErrorKind::NotFound.into()));
    let listener = {
        let _context = runtime.enter();
        listed.and_then(|listed| listed.listen())
    };
    match listener {
        Ok(listener) => {
            runtime.spawn(metrics::serve(listener, Running::new(Duration::ZERO)));
        }
        Err(error) => tracing::debug!(%error, "lazystore status cannot ask this mount"),
    }
}

/// The kernel's list of mounts, as this process sees it.
const MOUNTS: &str = "/proc/self/mountinfo";

/// What the kernel calls our filesystems.
const KIND: &str = "fuse.lazystore";

/// A mount, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its device number, as in `0:57`.
    device: String,
    /// The user whose process serves it.
    user: u32,
}

impl Listed {
    /// The mount that `path` is in. Does not look at the mount itself, which may not answer.
    pub(super) fn containing(path: &Path) -> io::Result<Option<Self>> {
        let mut path = env::current_dir()?.join(path);
        // What is above it may be symlinks.
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            path = fs::canonicalize(parent)?.join(name);
        }
        Ok(find(&fs::read(MOUNTS)?, &path))
    }

    /// Where its socket may be, the likeliest first.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        let mut folders = vec![folder_of(self.user)];
        folders.extend(own_folder());
        folders.dedup();
        folders.into_iter().map(|folder| self.socket_in(&folder)).collect()
    }

    fn socket_in(&self, folder: &Path) -> PathBuf {
        folder.join(format!("mount-{}.sock", self.device))
    }

    /// Listens on its socket.
    #[cfg(feature = "fuse")]
    pub(super) fn listen(&self) -> io::Result<Listener> {
        let folder = own_folder().ok_or_else(|| io::Error::other("XDG_RUNTIME_DIR is not set"))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let socket = self.socket_in(&folder);
        let listener = Listener::unix(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }
}

/// The folder of the sockets of this user.
fn own_folder() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(folder_of(0));
    }
    let folder = env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty())?;
    Some(PathBuf::from(folder).join("lazystore"))
}

fn folder_of(user: u32) -> PathBuf {
    match user {
        0 => PathBuf::from("/run/lazystore"),
        user => PathBuf::from(format!("/run/user/{user}/lazystore")),
    }
}

/// The mount of ours that `path` is in, unless another lies over it.
fn find(mounts: &[u8], path: &Path) -> Option<Listed> {
    let mut found: Option<(usize, Option<Listed>)> = None;
    for line in mounts.split(|byte| *byte == b'\n') {
        // "id parent major:minor root mountpoint options … - kind source super-options".
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(dash) = words.iter().position(|word| *word == b"-") else { continue };
        let (Some(device), Some(point)) = (words.get(2), words.get(4)) else { continue };
        let point = unescaped(point);
        let depth = Path::new(std::ffi::OsStr::from_bytes(&point));
        if !path.starts_with(depth) {
            continue;
        }
        let depth = depth.components().count();
        // Of those at one place the last is on top.
        if found.as_ref().is_some_and(|(deepest, _)| depth < *deepest) {
            continue;
        }
        let is_ours = words.get(dash + 1).is_some_and(|kind| *kind == KIND.as_bytes());
        let options = words.get(dash + 3).copied().unwrap_or_default();
        let listed = is_ours.then(|| Listed {
            device: String::from_utf8_lossy(device).into_owned(),
            user: user_in(options).unwrap_or(0),
        });
        found = Some((depth, listed));
    }
    found.and_then(|(_, listed)| listed)
}

fn user_in(options: &[u8]) -> Option<u32> {
    let options = std::str::from_utf8(options).ok()?;
    options.split(',').find_map(|option| option.strip_prefix("user_id="))?.parse().ok()
}

/// Spaces, tabs, newlines and backslashes stand there as a backslash and three octal digits.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let octal =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:57 / /nix/store ro,nosuid,nodev shared:4 - fuse.lazystore lazystore ro,user_id=0,group_id=0
91 22 0:58 / /home/a\\040b ro - fuse.lazystore lazystore ro,user_id=1000,group_id=100
92 90 0:59 / /nix/store/over rw - tmpfs tmpfs rw
93 22 0:60 / /over ro - fuse.lazystore lazystore ro,user_id=0
94 22 0:61 / /over rw - tmpfs tmpfs rw
";

    fn device(path: &str) -> Option<(String, u32)> {
        find(LISTED, Path::new(path)).map(|listed| (listed.device, listed.user))
    }

    #[test]
    fn the_mount_of_a_path_is_found_in_the_kernels_list() {
        assert_eq!(device("/nix/store"), Some(("0:57".to_owned(), 0)));
        assert_eq!(device("/nix/store/some/where"), Some(("0:57".to_owned(), 0)));
        assert_eq!(device("/home/a b"), Some(("0:58".to_owned(), 1000)));
        for none in ["/", "/nix", "/nix/storehouse", "/nix/store/over/x", "/over"] {
            assert_eq!(device(none), None, "{none}");
        }
    }

    #[test]
    fn a_socket_is_looked_for_where_the_mounts_user_has_it() {
        let listed = Listed { device: "0:58".to_owned(), user: 1000 };
        let expected = Path::new("/run/user/1000/lazystore/mount-0:58.sock");
        assert_eq!(listed.sockets().first().map(PathBuf::as_path), Some(expected));
    }
}
