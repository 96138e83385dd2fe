//! Sockets that the supervisor has opened: sd_listen_fds(3).

use std::{env, os::fd::OwnedFd};

use anyhow::{Context as _, bail, ensure};
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use tracing::warn;

use crate::{observe::event, serve::Listener};

/// How many there are.
const COUNT_VARIABLE: &str = "LISTEN_FDS";
/// For which process they are.
const PROCESS_VARIABLE: &str = "LISTEN_PID";
/// What they are called, with colons between.
const NAMES_VARIABLE: &str = "LISTEN_FDNAMES";

/// More are no sockets of ours, but a mistake.
const SOCKETS_MAX: usize = 64;

/// Kinds of sockets that nobody can connect to as a stream: only to be told.
const OTHER_KINDS: [(i32, i32, &str, &str); 3] = [
    (libc::AF_UNIX, libc::SOCK_DGRAM, "a unix datagram socket", "ListenDatagram="),
    (libc::AF_UNIX, libc::SOCK_SEQPACKET, "a unix packet socket", "ListenSequentialPacket="),
    (libc::AF_INET, libc::SOCK_DGRAM, "a UDP socket", "ListenDatagram="),
];

/// What was passed, each with its name. The sockets of another process, whose environment this one has inherited, are not
/// touched.
pub(in crate::cli) fn passed() -> anyhow::Result<Vec<(String, Listener)>> {
    let count = match env::var(COUNT_VARIABLE) {
        Ok(count) if !count.is_empty() => count,
        Ok(_) | Err(env::VarError::NotPresent) => return Ok(Vec::new()),
        Err(env::VarError::NotUnicode(_)) => bail!("{COUNT_VARIABLE} is no number"),
    };
    let process = env::var(PROCESS_VARIABLE).unwrap_or_default();
    if !process.is_empty() && process != std::process::id().to_string() {
        warn!(
            event = event::SOCKETS_IGNORED,
            LISTEN_PID = process,
            "the sockets that the environment speaks of are for another process, and not used"
        );
        return Ok(Vec::new());
    }
    let number = count.parse::<usize>();
    let count = number.with_context(|| format!("{COUNT_VARIABLE}={count:?} is no number"))?;
    ensure!(
        count <= SOCKETS_MAX,
        "{COUNT_VARIABLE}={count}: at most {SOCKETS_MAX} sockets can be used"
    );
    let names = env::var(NAMES_VARIABLE).unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut sockets = ListenFd::from_env();
    let take = |index: usize| {
        let name = match names.get(index) {
            Some(name) if !name.is_empty() && *name != "unknown" => {
                format!("socket {index} from systemd ({})", name.escape_debug())
            }
            _ => format!("socket {index} from systemd"),
        };
        let listener = take(&mut sockets, index).with_context(|| format!("cannot use {name}"))?;
        Ok((name, listener))
    };
    (0..count).map(take).collect()
}

fn take(sockets: &mut ListenFd, index: usize) -> anyhow::Result<Listener> {
    let streams = [(libc::AF_INET, "TCP socket"), (libc::AF_UNIX, "unix socket")];
    for (family, hint) in streams {
        let taken = sockets.take_custom::<OwnedFd>(index, family, libc::SOCK_STREAM, hint);
        let Ok(Some(socket)) = taken else { continue };
        ensure!(
            socket_acceptconn(&socket)?,
            "it is a connection, not a socket that listens: set Accept=no"
        );
        return Ok(Listener::from_fd(socket)?);
    }
    for (family, kind, what, setting) in OTHER_KINDS {
        if let Ok(Some(socket)) = sockets.take_custom::<OwnedFd>(index, family, kind, what) {
            drop(socket);
            bail!("it is {what} ({setting}): ListenStream= is needed");
        }
    }
    bail!("it is no socket that listens, or not open")
}
