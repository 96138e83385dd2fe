//! Who is let in: tokens, certificates, and where a daemon may listen.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Output,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use crate::support::{Mounted, Running, can_mount, import, lazystore, noise, run, write};

const WRITES: &str = "the-token-that-reads-and-writes";
const READS: &str = "the-token-that-only-reads";
const WRONG: &str = "a-token-that-nobody-knows";

/// A store with one file, and a daemon over it.
struct Guarded {
    dir: tempfile::TempDir,
    name: String,
    daemon: Option<Running>,
    address: String,
}

impl Guarded {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write(dir.path().join("file"), noise(1, 300_000), 0o644);
        let name = import(&dir.path().join("store"), &dir.path().join("file"));
        for (file, text) in [("writes", WRITES), ("reads", READS), ("wrong", WRONG)] {
            write(dir.path().join(file), format!("{text}\n"), 0o600);
        }
        Guarded { dir, name, daemon: None, address: String::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Names a file in an argument.
    fn arg(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.path(file).display())
    }

    fn serve(&mut self, listen: &str, args: &[String]) {
        let mut command = lazystore(&self.path("store"));
        command.arg("daemon").arg(format!("--listen={listen}")).args(args);
        let mut daemon = Running::start(&mut command);
        let line = daemon.wait_for_line("listening");
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
        self.address = address.expect("it says where").trim_matches('"').to_owned();
        self.daemon = Some(daemon);
    }

    /// Runs a command against a store address, in which `@` stands for the folder of files.
    fn ask(&self, store: &str, args: &[&str]) -> Output {
        let store = store.replace('@', &format!("{}/", self.dir.path().display()));
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", store);
        command.args(args).output().expect("it runs")
    }

    fn stat(&self, store: &str) -> Output {
        self.ask(store, &["stat", &format!("/nix/store/{}", self.name)])
    }
}

/// What a command that failed said.
fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "it should fail");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for secret in [WRITES, READS, WRONG] {
        assert!(!said.contains(secret), "{said}");
    }
    said
}

#[test]
fn a_token_gives_its_right_and_no_more() {
    let mut guarded = Guarded::new();
    let args = [guarded.arg("auth-token-file", "writes"), guarded.arg("read-token-file", "reads")];
    guarded.serve("127.0.0.1:0", &args);
    let tcp = format!("grpc+http://{}", guarded.address);
    let tokens = |name: &str| format!("{tcp}?token-file=@{name}");

    assert!(refusal(&guarded.stat(&tcp)).contains("Unauthenticated"));
    assert!(refusal(&guarded.stat(&tokens("wrong"))).contains("Unauthenticated"));
    assert!(guarded.stat(&tokens("reads")).status.success());
    assert!(guarded.stat(&tokens("writes")).status.success());

    write(guarded.path("more"), noise(2, 100_000), 0o644);
    let more = guarded.path("more").display().to_string();
    assert!(refusal(&guarded.ask(&tcp, &["import", &more])).contains("Unauthenticated"));
    let refused = guarded.ask(&tokens("reads"), &["import", &more]);
    assert!(refusal(&refused).contains("may only read"));
    assert!(guarded.ask(&tokens("writes"), &["import", &more]).status.success());

    // The option does the same as the address.
    let option = guarded.arg("auth-token-file", "reads");
    let path = format!("/nix/store/{}", guarded.name);
    assert!(guarded.ask(&tcp, &["stat", &path, &option]).status.success());
}

#[test]
fn with_tokens_nothing_is_lent_on_the_side() {
    let mut guarded = Guarded::new();
    let socket = guarded.path("socket");
    let args = [guarded.arg("read-token-file", "reads")];
    guarded.serve(&format!("unix:{}", socket.display()), &args);
    let mut side = UnixStream::connect(&socket).expect("it listens");
    side.write_all(b"lazystore-lends\n").expect("it takes it");
    let mut answer = Vec::new();
    // It takes it for HTTP/2 that is none, whatever it says of that.
    let _ = side.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"lazystore"), "{answer:?}");
    let unix = format!("grpc+unix://{}", socket.display());
    assert!(refusal(&guarded.stat(&unix)).contains("Unauthenticated"));
    assert!(guarded.stat(&format!("{unix}?token-file=@reads")).status.success());
    // Without tokens that write, nobody does.
    write(guarded.path("more"), noise(2, 100_000), 0o644);
    let more = guarded.path("more").display().to_string();
    let refused = guarded.ask(&format!("{unix}?token-file=@reads"), &["import", &more]);
    assert!(refusal(&refused).contains("may only read"));
}

/// Who issues certificates.
pub struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Its own certificate goes into `<name>.pem`.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("legal");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random bytes");
        let certificate = params.self_signed(&key).expect("legal");
        write(folder.join(format!("{name}.pem")), certificate.pem(), 0o644);
        Authority(Issuer::new(params, key))
    }

    /// A certificate goes into `<name>.pem`, its key into `<name>.key`.
    pub fn issue(&self, folder: &Path, name: &str, is_expired: bool) {
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).expect("legal");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if is_expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("random bytes");
        let certificate = params.signed_by(&key, &self.0).expect("legal");
        write(folder.join(format!("{name}.pem")), certificate.pem(), 0o644);
        write(folder.join(format!("{name}.key")), key.serialize_pem(), 0o600);
    }
}

#[test]
fn both_sides_know_each_other_by_their_certificates() {
    let mut guarded = Guarded::new();
    let folder = guarded.dir.path().to_owned();
    let (ours, others) = (Authority::new(&folder, "ours"), Authority::new(&folder, "others"));
    ours.issue(&folder, "server", false);
    ours.issue(&folder, "client", false);
    ours.issue(&folder, "expired", true);
    others.issue(&folder, "stranger", false);
    let args = [
        guarded.arg("tls-cert", "server.pem"),
        guarded.arg("tls-key", "server.key"),
        guarded.arg("tls-client-ca", "ours.pem"),
        guarded.arg("read-token-file", "reads"),
    ];
    // With TLS it may listen where others can connect.
    guarded.serve("0.0.0.0:0", &args);
    let port = guarded.address.rsplit_once(':').expect("a port").1.to_owned();
    let address = format!("grpc+https://127.0.0.1:{port}?timeout=2&token-file=@reads");
    let by = |roots: &str, name: &str| {
        format!("{address}&ca=@{roots}.pem&cert=@{name}.pem&key=@{name}.key")
    };

    let good = guarded.stat(&by("ours", "client"));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    // No root that we know; another root; no certificate of ours; one of a stranger; one of long ago; no TLS at all.
    let plain = format!("grpc+http://127.0.0.1:{port}?timeout=2");
    for store in [
        address.clone(),
        by("others", "client"),
        format!("{address}&ca=@ours.pem"),
        by("ours", "stranger"),
        by("ours", "expired"),
        plain,
    ] {
        assert!(refusal(&guarded.stat(&store)).contains("unavailable"), "{store}");
    }
    // The token is needed besides.
    let tokenless = by("ours", "client").replace("&token-file=@reads", "");
    assert!(refusal(&guarded.stat(&tokenless)).contains("Unauthenticated"));

    let args = [guarded.arg("tls-cert", "expired.pem"), guarded.arg("tls-key", "expired.key")];
    guarded.serve("127.0.0.1:0", &args);
    let expired = format!("grpc+https://{}?timeout=2&ca=@ours.pem", guarded.address);
    assert!(refusal(&guarded.stat(&expired)).contains("unavailable"));
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides_and_a_client_says_so() {
    let mut guarded = Guarded::new();
    let folder = guarded.dir.path().to_owned();
    let ours = Authority::new(&folder, "ours");
    ours.issue(&folder, "server", false);
    ours.issue(&folder, "client", false);
    ours.issue(&folder, "expired", true);
    let server = |guarded: &Guarded, name: &str| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        [guarded.arg("tls-cert", &cert), guarded.arg("tls-key", &key)]
    };
    let args = [&server(&guarded, "server")[..], &[guarded.arg("tls-client-ca", "ours.pem")]];
    guarded.serve("127.0.0.1:0", &args.concat());
    let by = |guarded: &Guarded, name: &str| {
        let address = format!("grpc+https://{}?timeout=2&ca=@ours.pem", guarded.address);
        format!("{address}&cert=@{name}.pem&key=@{name}.key")
    };
    assert!(guarded.stat(&by(&guarded, "client")).status.success());
    let said = refusal(&guarded.stat(&by(&guarded, "expired")));
    assert!(said.contains("unavailable"), "{said}");
    let args = server(&guarded, "expired");
    guarded.serve("127.0.0.1:0", &args);
    let said = refusal(&guarded.stat(&by(&guarded, "client")));
    assert!(said.to_lowercase().contains("expired"), "{said}");
    // Nothing of our files is told.
    assert!(!said.contains("BEGIN") && !said.contains(&folder.display().to_string()), "{said}");
}

#[test]
fn a_store_is_mounted_over_tls() {
    if !can_mount() {
        return;
    }
    let mut guarded = Guarded::new();
    let folder = guarded.dir.path().to_owned();
    Authority::new(&folder, "ours").issue(&folder, "server", false);
    let args = [
        guarded.arg("tls-cert", "server.pem"),
        guarded.arg("tls-key", "server.key"),
        guarded.arg("read-token-file", "reads"),
    ];
    guarded.serve("127.0.0.1:0", &args);
    let (roots, token) = (guarded.path("ours.pem"), guarded.path("reads"));
    let store = format!("grpc+https://{}?ca={}", guarded.address, roots.display());
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env("LAZYSTORE_STORE", store).env("LAZYSTORE_AUTH_TOKEN_FILE", token);
    let mounted = Mounted::with(&mut command, &guarded.path("mnt"), &[]);
    let read = fs::read(mounted.path.join(&guarded.name)).expect("it reads");
    assert!(read == noise(1, 300_000));
    mounted.unmount();
}

#[test]
fn a_daemon_does_not_speak_in_the_open_unless_it_is_told_to() {
    let mut guarded = Guarded::new();
    let mut command = lazystore(&guarded.path("store"));
    let output = command.args(["daemon", "--listen=0.0.0.0:0"]).output().expect("it runs");
    let said = refusal(&output);
    assert!(said.contains("--tls-cert") && said.contains("--insecure"), "{said}");
    guarded.serve("0.0.0.0:0", &["--insecure".to_owned()]);
    let port = guarded.address.rsplit_once(':').expect("a port").1;
    let store = format!("grpc+http://127.0.0.1:{port}");
    run(lazystore(Path::new("/nonexistent"))
        .env("LAZYSTORE_STORE", store)
        .args(["stat", &format!("/nix/store/{}", guarded.name)]));
    // Files that are no certificates are told at once.
    let args = [guarded.arg("tls-cert", "reads"), guarded.arg("tls-key", "reads")];
    let mut command = lazystore(&guarded.path("store"));
    let output = command.args(["daemon", "--listen=127.0.0.1:0"]).args(args).output();
    refusal(&output.expect("it runs"));
}
