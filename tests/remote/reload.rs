//! Services that read their files again: tokens, certificates and configuration, with connections that go on.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Output,
};

use data_encoding::BASE64;
use lazystore::{
    nix::SecretKey,
    proto::castore::{BlobChunk, ReadBlobRequest, blob_service_client::BlobServiceClient},
};
use rustix::process::Signal;
use tonic::{
    Streaming,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use crate::{
    access::Authority,
    supervisor::{Supervisor, address_of},
    support::{Mounted, Running, can_mount, import, lazystore, noise, wait_until, write},
};

const OLD: &str = "the-token-of-yesterday";
const NEW: &str = "the-token-of-tomorrow";

/// More than what sockets hold on their way, in bytes.
const LONG: usize = 40 << 20;

/// A folder with a store, files, and the address where a service tells how it is.
struct House(tempfile::TempDir);

impl House {
    fn new() -> Self {
        let house = House(tempfile::tempdir().expect("a folder"));
        for (file, token) in [("tokens", OLD), ("old", OLD), ("new", NEW)] {
            write(house.path(file), token, 0o600);
        }
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Names a file in an argument.
    fn arg(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.path(file).display())
    }

    fn import(&self, store: &str, file: &str, contents: &[u8]) -> String {
        write(self.path(file), contents, 0o644);
        import(&self.path(store), &self.path(file))
    }

    /// A service over `store`, and where it listens.
    fn start(&self, store: &str, args: &[&str]) -> (Running, String) {
        let mut command = lazystore(&self.path(store));
        command.args(args).arg("--listen=127.0.0.1:0");
        command.env("NOTIFY_SOCKET", self.path("notify"));
        let mut running = Running::start(&mut command);
        let address = address_of(&running.wait_for_line("listening"));
        (running, address)
    }

    fn stat(&self, store: &str, name: &str) -> Output {
        let mut command = lazystore(Path::new("/nonexistent"));
        command
            .env("LAZYSTORE_STORE", store.replace('@', &format!("{}/", self.0.path().display())));
        command.args(["stat", &format!("/nix/store/{name}")]).output().expect("it runs")
    }

    fn answers(&self, store: &str, name: &str) -> bool {
        self.stat(store, name).status.success()
    }
}

fn reload(running: &mut Running) {
    running.signal(Signal::HUP);
    running.wait_for_line("reloaded");
}

#[test]
fn a_token_is_replaced_and_a_file_without_any_changes_nothing() {
    let house = House::new();
    let mut supervisor = Supervisor::at(&house.path("notify"));
    let name = house.import("store", "file", b"x");
    let token = house.arg("auth-token-file", "tokens");
    let (mut daemon, address) = house.start("store", &["daemon", &token]);
    supervisor.wait_for("READY=1");
    let with = |token: &str| format!("grpc+http://{address}?timeout=5&token-file=@{token}");

    write(house.path("tokens"), NEW, 0o600);
    assert!(house.answers(&with("old"), &name), "nobody has told it to look");
    assert!(!house.answers(&with("new"), &name));
    reload(&mut daemon);
    assert!(!house.answers(&with("old"), &name));
    assert!(house.answers(&with("new"), &name));
    let reloading = supervisor.wait_for("RELOADING=1");
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    since.expect("when it began").parse::<u64>().expect("a number");
    let ready = supervisor.wait_for("READY=1");
    assert!(!ready.contains("cannot reload"), "{ready}");

    for (contents, why) in [("", "it holds no token"), ("short", "16 are needed at least")] {
        write(house.path("tokens"), contents, 0o600);
        daemon.signal(Signal::HUP);
        let line = daemon.wait_for_line("cannot reload");
        assert!(line.contains("ERROR") && line.contains(why), "{line}");
        supervisor.wait_for("RELOADING=1");
        let ready = supervisor.wait_for("READY=1");
        assert!(ready.contains("cannot reload") && ready.contains(why), "{ready}");
        assert!(house.answers(&with("new"), &name), "it goes on as it was");
    }
    write(house.path("tokens"), format!("{OLD}\n{NEW}\n"), 0o600);
    reload(&mut daemon);
    supervisor.wait_for("RELOADING=1");
    let ready = supervisor.wait_for("READY=1");
    assert!(!ready.contains("cannot reload"), "{ready}");
    assert!(house.answers(&with("old"), &name) && house.answers(&with("new"), &name));
    for secret in [OLD, NEW] {
        assert!(!daemon.log.join("\n").contains(secret));
        assert!(!supervisor.messages.join("\n").contains(secret));
    }
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(), "{:?}", daemon.log);
}

/// A client that has asked a daemon for a long file over TLS, and read the beginning of it.
async fn begin_blob(house: &House, port: &str) -> Streaming<BlobChunk> {
    let roots = fs::read(house.path("first.pem")).expect("it is there");
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots));
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).expect("an address");
    let channel = endpoint.tls_config(tls).expect("legal").connect().await.expect("it listens");
    let digest = blake3::hash(&noise(1, LONG)).as_bytes().to_vec();
    let request = ReadBlobRequest { digest: digest.into() };
    let mut client = BlobServiceClient::new(channel);
    let mut stream = client.read(request).await.expect("it is there").into_inner();
    stream.message().await.expect("it is sent").expect("a beginning");
    stream
}

#[test]
fn a_certificate_is_replaced_while_connections_with_the_old_one_go_on() {
    let house = House::new();
    let folder = house.0.path().to_owned();
    for name in ["first", "second"] {
        Authority::new(&folder, name).issue(&folder, &format!("by-{name}"), false);
    }
    let present = |name: &str| {
        fs::copy(house.path(&format!("by-{name}.pem")), house.path("server.pem"))
            .expect("it is there");
        fs::copy(house.path(&format!("by-{name}.key")), house.path("server.key"))
            .expect("it is there");
    };
    present("first");
    let name = house.import("store", "file", &noise(1, LONG));
    let args = [house.arg("tls-cert", "server.pem"), house.arg("tls-key", "server.key")];
    let (mut daemon, address) = house.start("store", &["daemon", &args[0], &args[1]]);
    let by = |roots: &str| format!("grpc+https://{address}?timeout=2&ca=@{roots}.pem");
    assert!(house.answers(&by("first"), &name) && !house.answers(&by("second"), &name));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let port = address.rsplit_once(':').expect("a port").1;
    let mut stream = runtime.block_on(begin_blob(&house, port));

    // Broken, or half replaced: the first one stays.
    write(house.path("server.pem"), "-----BEGIN CERTIFICATE-----\nnonsense\n", 0o644);
    daemon.signal(Signal::HUP);
    daemon.wait_for_line("cannot reload");
    fs::copy(house.path("by-second.pem"), house.path("server.pem")).expect("it is there");
    daemon.signal(Signal::HUP);
    let line = daemon.wait_for_line("cannot reload");
    assert!(line.contains("cannot be used together"), "{line}");
    assert!(house.answers(&by("first"), &name));

    present("second");
    reload(&mut daemon);
    assert!(!house.answers(&by("first"), &name) && house.answers(&by("second"), &name));
    let len = runtime.block_on(async {
        let mut len = 0;
        while let Some(piece) = stream.message().await.expect("it goes on") {
            len += piece.data.len();
        }
        len
    });
    assert!(len + (1 << 20) >= LONG, "{len}");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(), "{:?}", daemon.log);
}

#[test]
fn who_vouches_for_clients_is_replaced() {
    let house = House::new();
    let folder = house.0.path().to_owned();
    for name in ["first", "second"] {
        Authority::new(&folder, name).issue(&folder, &format!("by-{name}"), false);
    }
    let vouches = |name: &str| {
        fs::copy(house.path(&format!("{name}.pem")), house.path("clients.pem"))
            .expect("it is there");
    };
    vouches("first");
    let name = house.import("store", "file", b"x");
    let args = [
        house.arg("tls-cert", "by-first.pem"),
        house.arg("tls-key", "by-first.key"),
        house.arg("tls-client-ca", "clients.pem"),
    ];
    let (mut daemon, address) = house.start("store", &["daemon", &args[0], &args[1], &args[2]]);
    let of = |client: &str| {
        let address = format!("grpc+https://{address}?timeout=2&ca=@first.pem");
        format!("{address}&cert=@by-{client}.pem&key=@by-{client}.key")
    };
    assert!(house.answers(&of("first"), &name) && !house.answers(&of("second"), &name));
    vouches("second");
    reload(&mut daemon);
    assert!(!house.answers(&of("first"), &name) && house.answers(&of("second"), &name));
}

/// Asks a binary cache. Returns the whole answer.
fn http(address: &str, request: &str) -> String {
    let mut client = TcpStream::connect(address).expect("it listens");
    write!(client, "{request}\r\n").expect("it reads");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("text");
    answer
}

#[test]
fn a_binary_cache_takes_other_keys_and_tokens() {
    let house = House::new();
    let name = house.import("store", "file", b"x");
    let key = |name: &str| {
        // As Nix writes it: the seed, and behind it the public key.
        let key = SecretKey::from_seed(name, &[7; 32]).expect("a name").public().to_string();
        let public = key.split_once(':').expect("a name before it").1;
        let mut bytes = vec![7; 32];
        bytes.extend(BASE64.decode(public.as_bytes()).expect("base64"));
        write(house.path("key"), format!("{name}:{}", BASE64.encode(&bytes)), 0o600);
    };
    key("first");
    let args = [house.arg("sign-key", "key"), house.arg("upload-token-file", "tokens")];
    let (mut serve, address) =
        house.start("store", &["serve", "--allow-upload", &args[0], &args[1]]);
    let narinfo = || http(&address, &format!("GET /{}.narinfo HTTP/1.0\r\n", &name[..32]));
    let upload = |token: &str| {
        let head = format!("PUT /{}.ls HTTP/1.0\r\ncontent-length: 2\r\n", &name[..32]);
        http(&address, &format!("{head}authorization: Bearer {token}\r\n\r\n{{}}"))
    };
    assert!(narinfo().contains("Sig: first:"));
    assert!(upload(OLD).starts_with("HTTP/1.0 201") && upload(NEW).starts_with("HTTP/1.0 401"));
    key("second");
    write(house.path("tokens"), NEW, 0o600);
    reload(&mut serve);
    let told = narinfo();
    assert!(told.contains("Sig: second:") && !told.contains("first:"), "{told}");
    assert!(upload(NEW).starts_with("HTTP/1.0 201") && upload(OLD).starts_with("HTTP/1.0 401"));
    // Either all is taken, or nothing.
    key("third");
    fs::remove_file(house.path("tokens")).expect("it is there");
    serve.signal(Signal::HUP);
    serve.wait_for_line("cannot reload");
    assert!(narinfo().contains("Sig: second:"));
}

#[test]
fn a_mount_is_led_to_another_remote_and_keeps_its_cache() {
    if !can_mount() {
        return;
    }
    let house = House::new();
    let files: Vec<_> = (0..3)
        .map(|number| {
            let name = format!("file-{number}");
            house.import("store", &name, &noise(number, 600_000))
        })
        .collect();
    let token = house.arg("auth-token-file", "tokens");
    let (first, first_address) = house.start("store", &["daemon", &token]);
    let (mut second, second_address) = house.start("store", &["daemon", &token]);
    fs::copy(house.path("tokens"), house.path("shown")).expect("it is there");
    let config = |address: &str, more: &str, cache: &str| {
        let text = format!(
            "[source.far]\naddress = 'grpc+http://{address}'\ntimeout = 2\ntoken-file = '{}'\n{more}\n\
             [cache.near]\ndir = '{}'\n\n[store.default]\nread = 'far'\n",
            house.path("shown").display(),
            house.path(cache).display()
        );
        write(house.path("config.toml"), text, 0o644);
    };
    config(&first_address, "", "cache");
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env_remove("LAZYSTORE_CACHE_DIR").env("LAZYSTORE_CONFIG", house.path("config.toml"));
    let mut mounted = Mounted::new(&mut command, &house.path("mnt"));
    let read = |number: usize| fs::read(house.path("mnt").join(&files[number])).ok();
    assert!(read(0) == Some(noise(0, 600_000)));
    let open = fs::File::open(house.path("mnt").join(&files[0])).expect("it is there");

    // What is wrong is told with its place; a cache stays where it is.
    config(&second_address, "colour = 'red'", "cache");
    mounted.running.signal(Signal::HUP);
    let line = mounted.running.wait_for_line("cannot reload");
    assert!(line.contains("config.toml:5:1") && line.contains("colour"), "{line}");
    config(&second_address, "", "elsewhere");
    mounted.running.signal(Signal::HUP);
    let line = mounted.running.wait_for_line("cannot reload");
    assert!(line.contains("dir of the cache cannot change"), "{line}");
    assert!(!house.path("elsewhere").exists(), "nothing is made for what is refused");
    assert!(read(1) == Some(noise(1, 600_000)), "it goes on as it was");

    config(&second_address, "", "cache");
    drop(first);
    assert!(read(2).is_none(), "nobody is there");
    reload(&mut mounted.running);
    assert!(read(2) == Some(noise(2, 600_000)));
    assert!(read(0) == Some(noise(0, 600_000)), "it is in the cache still");
    open.metadata().expect("what was open stays so");

    // A token of both sides, one after the other.
    let last = house.import("store", "last", &noise(9, 1000));
    write(house.path("tokens"), NEW, 0o600);
    reload(&mut second);
    fs::read(house.path("mnt").join(&last)).expect_err("it shows the old one");
    write(house.path("shown"), NEW, 0o600);
    reload(&mut mounted.running);
    wait_until("the name is asked for again", || fs::read(house.path("mnt").join(&last)).is_ok());

    // However often: nothing piles up.
    let fds = format!("/proc/{}/fd", mounted.running.child.id());
    let open_files = || fs::read_dir(&fds).expect("it runs").count();
    let before = open_files();
    for _ in 0..20 {
        mounted.running.signal(Signal::HUP);
        mounted.running.wait_for_line("reloaded");
    }
    wait_until("old connections are given up", || open_files() <= before + 2);
    drop(open);
    mounted.unmount();
}
