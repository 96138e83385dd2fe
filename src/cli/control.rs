//! Where a mount can be asked how it does.
//!
//! Each mount listens on a unix socket in a folder of its user's own, and answers what `--metrics` does. So it can be
//! asked without any option, also while all of its threads wait (an extended attribute of its root could not), and shows a
//! guest or a sandbox nothing.
//!
//! The socket's name, as in `mount-0:39-12345.sock`, has the mount's device number, by which it is found from the
//! directory alone, and the number of the process that serves it. The kernel gives a device number out again as soon
//! as the mount is gone, which a process that ends may learn late: with a name of its own, none is in the way of the
//! next. Whatever else has the number of a mount that is attached is of one that is not any more.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::listed::Listed;
use crate::serve::Listener;

#[cfg(feature = "fuse")]
use {
    crate::{
        mount::mountpoint::Mountpoint,
        observe::event,
        serve::{Running, metrics},
    },
    std::{
        os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
        time::Duration,
    },
    tokio::runtime::Handle,
};

/// How many names a socket may have. More than the first are needed where processes of several PID namespaces share the
/// folder, and two have the same number.
#[cfg(feature = "fuse")]
const NAMES_MAX: usize = 16;

/// Answers for the mount for as long as the process lives. A mount without a socket works as well: only nobody can ask
/// it.
#[cfg(feature = "fuse")]
pub(super) fn answer(mountpoint: &Mountpoint, runtime: &Handle) {
    let _context = runtime.enter();
    let listener = match listen(mountpoint.device()) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::info!(
                event = event::CANNOT_BE_ASKED,
                "lazystore status cannot ask this mount: {error:#}"
            );
            return;
        }
    };
    // If it is gone, its number may be another's.
    if mountpoint.is_attached() {
        runtime.spawn(metrics::serve(listener, Running::new(Duration::ZERO)));
    }
}

/// Listens for the mount with this device number, in the first folder that can be had.
#[cfg(feature = "fuse")]
fn listen(device: u64) -> anyhow::Result<Listener> {
    let mut failed = anyhow::anyhow!("XDG_RUNTIME_DIR is not set");
    for folder in own_folders() {
        match listen_in(&folder, device) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error.context(format!("no socket in {}", folder.display())),
        }
    }
    Err(failed)
}

#[cfg(feature = "fuse")]
fn listen_in(folder: &Path, device: u64) -> anyhow::Result<Listener> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Those of processes that were killed.
    for left in named_after(device, folder)?.filter(|path| Listener::is_left_behind(path)) {
        let _ = fs::remove_file(left);
    }
    let prefix = prefix(device);
    let process = std::process::id();
    for nth in 0..NAMES_MAX {
        let name = match nth {
            0 => format!("{prefix}{process}{SUFFIX}"),
            nth => format!("{prefix}{process}.{nth}{SUFFIX}"),
        };
        let path = folder.join(name);
        match Listener::unix_where_nothing_is(&path) {
            Ok(listener) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                return Ok(listener);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("all its names are taken")
}

/// Where the mount can be asked. An error says why not.
pub(super) fn socket_of(mount: &Listed) -> anyhow::Result<PathBuf> {
    let mut folders = vec![folder_of(mount.user)];
    for folder in own_folders() {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let (mut found, mut closed) = (Vec::new(), None);
    for folder in &folders {
        match named_after(mount.device, folder) {
            Ok(paths) => found.extend(paths),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => closed = Some((folder, error)),
        }
    }
    match (served(found), closed) {
        (Some(socket), _) => Ok(socket),
        (None, Some((folder, error))) => {
            let folder = folder.display();
            Err(error).context(format!("cannot look into {folder}: is this its user?"))
        }
        (None, None) => {
            let folders: Vec<_> = folders.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "it has no socket in {}: it has only just begun, or has died, or cannot write there; \
                 then it can be asked where its --metrics says",
                folders.join(" or ")
            )
        }
    }
}

/// The newest of those that somebody serves: others are of mounts that were attached before. One that may not be looked
/// at is told of when it is asked.
fn served(mut paths: Vec<PathBuf>) -> Option<PathBuf> {
    let made = |path: &PathBuf| {
        let made = fs::symlink_metadata(path).map(|file| (file.mtime(), file.mtime_nsec())).ok();
        // Of one moment, the first name was there first.
        (made, path.as_os_str().len())
    };
    paths.sort_by_cached_key(made);
    paths.into_iter().rev().find(|path| !Listener::is_left_behind(path))
}

const SUFFIX: &str = ".sock";

fn prefix(device: u64) -> String {
    format!("mount-{}:{}-", rustix::fs::major(device), rustix::fs::minor(device))
}

/// The sockets in `folder` that were named after the mount with this device number, or an earlier one.
fn named_after(device: u64, folder: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    let prefix = prefix(device);
    let entries = fs::read_dir(folder)?.flatten();
    Ok(entries.map(|entry| entry.path()).filter(move |path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(SUFFIX))
    }))
}

/// The folders where this user may have sockets, the best first. Root in a user namespace may not be able to write to
/// root's.
fn own_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if rustix::process::geteuid().is_root() {
        folders.push(folder_of(0));
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    folders.extend(runtime.map(|folder| PathBuf::from(folder).join("lazystore")));
    folders
}

fn folder_of(user: u32) -> PathBuf {
    match user {
        0 => PathBuf::from("/run/lazystore"),
        user => PathBuf::from(format!("/run/user/{user}/lazystore")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_after_the_whole_device_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = ["mount-0:58-1.sock", "mount-0:58-77.3.sock"];
        let others =
            ["mount-0:5-8.sock", "mount-0:581-1.sock", "mount-1:58-1.sock", "mount-0:58-1"];
        for name in ours.into_iter().chain(others) {
            fs::write(folder.path().join(name), "").expect("written");
        }
        let mut found: Vec<_> =
            named_after(rustix::fs::makedev(0, 58), folder.path()).expect("it lists").collect();
        found.sort();
        assert_eq!(found, ours.map(|name| folder.path().join(name)));
    }

    #[test]
    fn the_socket_of_another_user_is_looked_for_where_that_user_has_it() {
        let nobody = 65_534;
        let mount = Listed { device: rustix::fs::makedev(0, 1_000_000), user: nobody };
        let error = format!("{:#}", socket_of(&mount).expect_err("there is none"));
        assert!(error.contains("no socket in /run/user/65534/lazystore"), "{error}");
    }

    #[cfg(feature = "fuse")]
    mod listening {
        use std::os::unix::net::{UnixListener, UnixStream};

        use super::*;

        const DEVICE: u64 = 58;

        fn names(folder: &Path) -> Vec<String> {
            let entries = fs::read_dir(folder).expect("it lists").flatten();
            let mut names: Vec<_> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }

        fn named(rest: &str) -> String {
            format!("{}{rest}.sock", prefix(DEVICE))
        }

        #[test]
        fn what_dead_processes_have_left_is_removed() {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path().join("new");
            fs::create_dir(&folder).expect("new");
            let ours = named(&std::process::id().to_string());
            let other = format!("{}1.sock", prefix(DEVICE + 1));
            for name in [&ours, &named("1"), &named("1.2"), &other] {
                drop(UnixListener::bind(folder.join(name)).expect("it is free"));
            }
            fs::write(folder.join(named("file")), "no socket").expect("written");
            let listener = listen_in(&folder, DEVICE).expect("it is ours");
            let mut expected = [ours.clone(), named("file"), other];
            expected.sort();
            assert_eq!(names(&folder), expected);
            let mode = fs::metadata(folder.join(&ours)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            drop(listener);
            assert!(!folder.join(ours).exists());
        }

        /// A process of another PID namespace may have the same number.
        #[test]
        fn what_another_serves_is_left_to_it() {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path().join("a/b");
            let process = std::process::id();
            let first = listen_in(&folder, DEVICE).expect("nobody has it");
            let second = listen_in(&folder, DEVICE).expect("there are more names");
            let both = [named(&format!("{process}.1")), named(&process.to_string())];
            assert_eq!(names(&folder), both);
            assert_eq!(served(paths(&folder)), Some(folder.join(&both[0])), "the newest");
            drop(second);
            UnixStream::connect(folder.join(&both[1])).expect("it is served still");
            assert_eq!(served(paths(&folder)), Some(folder.join(&both[1])));
            let many: Vec<_> = (1..NAMES_MAX).map(|_| listen_in(&folder, DEVICE)).collect();
            assert!(many.iter().all(Result::is_ok));
            let error = listen_in(&folder, DEVICE).expect_err("all are taken");
            assert!(error.to_string().contains("all its names are taken"));
            drop((first, many));
            assert!(names(&folder).is_empty());
        }

        #[test]
        fn of_those_that_are_served_the_newest_answers() {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path();
            assert_eq!(served(paths(folder)), None);
            let bind = |name, second| {
                let path = folder.join(named(name));
                let listener = UnixListener::bind(&path).expect("it is free");
                let time = rustix::fs::Timespec { tv_sec: second, tv_nsec: 0 };
                let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).expect("it is ours");
                listener
            };
            let (_old, newer, dead) = (bind("3", 1000), bind("1", 2000), bind("2", 3000));
            drop(dead);
            assert_eq!(served(paths(folder)), Some(folder.join(named("1"))));
            drop(newer);
            assert_eq!(served(paths(folder)), Some(folder.join(named("3"))));
        }

        fn paths(folder: &Path) -> Vec<PathBuf> {
            named_after(DEVICE, folder).expect("it lists").collect()
        }
    }
}
