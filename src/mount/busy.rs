//! Who keeps a filesystem from being unmounted.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::mountpoint::device_at;

/// How many users are looked for; more would not be read.
const USERS_MAX: usize = 16;

/// A process that uses a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its process id.
    pub pid: u32,
    /// The name of its command.
    pub command: String,
    /// How it uses the filesystem.
    pub how: &'static str,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, {})", self.command, self.pid, self.how)
    }
}

/// The processes that use the filesystem with this device number, as far as this user may see them. It is not asked
/// anything itself, and neither are others that may not answer.
pub fn users(device: u64) -> io::Result<Vec<User>> {
    let mut users = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        if let Some(how) = how_used(&process.path(), device) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            users.push(User { pid, command: command.trim().to_owned(), how });
            if users.len() == USERS_MAX {
                break;
            }
        }
    }
    Ok(users)
}

fn how_used(process: &Path, device: u64) -> Option<&'static str> {
    let is_there = |path: PathBuf| device_at(&path).is_ok_and(|there| there == device);
    for (link, how) in [("cwd", "working directory"), ("root", "root"), ("exe", "program")] {
        if is_there(process.join(link)) {
            return Some(how);
        }
    }
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    if files.into_iter().any(|file| is_there(file.path())) {
        return Some("open file");
    }
    // "begin-end permissions offset major:minor inode path", the device numbers in hexadecimal.
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    let wanted = format!("{:02x}:{:02x}", libc::major(device), libc::minor(device));
    maps.lines()
        .any(|line| line.split_ascii_whitespace().nth(3) == Some(&wanted))
        .then_some("mapped file")
}
