//! What may be told of what went wrong, and of where it was asked for: others read traces than those who may read what
//! stands in addresses.

use std::fmt;

use opentelemetry::KeyValue;

/// The longest text that is told, in bytes.
const TEXT_LEN_MAX: usize = 1024;

/// What stands in place of what is not told.
const LEFT_OUT: &str = "…";

/// `text`, cut, and without the users, queries and fragments of its URLs: secrets stand there.
pub(in crate::observe) fn told(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let mut told = String::with_capacity(text.len().min(TEXT_LEN_MAX));
    let mut rest = text.as_str();
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        let end = after.find(|c: char| c.is_whitespace() || "\"'<>`".contains(c));
        let (url, behind) = after.split_at(end.unwrap_or(after.len()));
        told.push_str(before);
        let (url, is_cut) =
            without_secrets(url, before.ends_with("http://") || before.ends_with("https://"));
        told.push_str(url);
        if is_cut {
            told.push_str(LEFT_OUT);
        }
        rest = behind;
        if told.len() > TEXT_LEN_MAX {
            break;
        }
    }
    told.push_str(rest);
    if told.len() > TEXT_LEN_MAX {
        told.truncate(told.floor_char_boundary(TEXT_LEN_MAX));
        told.push_str(LEFT_OUT);
    }
    told
}

/// What follows the scheme of a URL, without query and fragment, and of what is asked by HTTP without the user. Whether
/// something is missing at the end.
fn without_secrets(url: &str, is_http: bool) -> (&str, bool) {
    let end = url.find(['?', '#']);
    let kept = &url[..end.unwrap_or(url.len())];
    let host_end = kept.find('/').unwrap_or(kept.len());
    match kept[..host_end].rfind('@').filter(|_| is_http) {
        Some(at) => (&kept[at + 1..], end.is_some()),
        None => (kept, end.is_some()),
    }
}

/// The parts of a URL that may be told.
pub(super) struct Url {
    /// All of it.
    pub(super) full: String,
    /// The host, or the path of a socket.
    pub(super) host: String,
    /// The port, also if it goes without saying.
    pub(super) port: Option<u16>,
}

impl Url {
    /// The server, as attributes of whatever is asked of it.
    pub(super) fn server(&self) -> impl Iterator<Item = KeyValue> + use<> {
        let address = KeyValue::new("server.address", self.host.clone());
        let port = self.port.map(|port| KeyValue::new("server.port", i64::from(port)));
        [address].into_iter().chain(port)
    }
}

/// Takes a URL apart.
pub(super) fn url(text: impl fmt::Display) -> Url {
    let full = told(text);
    let full = full.strip_suffix(LEFT_OUT).unwrap_or(&full).to_owned();
    let (scheme, rest) = full.split_once("://").unwrap_or(("", &full));
    if scheme.ends_with("unix") {
        let host = rest.to_owned();
        return Url { full, host, port: None };
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, port.parse().ok())
        }
        _ if scheme.ends_with("http") => (authority, Some(80)),
        _ if scheme.ends_with("https") => (authority, Some(443)),
        _ => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Url { full, host, port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_an_address_is_told() {
        for (text, expected) in [
            ("nothing in it", "nothing in it"),
            ("nix+https://host/a is unavailable", "nix+https://host/a is unavailable"),
            ("at https://me:pass@host/a?token=1#x: gone", "at https://host/a… gone"),
            (
                "at https://host?a=//b@c (twice https://t@host/)",
                "at https://host… (twice https://host/)",
            ),
            (
                "\"http://a?secret\" 'http://b#secret' <http://c/@d>",
                "\"http://a…\" 'http://b…' <http://c/@d>",
            ),
            ("objectstore+az://container@account/a", "objectstore+az://container@account/a"),
            ("://", "://"),
            ("http://", "http://"),
        ] {
            assert_eq!(told(text), expected);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for text in [
            "ü".repeat(10_000),
            format!("xhttp://{}", "ü".repeat(10_000)),
            "http://a ".repeat(10_000),
        ] {
            let told = told(&text);
            assert!(told.len() <= TEXT_LEN_MAX + LEFT_OUT.len(), "{}", told.len());
            assert!(text.starts_with(told.trim_end_matches(LEFT_OUT)));
        }
    }

    #[test]
    fn a_server_is_named_by_its_host_and_port() {
        for (text, full, host, port) in [
            ("https://me:pass@host/a?b", "https://host/a", "host", Some(443)),
            ("http://[::1]:8000/", "http://[::1]:8000/", "::1", Some(8000)),
            ("http://[::1]", "http://[::1]", "::1", Some(80)),
            ("grpc+https://host:1", "grpc+https://host:1", "host", Some(1)),
            ("grpc+unix:///run/x", "grpc+unix:///run/x", "/run/x", None),
            ("host:99", "host:99", "host", Some(99)),
            ("host:999999", "host:999999", "host", None),
        ] {
            let url = url(text);
            assert_eq!((&*url.full, &*url.host, url.port), (full, host, port), "{text}");
        }
    }
}
