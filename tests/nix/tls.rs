//! A binary cache behind TLS.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Output,
    sync::Arc,
    thread,
};

use lazystore::nix::Compression;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::{
    made_cache::{Made, file_archive, key},
    support::lazystore,
};

/// Answers GET with files of memory, one a connection.
fn answer(stream: TcpStream, config: Arc<ServerConfig>, files: &HashMap<String, Vec<u8>>) {
    let connection = ServerConnection::new(config).expect("a good configuration");
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut request = String::new();
    // A client that does not trust us says so, and is gone.
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
    }
    let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, contents) = match files.get(name) {
        Some(contents) => ("200 OK", &contents[..]),
        None => ("404 Not Found", &b""[..]),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        contents.len()
    );
    let stream = stream.get_mut();
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(contents));
    if sent.and_then(|()| stream.flush()).is_ok() {
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

/// Serves the files at the port that is returned. What vouches for it goes into `authority`.
fn serve(files: HashMap<String, Vec<u8>>, authority: &Path) -> u16 {
    let mut params = CertificateParams::new(Vec::new()).expect("legal");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("random bytes");
    let ca = params.self_signed(&ca_key).expect("legal");
    fs::write(authority, ca.pem()).expect("written");
    let issuer = Issuer::new(params, ca_key);
    let own_key = KeyPair::generate().expect("random bytes");
    let own = CertificateParams::new(vec!["localhost".to_owned()]).expect("legal");
    let own = own.signed_by(&own_key, &issuer).expect("legal");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(own.der().to_vec())],
            PrivateKeyDer::try_from(own_key.serialize_der()).expect("a key"),
        );
    let config = Arc::new(config.expect("they belong together"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let files = Arc::new(files);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, files) = (config.clone(), files.clone());
            thread::spawn(move || answer(stream, config, &files));
        }
    });
    port
}

#[test]
fn a_cache_over_https_is_believed_if_its_certificate_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Made::new("secure", &file_archive(b"contents"), Compression::Zstd);
    let files = HashMap::from([
        ("nix-cache-info".to_owned(), b"StoreDir: /nix/store\n".to_vec()),
        (made.narinfo_name(), made.told.to_string().into_bytes()),
        (made.told.archive.url.to_string(), made.file.clone()),
    ]);
    let authority = folder.path().join("authority.pem");
    let port = serve(files, &authority);
    let cat = |host: &str, trusted: &Path| -> Output {
        let mut command = lazystore(&folder.path().join("store"));
        let address =
            format!("nix+https://{host}:{port}?trusted-public-keys={}&timeout=5", key().public());
        command.env("LAZYSTORE_CACHE_DIR", folder.path().join("cache"));
        command.env("SSL_CERT_FILE", trusted).args(["--store", &address, "cat"]);
        command.arg(made.told.store_path.absolute()).output().expect("it runs")
    };
    // No root that we trust, and another name than the certificate's.
    let other = folder.path().join("other.pem");
    serve(HashMap::new(), &other);
    for (host, trusted) in [("localhost", &other), ("127.0.0.1", &authority)] {
        let refused = cat(host, trusted);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("certificate"), "{said}");
    }
    let read = cat("localhost", &authority);
    assert_eq!(read.stdout, b"contents", "{}", String::from_utf8_lossy(&read.stderr));
}
