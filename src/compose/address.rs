//! The addresses of services, as people write them.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use super::{
    cloud::{self, CloudAddress},
    nix_address::{CacheAddress, parse_caches, percent_decoded},
    secrets::SecretFiles,
};
use crate::{
    castore::SizeRule,
    service::grpc::{Dialect, DialectError, GrpcAddress},
};

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// In the memory of this process, empty at first.
    Memory,
    /// In a store directory; in the default one if none is named.
    Local(Option<PathBuf>),
    /// On a server.
    Grpc {
        /// Which one.
        server: GrpcAddress,
        /// What it speaks. `None` to find out.
        dialect: Option<Dialect>,
        /// How it wants the sizes of directories. `None` for what goes with its dialect.
        size_rule: Option<SizeRule>,
        /// How long an answer may take. `None` for the default.
        timeout: Option<Duration>,
        /// How often a call is tried at most. `None` for the default.
        attempts: Option<u32>,
        /// Whether messages are compressed.
        compress: bool,
        /// What it is shown, and how it is known.
        secrets: SecretFiles,
    },
    /// In a bucket, or in a table of Bigtable.
    Cloud(CloudAddress),
    /// In one or several binary caches.
    Nix(Vec<CacheAddress>),
}

/// Why an address is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand the address {address:?}: {reason}")]
pub struct AddressError {
    /// The address.
    pub address: String,
    /// What is wrong with it.
    pub reason: String,
}

const FORMS: &str = "expected memory:, local:, local:///abs/dir, grpc+http://host:port, \
                     grpc+https://host:port, grpc+unix:///abs/socket, objectstore+s3://bucket/prefix (or \
                     gs, az, file, http, https), \
                     bigtable://instance?project_id=…&table_name=…&family_name=…, or nix+http(s)://host[:port][/prefix], \
                     several of these with spaces between";

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        parse(address).map_err(|reason| AddressError { address: without_secrets(address), reason })
    }
}

/// The address without names, passwords, and what options say: secrets belong into files, but may stand there.
fn without_secrets(address: &str) -> String {
    without_values(&without_userinfo(address))
}

fn without_values(address: &str) -> String {
    let Some((place, query)) = address.split_once('?') else { return address.to_owned() };
    let named = query.split('&').map(|option| match option.split_once('=') {
        Some((key, value)) if is_secret(key) && !value.is_empty() => format!("{key}=…"),
        _ => option.to_owned(),
    });
    format!("{place}?{}", named.collect::<Vec<_>>().join("&"))
}

/// Whether an option of that name may have a secret for a value.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // A file with a token is none.
    ["secret", "password", "token", "key", "sas", "credential"]
        .iter()
        .any(|word| key.contains(word))
        && !key.ends_with("-file")
        && !key.ends_with("-keys")
        && key != "key"
}

fn without_userinfo(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let host_end = rest.find(['/', '?', ' ']).unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => address.to_owned(),
    }
}

fn parse(address: &str) -> Result<Address, String> {
    if address.trim_start().starts_with("nix+") {
        return parse_caches(address).map(Address::Nix);
    }
    if let Some(bucket) = address.strip_prefix("objectstore+") {
        return cloud::bucket(bucket).map(Address::Cloud);
    }
    let (scheme, rest) = address.split_once(':').ok_or(FORMS)?;
    if scheme == "bigtable" {
        return cloud::bigtable(rest).map(Address::Cloud);
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some(kind) = scheme.strip_prefix("grpc+") {
        return grpc(server(kind, rest)?, query);
    }
    if !query.is_empty() {
        return Err(format!("{scheme}: takes no options"));
    }
    match (scheme, rest) {
        ("memory", "" | "//") => Ok(Address::Memory),
        ("memory", _) => Err("memory: names nothing behind the colon".to_owned()),
        ("local", "" | "//") => Ok(Address::Local(None)),
        ("local", path) => Ok(Address::Local(Some(absolute(path)?))),
        _ => Err(FORMS.to_owned()),
    }
}

fn server(kind: &str, rest: &str) -> Result<GrpcAddress, String> {
    match kind {
        "unix" => Ok(GrpcAddress::Unix(absolute(rest)?)),
        "http" | "https" => {
            let authority = rest.strip_prefix("//").unwrap_or_default().trim_end_matches('/');
            let servers: Vec<&str> = authority.split(',').collect();
            if servers.iter().any(|one| one.is_empty() || one.contains(['/', '@', ' '])) {
                return Err(format!(
                    "expected grpc+{kind}://host:port, or several host:port with commas between"
                ));
            }
            let url = |server: &&str| format!("{kind}://{server}");
            Ok(match &servers[..] {
                [server] => GrpcAddress::Http(url(server)),
                servers => GrpcAddress::Several(servers.iter().map(url).collect()),
            })
        }
        _ => Err(FORMS.to_owned()),
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err("the path must be absolute, behind two slashes: ///dir".to_owned()),
    }
}

fn grpc(address: GrpcAddress, query: &str) -> Result<Address, String> {
    let (mut dialect, mut size_rule, mut timeout, mut attempts) = (None, None, None, None);
    let (mut secrets, mut compress) = (SecretFiles::default(), false);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = percent_decoded(value)?;
        match Some((name, &*value)) {
            Some(("dialect", word)) => {
                dialect = Some(word.parse().map_err(|error: DialectError| error.to_string())?);
            }
            Some(("sizes", "documented")) => size_rule = Some(SizeRule::Documented),
            Some(("sizes", "doubled")) => size_rule = Some(SizeRule::Doubled),
            Some(("sizes", _)) => return Err("sizes are documented or doubled".to_owned()),
            Some(("timeout", seconds)) => timeout = Some(duration(seconds)?),
            Some(("attempts", times)) => attempts = Some(attempts_of(times)?),
            Some(("compress", "zstd")) => compress = true,
            Some(("compress", "none")) => compress = false,
            Some(("compress", _)) => return Err("compress is zstd or none".to_owned()),
            Some(("ca", file)) => secrets.roots = Some(file.into()),
            Some(("cert", file)) => secrets.certificate = Some(file.into()),
            Some(("key", file)) => secrets.key = Some(file.into()),
            Some(("token-file", file)) => secrets.token = Some(file.into()),
            Some(("insecure", "1")) => secrets.insecure = true,
            Some(("insecure", "0")) => secrets.insecure = false,
            _ => return Err(format!("the option {option:?} is unknown")),
        }
    }
    Ok(Address::Grpc { server: address, dialect, size_rule, timeout, attempts, compress, secrets })
}

/// How often something is tried at most.
pub(super) fn attempts_of(text: &str) -> Result<u32, String> {
    let times = text.parse().ok().filter(|times| (1..=100).contains(times));
    times.ok_or_else(|| format!("{text:?} attempts: expected a number from 1 to 100"))
}

/// A time in seconds, with or without its unit and a fraction: `30`, `1.5s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok();
    let within = seconds.filter(|seconds| (0.1..=3600.0).contains(seconds));
    within.map(Duration::from_secs_f64).ok_or_else(|| {
        format!("{text:?} is no time: expected seconds, from 0.1 to 3600, like timeout=30")
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Memory => f.write_str("memory:"),
            Address::Local(None) => f.write_str("local:"),
            Address::Local(Some(path)) => write!(f, "local://{}", path.display()),
            Address::Grpc { server, .. } => server.fmt(f),
            Address::Cloud(address) => address.fmt(f),
            Address::Nix(caches) => {
                let names: Vec<_> =
                    caches.iter().map(|cache| format!("nix+{}", cache.options.url)).collect();
                f.write_str(&names.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(server: GrpcAddress) -> Address {
        let secrets = SecretFiles::default();
        Address::Grpc {
            server,
            dialect: None,
            size_rule: None,
            timeout: None,
            attempts: None,
            compress: false,
            secrets,
        }
    }

    #[test]
    fn every_form_is_understood() {
        for (text, address) in [
            ("memory:", Address::Memory),
            ("local:", Address::Local(None)),
            ("local:///a/b", Address::Local(Some("/a/b".into()))),
            ("grpc+http://[::1]:8000", grpc(GrpcAddress::Http("http://[::1]:8000".to_owned()))),
            (
                "grpc+http://a:1,b:2",
                grpc(GrpcAddress::Several(vec!["http://a:1".to_owned(), "http://b:2".to_owned()])),
            ),
            ("grpc+https://host:1/", grpc(GrpcAddress::Http("https://host:1".to_owned()))),
            ("grpc+unix:///run/s", grpc(GrpcAddress::Unix("/run/s".into()))),
            (
                "grpc+unix:///run/s?dialect=snix&sizes=documented&timeout=1.5s&attempts=2&compress=zstd",
                Address::Grpc {
                    server: GrpcAddress::Unix("/run/s".into()),
                    dialect: Some(Dialect::Snix),
                    size_rule: Some(SizeRule::Documented),
                    timeout: Some(Duration::from_millis(1500)),
                    attempts: Some(2),
                    compress: true,
                    secrets: SecretFiles::default(),
                },
            ),
            (
                "grpc+https://far:1?ca=/%61&cert=/b&key=/c&token-file=/d&insecure=1",
                Address::Grpc {
                    server: GrpcAddress::Http("https://far:1".to_owned()),
                    dialect: None,
                    size_rule: None,
                    timeout: None,
                    attempts: None,
                    compress: false,
                    secrets: SecretFiles {
                        roots: Some("/a".into()),
                        certificate: Some("/b".into()),
                        key: Some("/c".into()),
                        token: Some("/d".into()),
                        insecure: true,
                    },
                },
            ),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "expected memory:"),
            ("ftp://x", "expected memory:"),
            ("memory:x", "names nothing"),
            ("local:relative", "must be absolute"),
            ("local://host/x", "must be absolute"),
            ("local:?x=1", "takes no options"),
            ("grpc+http:", "grpc+http://host:port"),
            ("grpc+http://a/b", "grpc+http://host:port"),
            ("grpc+http://a:1,", "grpc+http://host:port"),
            ("grpc+tcp://a:1", "expected memory:"),
            ("grpc+unix:s", "must be absolute"),
            ("grpc+http://a:1?dialect=nix", "expected tvix or snix"),
            ("grpc+http://a:1?timeout=0", "is no time"),
            ("grpc+http://a:1?timeout=NaN", "is no time"),
            ("grpc+http://a:1?attempts=0", "from 1 to 100"),
            ("grpc+http://a:1?compress=rar", "zstd or none"),
            ("grpc+http://a:1?colour=red", "\"colour=red\" is unknown"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_that_is_refused_keeps_its_secrets() {
        for address in [
            "objectstore+s3://me:hunter2@bucket?no_such_option=1",
            "objectstore+s3://bucket?secret_access_key=hunter2&no_such_option=1",
            "objectstore+az://container?account_key=hunter2&no_such_option=1",
            "objectstore+az://container?sas_token=hunter2&no_such_option=1",
            "grpc+http://me:hunter2@host:1?no-such-option=1",
        ] {
            let error = Address::from_str(address).expect_err("it is refused").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let address = "grpc+https://host:1?token-file=/a/b&no-such-option=1";
        let error = Address::from_str(address).expect_err("it is refused").to_string();
        assert!(error.contains("token-file=/a/b"), "{error}");
    }
}
