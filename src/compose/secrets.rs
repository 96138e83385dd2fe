//! The files that an address names: certificates, keys and tokens.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::service::grpc::{BearerToken, BearerTokenError, ClientTls, GrpcAddress};

/// The longest file that is read, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// What a peer is shown, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretFiles {
    /// Roots that its certificate may come from, in PEM. `None` for those of the system.
    pub roots: Option<PathBuf>,
    /// Our certificate, in PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, in PEM.
    pub key: Option<PathBuf>,
    /// A token.
    pub token: Option<PathBuf>,
    /// Whether the token may be shown where others can read it on its way.
    pub insecure: bool,
}

/// Why the files of an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is too long for what it should hold.
    #[error("{} is longer than {FILE_LEN_MAX} bytes, so it is something else", .0.display())]
    TooLong(PathBuf),
    /// A file without a token.
    #[error("cannot use {}: {source}", file.display())]
    Token {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: BearerTokenError,
    },
    /// A certificate without a key, or a key without one.
    #[error("cert=FILE and key=FILE belong together")]
    Half,
    /// Files for TLS, which is not spoken.
    #[error("ca, cert and key are for grpc+https addresses")]
    NoTls,
    /// The token would be shown to everybody on the way.
    #[error("the token would be readable on its way: use grpc+https, or append &insecure=1")]
    Readable,
}

impl SecretFiles {
    /// Reads them, for a peer at `server`.
    pub(super) fn read(
        &self,
        server: &GrpcAddress,
    ) -> Result<(ClientTls, Option<BearerToken>), SecretsError> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, None) => None,
            _ => return Err(SecretsError::Half),
        };
        let roots = self.roots.as_deref().map(read).transpose()?;
        let tls = ClientTls { roots, identity };
        if (tls.roots.is_some() || tls.identity.is_some()) && !speaks_tls(server) {
            return Err(SecretsError::NoTls);
        }
        let Some(file) = &self.token else { return Ok((tls, None)) };
        if !self.insecure && !speaks_tls(server) && !is_of_this_machine(server) {
            return Err(SecretsError::Readable);
        }
        let text = read(file)?;
        let token = BearerToken::parse(&String::from_utf8_lossy(&text))
            .map_err(|source| SecretsError::Token { file: file.clone(), source })?;
        Ok((tls, Some(token)))
    }
}

/// What is in a file, which is bounded.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, SecretsError> {
    let failed = |source| SecretsError::Read { file: file.to_owned(), source };
    let metadata = fs::metadata(file).map_err(failed)?;
    match metadata.len() > FILE_LEN_MAX {
        true => Err(SecretsError::TooLong(file.to_owned())),
        false => fs::read(file).map_err(failed),
    }
}

fn speaks_tls(server: &GrpcAddress) -> bool {
    match server {
        GrpcAddress::Http(url) => url.starts_with("https://"),
        GrpcAddress::Several(urls) => urls.iter().all(|url| url.starts_with("https://")),
        GrpcAddress::Unix(_) => false,
    }
}

fn is_of_this_machine(server: &GrpcAddress) -> bool {
    match server {
        GrpcAddress::Unix(_) => true,
        GrpcAddress::Http(url) => is_loopback(url),
        GrpcAddress::Several(urls) => urls.iter().all(|url| is_loopback(url)),
    }
}

fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, authority)| authority);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(url: &str) -> GrpcAddress {
        GrpcAddress::Http(url.to_owned())
    }

    #[test]
    fn a_token_is_shown_where_nobody_can_read_it_on_its_way() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("token");
        fs::write(&file, "a-secret\n").expect("it writes");
        let files = SecretFiles { token: Some(file), ..SecretFiles::default() };
        for (server, is_shown) in [
            (http("https://far:1"), true),
            (http("http://127.0.0.1:1"), true),
            (http("http://[::1]:1"), true),
            (http("http://localhost:1"), true),
            (GrpcAddress::Unix("/run/s".into()), true),
            (http("http://far:1"), false),
            (GrpcAddress::Several(vec!["http://[::1]:1".into(), "http://far:1".into()]), false),
            (GrpcAddress::Several(vec!["https://near:1".into(), "https://far:1".into()]), true),
            (http("http://127.0.0.1.far:1"), false),
            (http("http://10.0.0.1:1"), false),
        ] {
            let read = files.read(&server);
            match is_shown {
                true => assert!(read.expect("it is safe").1.is_some(), "{server}"),
                false => assert!(matches!(read, Err(SecretsError::Readable)), "{server}"),
            }
            let insecure = SecretFiles { insecure: true, ..files.clone() };
            assert!(insecure.read(&server).expect("it is wanted").1.is_some(), "{server}");
        }
    }

    #[test]
    fn files_that_are_of_no_use_are_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let there = dir.path().join("there");
        fs::write(&there, "two words").expect("it writes");
        let absent = dir.path().join("absent");
        let none = SecretFiles::default();
        let told = |files: SecretFiles, server: &GrpcAddress| {
            files.read(server).map(drop).expect_err("of no use").to_string()
        };
        let (tls, plain) = (http("https://far:1"), http("http://far:1"));
        let half = SecretFiles { key: Some(there.clone()), ..none.clone() };
        assert!(told(half, &tls).contains("belong together"));
        let roots = SecretFiles { roots: Some(there.clone()), ..none.clone() };
        assert!(told(roots, &plain).contains("grpc+https"));
        let missing = SecretFiles { roots: Some(absent.clone()), ..none.clone() };
        assert!(told(missing, &tls).contains(&absent.display().to_string()));
        let words = SecretFiles { token: Some(there.clone()), ..none.clone() };
        let told_of_words = told(words, &tls);
        assert!(told_of_words.contains("no token") && !told_of_words.contains("words"));
        fs::File::create(&there).and_then(|file| file.set_len(FILE_LEN_MAX + 1)).expect("ours");
        let long = SecretFiles { token: Some(there), ..none };
        assert!(told(long, &tls).contains("longer than"));
    }
}
