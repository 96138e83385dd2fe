//! A server of somebody else's, which ends with this process however that ends.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

/// Runs the server beside a reader of our pipe: when that is closed, whoever held it is gone.
const SCRIPT: &str = "\"$@\" 2>&1 & server=$!; cat >/dev/null; kill $server; wait $server";

/// Starts `command`, which says `…http://ADDRESS` where it listens, behind `says`. The child holds the pipe.
pub fn start(command: &[&str], says: &str) -> (Child, SocketAddr) {
    let mut running = Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let said = running.stdout.take().expect("it is a pipe");
    let mut lines = BufReader::new(said).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.split_once(says)?.1.trim().parse().ok());
    // What it says of each request must go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    (running, address.unwrap_or_else(|| panic!("{} says where it listens", command[0])))
}
