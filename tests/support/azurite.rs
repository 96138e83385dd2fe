//! An Azure blob store for tests: Azurite, one a process, which ends with the process however that ends.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

use crate::{
    beside,
    support::{have_program, run},
};

/// What every Azurite has: no secret.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The server.
#[derive(Debug)]
pub struct Azurite {
    pub address: SocketAddr,
    containers: AtomicUsize,
    /// Holds the pipe.
    _running: Child,
}

/// The server of this process, if there can be one. It is started when it is first asked for.
pub fn azurite() -> Option<&'static Azurite> {
    static SERVER: OnceLock<Option<Azurite>> = OnceLock::new();
    SERVER.get_or_init(|| have_program("azurite-blob").then(Azurite::start)).as_ref()
}

impl Azurite {
    fn start() -> Self {
        let command = [
            "azurite-blob",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            "0",
            "--inMemoryPersistence",
            "--skipApiVersionCheck",
            "--disableTelemetry",
        ];
        let (running, address) = beside::start(&command, "listens on http://");
        Azurite { address, containers: AtomicUsize::new(0), _running: running }
    }

    /// Where blobs are asked for.
    pub fn endpoint(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.address)
    }

    /// A new container, which nobody else has.
    pub fn container(&self) -> String {
        let name = format!("container-{}", self.containers.fetch_add(1, Relaxed));
        let date =
            run(Command::new("date").args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C"));
        let date = String::from_utf8(date.stdout).expect("ASCII");
        let date = date.trim_end();
        let signed = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n\
             /{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        );
        let key = BASE64.decode(KEY.as_bytes()).expect("base64");
        let signature = BASE64.encode(&hmac_sha256(&key, signed.as_bytes()));
        let request = format!(
            "PUT /{ACCOUNT}/{name}?restype=container HTTP/1.1\r\nHost: {}\r\nx-ms-date: {date}\r\n\
             x-ms-version: 2021-08-06\r\nAuthorization: SharedKey {ACCOUNT}:{signature}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        let mut server = TcpStream::connect(self.address).expect("it listens");
        server.write_all(request.as_bytes()).expect("it takes it");
        let mut answer = String::new();
        server.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        name
    }
}

/// RFC 2104, for a key of a block: those of Azure have 64 bytes.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| key.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}
