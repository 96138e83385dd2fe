//! Where servers listen.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{fs::FileTypeExt as _, net::UnixListener},
    },
    path::Path,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use super::SocketFile;

/// A socket that listens already.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A unix socket, and its file if it is ours to remove. The file goes first, while the socket still listens: nobody
    /// takes it for one that a dead server has left.
    Unix(Option<SocketFile>, UnixListener),
}

pub(super) enum Bound {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Listens on a TCP address.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Listener::Tcp(TcpListener::bind(address)?))
    }

    /// Listens on a unix socket at `path`. A socket that a dead server left there is replaced, one that is served is
    /// an error, and so is any other file.
    pub fn unix(path: &Path) -> io::Result<Self> {
        if Listener::is_left_behind(path) {
            fs::remove_file(path)?;
        }
        Listener::unix_where_nothing_is(path)
    }

    /// The same, where any file is an error.
    pub fn unix_where_nothing_is(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        Ok(Listener::Unix(Some(SocketFile::of(path)?), listener))
    }

    /// Whether a socket is at `path` that nobody serves.
    pub fn is_left_behind(path: &Path) -> bool {
        if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            return false;
        }
        // One that is served, and whose queue is full, is not waited for.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (Ok(client), Ok(address)) = (client, SocketAddrUnix::new(path)) else { return false };
        connect(&client, &address) == Err(Errno::CONNREFUSED)
    }

    /// Takes a socket that somebody else has bound, as systemd does.
    pub fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        let socket = TcpListener::from(socket);
        if socket.local_addr().is_ok() {
            return Ok(Listener::Tcp(socket));
        }
        let socket = UnixListener::from(OwnedFd::from(socket));
        socket.local_addr()?;
        Ok(Listener::Unix(None, socket))
    }

    /// The TCP address, where the system chose the port.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// Whether only processes of this machine can connect.
    pub fn is_of_this_machine(&self) -> bool {
        match self {
            Listener::Tcp(listener) => {
                listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
            }
            Listener::Unix(..) => true,
        }
    }

    pub(super) fn into_tokio(self) -> io::Result<(Bound, Option<SocketFile>)> {
        match self {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok((Bound::Tcp(tokio::net::TcpListener::from_std(listener)?), None))
            }
            Listener::Unix(file, listener) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::UnixListener::from_std(listener)?;
                Ok((Bound::Unix(listener), file))
            }
        }
    }
}
