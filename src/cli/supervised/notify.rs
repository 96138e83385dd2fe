//! What a service tells its supervisor: sd_notify(3), a datagram a message.
//!
//! The address comes from the environment, which may be anything: what is no address is told once and not used, and a
//! socket that nobody reads from holds a message up for a bounded time.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

use crate::observe::event;

/// Where messages go.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// How long a message may wait for room.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest status, in bytes: it is a line.
const STATUS_LEN_MAX: usize = 1024;

/// How much longer than the requests under way the rest of an end may take.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// Tells the supervisor, if there is one.
#[derive(Debug)]
pub(super) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// To the supervisor that the environment names.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty()) else {
            return Notifier(None);
        };
        let opened = address(name.as_bytes()).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok((socket, address))
        });
        let opened = opened.inspect_err(|error| {
            warn!(
                event = event::SUPERVISOR_LOST,
                %error,
                "the supervisor is told nothing: {SOCKET_VARIABLE} is of no use"
            );
        });
        Notifier(opened.ok())
    }

    /// Whether anybody listens.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// It answers from now on, or again after a reload.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// What it does, in a sentence.
    pub(super) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", line(status)));
    }

    /// It begins to reload; [`Notifier::ready`] has to follow.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// It is to end, for which it may take as long as `drain`.
    pub(super) fn stopping(&self, drain: Duration) {
        let micros = drain.saturating_add(STOP_MARGIN).as_micros();
        self.send(&format!("STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={micros}"));
    }

    /// It makes progress.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            debug!(%error, message, "the supervisor does not listen");
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected an absolute path, or a name behind an @",
        )),
    }
}

/// A text as one line that is not too long.
fn line(text: &str) -> String {
    let end = text.floor_char_boundary(STATUS_LEN_MAX);
    text[..end].replace(['\n', '\r', '\0'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused() {
        for name in [&b"relative"[..], b"vsock:2:1", b"/\0", &[b'/'; 200], &[b'@'; 200]] {
            assert!(address(name).is_err(), "{name:?}");
        }
        for name in [&b"/run/systemd/notify"[..], b"@/org/freedesktop", b"@\xff\xfe"] {
            assert!(address(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_status_cannot_bring_other_messages() {
        assert_eq!(line("a\nMAINPID=1"), "a MAINPID=1");
        let long = "ä".repeat(STATUS_LEN_MAX);
        assert_eq!(line(&long).len(), STATUS_LEN_MAX);
    }
}
