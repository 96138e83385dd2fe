//! Servers that are told to stop while somebody still reads.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use lazystore::proto::castore::{
    BlobChunk, ReadBlobRequest, blob_service_client::BlobServiceClient,
};
use rustix::process::Signal;
use tonic::{Streaming, transport::Endpoint};

use crate::{
    supervisor::address_of,
    support::{Running, import, lazystore, noise, wait_until, write},
};

/// More than what sockets hold on their way, in bytes.
const LEN: usize = 40 << 20;

/// A server over a store with one long file.
struct Served {
    _dir: tempfile::TempDir,
    name: String,
    server: Running,
    address: String,
}

impl Served {
    fn new(command: &str, drain: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path().join("file"), noise(1, LEN), 0o644);
        let name = import(&dir.path().join("store"), &dir.path().join("file"));
        let mut server = lazystore(&dir.path().join("store"));
        server.args([command, "--listen=127.0.0.1:0", "--drain", drain]);
        let mut server = Running::start(&mut server);
        let address = address_of(&server.wait_for_line("listening"));
        Served { _dir: dir, name, server, address }
    }

    /// Tells it to stop, and waits until it has heard that.
    fn stop(&mut self) {
        self.server.signal(Signal::TERM);
        self.server.wait_for_line("stopping");
    }

    /// Waits for its end, which is a success and comes soon. Returns whether somebody was cut off.
    fn ended(mut self) -> bool {
        let began = Instant::now();
        assert!(self.server.wait(), "{:?}", self.server.log);
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        let cut: Vec<_> = self.server.log.iter().filter(|l| l.contains("cut off")).collect();
        assert!(cut.iter().all(|line| line.contains("connections=1")), "{cut:?}");
        !cut.is_empty()
    }
}

/// A client that has asked a binary cache for an archive, and read the beginning of it.
fn begin_archive(served: &Served) -> BufReader<TcpStream> {
    let ask = |path: &str| {
        let mut client = TcpStream::connect(&served.address).expect("it listens");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        write!(client, "GET /{path} HTTP/1.0\r\n\r\n").expect("it reads");
        BufReader::new(client)
    };
    let mut narinfo = String::new();
    ask(&format!("{}.narinfo", &served.name[..32])).read_to_string(&mut narinfo).expect("text");
    let url = narinfo.lines().find_map(|line| line.strip_prefix("URL: ")).expect("an URL");
    let mut archive = ask(url);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        archive.read_line(&mut line).expect("a head");
    }
    archive.read_exact(&mut [0; 1000]).expect("a beginning");
    archive
}

/// A client that has asked a daemon for the file, and read the beginning of it.
async fn begin_blob(served: &Served) -> Streaming<BlobChunk> {
    let endpoint = Endpoint::from_shared(format!("http://{}", served.address)).expect("an address");
    let channel = endpoint.connect().await.expect("it listens");
    let digest = blake3::hash(&noise(1, LEN)).as_bytes().to_vec();
    let request = ReadBlobRequest { digest: digest.into() };
    let mut client = BlobServiceClient::new(channel);
    let mut stream = client.read(request).await.expect("it is there").into_inner();
    stream.message().await.expect("it is sent").expect("a beginning");
    stream
}

#[test]
fn an_archive_that_is_read_in_time_comes_whole() {
    let mut served = Served::new("serve", "10");
    let mut archive = begin_archive(&served);
    served.stop();
    // Soon a client that comes is too late.
    wait_until("nobody is let in any more", || {
        let late = TcpStream::connect(&served.address).and_then(|mut late| {
            late.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
            late.read_exact(&mut [0; 4])
        });
        late.is_err()
    });
    thread::sleep(Duration::from_secs(1));
    let mut rest = Vec::new();
    archive.read_to_end(&mut rest).expect("it goes on");
    // The contents end before the last parenthesis of the archive.
    let contents = noise(1, LEN);
    let before = rest.len() - 16;
    assert!(rest[before - 100_000..before] == contents[LEN - 100_000..]);
    assert!(!served.ended());
}

#[test]
fn an_archive_that_nobody_reads_on_is_cut_off() {
    let mut served = Served::new("serve", "0.5");
    let mut archive = begin_archive(&served);
    served.stop();
    assert!(served.ended());
    // What is on its way comes, and then the end, too early.
    let mut rest = Vec::new();
    let end = archive.read_to_end(&mut rest);
    assert!(end.is_err() || rest.len() < LEN, "{end:?}");
}

#[test]
fn a_second_signal_waits_for_nobody() {
    for command in ["serve", "daemon"] {
        let mut served = Served::new(command, "600");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let mut clients: Vec<Box<dyn std::any::Any>> = Vec::new();
        match command {
            "serve" => clients.push(Box::new(begin_archive(&served))),
            _ => clients.push(Box::new(runtime.block_on(begin_blob(&served)))),
        }
        served.stop();
        thread::sleep(Duration::from_millis(300));
        assert!(served.server.child.try_wait().expect("our child").is_none(), "{command}");
        served.server.signal(Signal::INT);
        served.ended();
        drop(clients);
    }
}

#[test]
fn a_blob_that_is_read_in_time_comes_whole() {
    let mut served = Served::new("daemon", "10");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut stream = runtime.block_on(begin_blob(&served));
    served.stop();
    thread::sleep(Duration::from_secs(1));
    let len = runtime.block_on(async {
        let mut len = 0;
        while let Some(piece) = stream.message().await.expect("it goes on") {
            len += piece.data.len();
        }
        len
    });
    // All but the first piece, of at most a MiB.
    assert!(len + (1 << 20) >= LEN, "{len}");
    assert!(!served.ended());
}

#[test]
fn a_blob_that_nobody_reads_on_is_cut_off() {
    let mut served = Served::new("daemon", "0.5");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut stream = runtime.block_on(begin_blob(&served));
    served.stop();
    assert!(served.ended());
    let end = runtime.block_on(async {
        while stream.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    });
    end.expect_err("it ends too early, and not as if that were all");
}

#[test]
fn how_long_it_may_take_is_a_number_of_seconds() {
    let mut command = lazystore(Path::new("/nonexistent"));
    let output = command.args(["daemon", "--drain=soon"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}
