//! Mounts of ours, as the kernel lists them.

use std::{env, fs, io, os::unix::ffi::OsStrExt as _, path::Path};

/// The kernel's list of mounts, as this process sees it.
const MOUNTS: &str = "/proc/self/mountinfo";

/// What the kernel calls our filesystems.
const KIND: &str = "fuse.lazystore";

/// A mount, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its device number.
    pub(super) device: u64,
    /// The user whose process serves it.
    pub(super) user: u32,
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
        let device = device_in(device).filter(|_| is_ours);
        let listed = device.map(|device| Listed { device, user: user_in(options).unwrap_or(0) });
        found = Some((depth, listed));
    }
    found.and_then(|(_, listed)| listed)
}

fn device_in(word: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
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

    fn seen(path: &str) -> Option<(u32, u32)> {
        let listed = find(LISTED, Path::new(path))?;
        assert_eq!(rustix::fs::major(listed.device), 0);
        Some((rustix::fs::minor(listed.device), listed.user))
    }

    #[test]
    fn the_mount_of_a_path_is_found_in_the_kernels_list() {
        assert_eq!(seen("/nix/store"), Some((57, 0)));
        assert_eq!(seen("/nix/store/some/where"), Some((57, 0)));
        assert_eq!(seen("/home/a b"), Some((58, 1000)));
        for none in ["/", "/nix", "/nix/storehouse", "/nix/store/over/x", "/over"] {
            assert_eq!(seen(none), None, "{none}");
        }
    }
}
