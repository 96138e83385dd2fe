//! Where a binary cache says that an archive is.

use std::{fmt, str::FromStr};

/// The longest URL of an archive, in bytes. Those that a cloud store signs take some 2,000.
pub const NAR_URL_LEN_MAX: usize = 8192;

/// The `URL` field of a narinfo: a path under the cache's own URL, or an absolute `http(s)` URL; either may carry a
/// query.
///
/// It holds nothing that two programs read in two ways: no white space, no backslash, no fragment, no user, no `.`
/// or `..` on the way (however they are escaped). A path begins with neither a slash nor a scheme, so it stays
/// under the cache's URL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NarUrl {
    text: Box<str>,
    /// Of an absolute URL.
    origin: Option<Origin>,
}

/// Who is asked for a URL: scheme, host and port. Displayed as `https://host:port`, without the scheme's own port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    https: bool,
    /// In lower case.
    host: Box<str>,
    port: u16,
}

/// Why text is no URL of an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarUrlError {
    /// No text at all.
    #[error("a URL must not be empty")]
    Empty,
    /// More than [`NAR_URL_LEN_MAX`] bytes.
    #[error("a URL has at most {NAR_URL_LEN_MAX} bytes, not {0}")]
    TooLong(usize),
    /// A character that is no part of a URL, or means different things to different programs.
    #[error("the URL {url:?} contains {character:?}")]
    Character {
        /// The URL.
        url: String,
        /// The character.
        character: char,
    },
    /// A path that begins with a slash. Programs disagree about what it is relative to.
    #[error("the URL {0:?} begins with a slash: expected a path below the cache, or http(s)://…")]
    Slash(String),
    /// `.`, `..` or nothing between two slashes.
    #[error("the URL {0:?} has an empty step or one of only dots")]
    Step(String),
    /// Something else than `http` or `https`.
    #[error("the URL {0:?} is neither http nor https")]
    Scheme(String),
    /// A host or port that is none, or a user before it.
    #[error("the URL {0:?} has no plain <host>[:<port>]")]
    Authority(String),
}

impl NarUrl {
    /// The text, as it is in the narinfo.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whom an absolute URL asks. `None` for a path, which asks the cache.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Whether somebody else than `cache` would be asked: to be refused, unless the user allows it.
    pub fn leaves(&self, cache: &Origin) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin != cache)
    }

    /// The URL to ask for, where the cache is at `base`: a URL without a query, with or without a slash at the end.
    pub fn resolve(&self, base: &str) -> String {
        match self.origin {
            Some(_) => self.text.to_string(),
            None => format!("{}/{}", base.trim_end_matches('/'), self.text),
        }
    }
}

impl FromStr for NarUrl {
    type Err = NarUrlError;

    fn from_str(text: &str) -> Result<Self, NarUrlError> {
        check_characters(text)?;
        let way = text.split_once('?').map_or(text, |(way, _)| way);
        let (path, origin) = match split_scheme(way) {
            Some((scheme, rest)) => {
                // An absolute URL without a path could only name a cache, not an archive in it.
                let (authority, path) =
                    rest.split_once('/').ok_or_else(|| NarUrlError::Step(text.to_owned()))?;
                (path, Some(read_origin(text, scheme, authority)?))
            }
            None if way.starts_with('/') => return Err(NarUrlError::Slash(text.to_owned())),
            // Before the first slash, a colon would end a scheme.
            None if way.split('/').next().is_some_and(|step| step.contains(':')) => {
                return Err(NarUrlError::Scheme(text.to_owned()));
            }
            None => (way, None),
        };
        if path.split('/').any(is_dots) {
            return Err(NarUrlError::Step(text.to_owned()));
        }
        Ok(NarUrl { text: text.into(), origin })
    }
}

/// All of what a URL may hold is visible ASCII.
fn check_characters(text: &str) -> Result<(), NarUrlError> {
    match text.len() {
        0 => return Err(NarUrlError::Empty),
        len if len > NAR_URL_LEN_MAX => return Err(NarUrlError::TooLong(len)),
        _ => {}
    }
    let illegal = |c: &char| !c.is_ascii_graphic() || "\"#<>\\^`{|}".contains(*c);
    match text.chars().find(illegal) {
        Some(character) => Err(NarUrlError::Character { url: text.to_owned(), character }),
        None => Ok(()),
    }
}

/// Whether a step leads nowhere or up, also if its dots are escaped.
fn is_dots(step: &str) -> bool {
    let step = step.replace("%2e", ".").replace("%2E", ".");
    matches!(step.as_str(), "" | "." | "..")
}

/// The scheme before `://`, where that comes before any other slash, and what follows.
fn split_scheme(way: &str) -> Option<(&str, &str)> {
    way.split_once("://").filter(|(scheme, _)| !scheme.contains('/'))
}

fn read_origin(url: &str, scheme: &str, authority: &str) -> Result<Origin, NarUrlError> {
    let https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(NarUrlError::Scheme(url.to_owned())),
    };
    let bad = || NarUrlError::Authority(url.to_owned());
    // The colons inside of brackets belong to an IPv6 address.
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            (&authority[..address.len() + 2], after)
        }
        None => {
            let (host, after) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(legal) {
                return Err(bad());
            }
            (host, after)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?
        }
        None if port.is_empty() => default_port(https),
        Some(_) | None => return Err(bad()),
    };
    Ok(Origin { https, host: host.to_ascii_lowercase().into(), port })
}

const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl FromStr for Origin {
    type Err = NarUrlError;

    /// Reads the origin of an `http(s)` URL. Its path and query are not looked at.
    fn from_str(url: &str) -> Result<Self, NarUrlError> {
        check_characters(url)?;
        let (scheme, rest) =
            split_scheme(url).ok_or_else(|| NarUrlError::Scheme(url.to_owned()))?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        read_origin(url, scheme, authority)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default_port(self.https) {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Display for NarUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for NarUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
#[path = "nar_url_tests.rs"]
mod tests;
