//! What stands for systemd: a socket that takes the messages of services.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::SOON;

/// Takes the messages of a service, as systemd does.
pub struct Supervisor {
    socket: UnixDatagram,
    /// All messages so far.
    pub messages: Vec<String>,
}

impl Supervisor {
    pub fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).expect("it can be bound"))
    }

    pub fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        Supervisor { socket, messages: Vec::new() }
    }

    /// Takes what has come. Returns whether that was anything.
    pub fn take(&mut self) -> bool {
        let mut message = [0; 4096];
        let Ok(len) = self.socket.recv(&mut message) else { return false };
        self.messages.push(String::from_utf8(message[..len].to_vec()).expect("text"));
        true
    }

    /// Waits for a message with this text, from now on, and returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if self.take()
                && let Some(last) = self.messages.last()
                && last.contains(text)
            {
                return last.clone();
            }
            assert!(start.elapsed() < SOON, "no {text:?} among {:?}", self.messages);
        }
    }
}

/// The address in the line that says where something listens.
pub fn address_of(line: &str) -> String {
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    address.expect("it says where").trim_matches('"').to_owned()
}
