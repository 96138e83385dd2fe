//! A collector, and how it is reached.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::{
    codegen::http::{HeaderMap, HeaderName, HeaderValue, Uri},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::Error;
use crate::observe::span::told;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest file with certificates that is read, in bytes: those of a whole system have some hundred KiB.
const CERTIFICATE_LEN_MAX: u64 = 4 << 20;

/// Where a collector is, and what it is shown.
#[derive(Clone)]
pub(super) struct Collector {
    pub(super) endpoint: String,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    /// The roots of its certificate, in PEM; those of the system if there is no such file.
    pub(super) certificate: Option<PathBuf>,
}

impl fmt::Debug for Collector {
    /// Headers are for whoever knows secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Collector {
    /// An address, without a path.
    pub(super) fn check(from: &'static str, endpoint: String) -> Result<String, Error> {
        let legal = endpoint.trim().trim_end_matches('/');
        let is_legal = legal.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.path() == "/"
                && uri.query().is_none()
        });
        match is_legal {
            true => Ok(legal.to_owned()),
            false => Err(Error::Endpoint { from, endpoint: told(endpoint) }),
        }
    }

    /// `name=value,name=value`, the values percent-encoded.
    pub(super) fn headers(text: &str) -> Option<HeaderMap> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let name = HeaderName::try_from(name.trim()).ok()?;
                let value = HeaderValue::from_bytes(&decoded(value.trim())?).ok()?;
                Some((name, value))
            })
            .collect()
    }

    /// A connection, which is made when it is needed, and again when it breaks.
    pub(super) fn connect(&self) -> Result<Channel, Error> {
        let illegal =
            |_| Error::Endpoint { from: "the collector", endpoint: self.endpoint.clone() };
        let mut endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(illegal)?;
        if self.endpoint.starts_with("https:") {
            let mut tls = ClientTlsConfig::new();
            tls = match &self.certificate {
                Some(file) => {
                    let pem = read(file)
                        .map_err(|source| Error::Certificate { file: file.clone(), source })?;
                    tls.ca_certificate(Certificate::from_pem(pem))
                }
                None => tls.with_native_roots(),
            };
            endpoint = endpoint
                .tls_config(tls)
                .map_err(|source| Error::Tls { endpoint: self.endpoint.clone(), source })?;
        }
        Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(self.timeout).connect_lazy())
    }
}

/// A file with certificates.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    fs::File::open(file)?.take(CERTIFICATE_LEN_MAX + 1).read_to_end(&mut pem)?;
    match pem.len() as u64 > CERTIFICATE_LEN_MAX {
        true => Err(io::Error::other(format!("it has more than {CERTIFICATE_LEN_MAX} bytes"))),
        false => Ok(pem),
    }
}

/// Undoes percent-encoding. `None` if it is none.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?.first().copied()?
            }
            other => other,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_no_certificate() {
        let error = read(Path::new("/dev/zero")).expect_err("it has no end").to_string();
        assert!(error.contains("more than"), "{error}");
    }
}
