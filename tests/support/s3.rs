//! An S3 server for tests: `moto_server`, one a process, which ends with the process however that ends.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Child,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{beside, support::have_program};

/// The server.
#[derive(Debug)]
pub struct S3 {
    pub address: SocketAddr,
    buckets: AtomicUsize,
    /// Holds the pipe.
    _running: Child,
}

/// The server of this process, if there can be one. It is started when it is first asked for.
pub fn s3() -> Option<&'static S3> {
    static SERVER: OnceLock<Option<S3>> = OnceLock::new();
    SERVER.get_or_init(|| have_program("moto_server").then(S3::start)).as_ref()
}

impl S3 {
    fn start() -> Self {
        let command = ["moto_server", "-H", "127.0.0.1", "-p", "0"];
        let (running, address) = beside::start(&command, "http://");
        S3 { address, buckets: AtomicUsize::new(0), _running: running }
    }

    /// A new bucket, which nobody else has.
    pub fn bucket(&self) -> String {
        let name = format!("bucket-{}", self.buckets.fetch_add(1, Relaxed));
        let answer = self.ask("PUT", &name, b"");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        name
    }

    /// Sends a request that nobody signed.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut server = TcpStream::connect(self.address).expect("it listens");
        let head = format!(
            "{method} /{path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        server.write_all(&[head.as_bytes(), body].concat()).expect("it takes it");
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).expect("it answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The address of a store in `bucket`, behind what listens at `address`.
    pub fn store_at(&self, bucket: &str, address: SocketAddr, options: &str) -> String {
        format!(
            "objectstore+s3://{bucket}/some/where?endpoint=http://{address}&allow_http=true\
             &region=us-east-1&access_key_id=key&secret_access_key=secret{options}"
        )
    }

    /// The address of a store in a new bucket.
    pub fn store(&self) -> String {
        self.store_at(&self.bucket(), self.address, "")
    }
}
