//! As whom a server is asked.

use std::{
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use reqwest::{Url, header::HeaderValue};

use crate::{
    nix::Origin,
    substitute::netrc::{NETRC_LEN_MAX, Netrc, NetrcError},
};

/// The longest token that is read, in bytes.
const TOKEN_LEN_MAX: u64 = 64 << 10;

/// Where Nix has its netrc file.
const NETRC_DEFAULT: &str = "/etc/nix/netrc";

/// A token for the cache itself, and names and passwords for any host that asks.
#[derive(Clone, Default)]
pub struct Credentials {
    netrc: Netrc,
    token: Option<(Origin, HeaderValue)>,
}

/// Why credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no netrc file.
    #[error("{path}: {source}")]
    Netrc {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: NetrcError,
    },
    /// A file holds no token.
    #[error("{0} holds no token: expected one line of visible ASCII characters")]
    Token(PathBuf),
}

impl Credentials {
    /// Reads the netrc file: the one that is named, else that of `NETRC`, else that of Nix, which need not be there.
    /// The token in `token_file` is for `cache` alone.
    pub fn read(
        netrc_file: Option<&Path>,
        token_file: Option<&Path>,
        cache: &Origin,
    ) -> Result<Self, CredentialsError> {
        let from_environment = std::env::var_os("NETRC").filter(|path| !path.is_empty());
        let named = netrc_file.map(Path::to_owned).or(from_environment.map(PathBuf::from));
        let netrc = match named {
            Some(path) => read_netrc(&path)?,
            None => match read_netrc(Path::new(NETRC_DEFAULT)) {
                // Nobody asked for it: it is for those who may read it.
                Err(CredentialsError::Read { .. }) => Netrc::default(),
                netrc => netrc?,
            },
        };
        let token = token_file.map(read_token).transpose()?;
        Ok(Credentials { netrc, token: token.map(|token| (cache.clone(), token)) })
    }

    /// What to say to whoever is at `url`.
    pub(super) fn for_url(&self, url: &Url) -> Option<HeaderValue> {
        if let Some((origin, token)) = &self.token
            && url.as_str().parse::<Origin>().as_ref() == Ok(origin)
        {
            return Some(token.clone());
        }
        let login = self.netrc.login(url.host_str()?)?;
        let plain = format!("{}:{}", login.name, login.password);
        let basic = format!("Basic {}", BASE64.encode(plain.as_bytes()));
        let mut header = HeaderValue::try_from(basic).expect("base64 is visible ASCII");
        header.set_sensitive(true);
        Some(header)
    }
}

fn read_bounded(path: &Path, len_max: u64) -> Result<String, CredentialsError> {
    let read = || {
        let mut text = String::new();
        fs::File::open(path)?.take(len_max + 1).read_to_string(&mut text)?;
        match text.len() as u64 > len_max {
            true => Err(io::Error::other(format!("it is longer than {len_max} bytes"))),
            false => Ok(text),
        }
    };
    read().map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
}

fn read_netrc(path: &Path) -> Result<Netrc, CredentialsError> {
    let text = read_bounded(path, NETRC_LEN_MAX)?;
    Netrc::parse(&text).map_err(|source| CredentialsError::Netrc { path: path.to_owned(), source })
}

fn read_token(path: &Path) -> Result<HeaderValue, CredentialsError> {
    let text = read_bounded(path, TOKEN_LEN_MAX)?;
    let token = text.trim();
    let bad = || CredentialsError::Token(path.to_owned());
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad());
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| bad())?;
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|(origin, _)| origin);
        f.debug_struct("Credentials").field("netrc", &self.netrc).field("token", &token).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(credentials: &Credentials, url: &str) -> Option<String> {
        let header = credentials.for_url(&Url::parse(url).expect("a URL"))?;
        assert!(header.is_sensitive());
        header.to_str().ok().map(str::to_owned)
    }

    #[test]
    fn a_token_is_for_its_cache_and_a_password_for_its_host() {
        let dir = tempfile::tempdir().expect("a folder");
        let (netrc, token) = (dir.path().join("netrc"), dir.path().join("token"));
        fs::write(&netrc, "machine b.example login me password pass").expect("written");
        fs::write(&token, "t0ken\n").expect("written");
        let origin: Origin = "https://a.example/cache".parse().expect("an origin");
        let credentials = Credentials::read(Some(&netrc), Some(&token), &origin).expect("legal");
        let bearer = Some("Bearer t0ken".to_owned());
        assert_eq!(said(&credentials, "https://a.example/x"), bearer);
        assert_eq!(said(&credentials, "https://a.example:443/x?y"), bearer);
        assert_eq!(said(&credentials, "https://a.example:8443/x"), None);
        assert_eq!(said(&credentials, "http://a.example/x"), None);
        let basic = Some("Basic bWU6cGFzcw==".to_owned());
        assert_eq!(said(&credentials, "http://b.example:81/x"), basic);
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("pass"), "{shown}");
    }

    #[test]
    fn files_that_are_named_must_be_good() {
        let dir = tempfile::tempdir().expect("a folder");
        let origin: Origin = "https://a.example".parse().expect("an origin");
        let file = dir.path().join("file");
        let read = |netrc: Option<&Path>, token: Option<&Path>| {
            Credentials::read(netrc, token, &origin).expect_err("refused").to_string()
        };
        assert!(read(Some(&file), None).contains("cannot read"));
        fs::write(&file, "secret word").expect("written");
        let error = read(Some(&file), None);
        assert!(error.contains("none of machine") && !error.contains("secret"), "{error}");
        let error = read(Some(Path::new("/dev/null")), Some(&file));
        assert!(error.contains("holds no token") && !error.contains("secret"), "{error}");
        fs::write(&file, vec![b'x'; TOKEN_LEN_MAX as usize + 1]).expect("written");
        assert!(read(Some(Path::new("/dev/null")), Some(&file)).contains("longer than"));
    }
}
