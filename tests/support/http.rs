//! `lazystore serve`, and the least of a client for it.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use crate::support::Running;

/// A server that is ended when the test ends.
pub struct Server {
    pub running: Running,
    pub client: Client,
}

/// Asks a server.
#[derive(Clone)]
pub struct Client {
    /// As in `127.0.0.1:80`.
    pub address: String,
}

/// What was answered.
pub struct Answer {
    pub status: u16,
    headers: String,
    pub body: Vec<u8>,
}

impl Server {
    pub fn start(lazystore: &mut Command, args: &[&str]) -> Self {
        lazystore.args(["serve", "--listen", "127.0.0.1:0"]).args(args);
        let mut running = Running::start(lazystore);
        let line = running.wait_for_line("listening address=");
        let address = line.rsplit('=').next().expect("the address is last").to_owned();
        Server { running, client: Client { address } }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.client.address)
    }

    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.client.request(method, path, headers, body)
    }

    pub fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.request("GET", path, headers, b"")
    }
}

impl Client {
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(&self.address).expect("it listens");
        // Of this version, because there the end of the connection ends the answer.
        let mut head = format!("{method} /{path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
        socket.write_all(format!("{head}\r\n").as_bytes()).expect("it reads");
        // It may answer before it has read all.
        let _ = socket.write_all(body);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let body = answer.split_off(end + 4);
        let headers = String::from_utf8(answer).expect("ASCII");
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer { status: status.expect("a status"), headers, body }
    }
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
