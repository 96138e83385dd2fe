//! The addresses of binary caches.

use std::{path::PathBuf, time::Duration};

use super::address::{attempts_of, duration};
use crate::{nix::PublicKey, substitute::CacheOptions};

/// A binary cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheAddress {
    /// Where it is, and what is believed of it.
    pub options: CacheOptions,
    /// How long an answer may take. `None` for the default.
    pub timeout: Option<Duration>,
}

const FORM: &str = "expected nix+http(s)://host[:port][/prefix]?trusted-public-keys=KEY%20KEY";

/// One or several caches, with white space between any two.
pub(super) fn parse_caches(text: &str) -> Result<Vec<CacheAddress>, String> {
    text.split_whitespace().map(parse_cache).collect()
}

fn parse_cache(text: &str) -> Result<CacheAddress, String> {
    let url = text.strip_prefix("nix+").ok_or(FORM)?;
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let rest = url.strip_prefix("http://").or(url.strip_prefix("https://")).ok_or(FORM)?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || rest.contains(['@', '#']) {
        return Err(FORM.to_owned());
    }
    let mut options = CacheOptions {
        url: url.trim_end_matches('/').to_owned(),
        public_keys: Vec::new(),
        require_signatures: true,
        priority: None,
        foreign_urls: false,
        netrc_file: None,
        token_file: None,
        attempts: None,
        traceparent: false,
    };
    let mut timeout = None;
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = percent_decoded(value)?;
        match name {
            "trusted-public-keys" => options.public_keys = public_keys(&value)?,
            "require-sigs" => options.require_signatures = yes_or_no(name, &value)?,
            "foreign-urls" => options.foreign_urls = yes_or_no(name, &value)?,
            "priority" => {
                let priority = value.parse().map_err(|_| format!("{value:?} is no priority"))?;
                options.priority = Some(priority);
            }
            "netrc" => options.netrc_file = Some(absolute(name, &value)?),
            "token-file" => options.token_file = Some(absolute(name, &value)?),
            "timeout" => timeout = Some(duration(&value)?),
            "traceparent" => options.traceparent = yes_or_no(name, &value)?,
            "attempts" => options.attempts = Some(attempts_of(&value)?),
            _ => return Err(format!("the option {option:?} is unknown")),
        }
    }
    Ok(CacheAddress { options, timeout })
}

fn public_keys(value: &str) -> Result<Vec<PublicKey>, String> {
    let keys = value.split_whitespace();
    keys.map(|key| key.parse::<PublicKey>().map_err(|error| format!("{key:?}: {error}"))).collect()
}

fn yes_or_no(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err(format!("{name} is 0 or 1, not {value:?}")),
    }
}

fn absolute(name: &str, value: &str) -> Result<PathBuf, String> {
    match value.starts_with('/') {
        true => Ok(PathBuf::from(value)),
        false => Err(format!("{name} must be an absolute path")),
    }
}

/// The text with each `%` and two digits as the byte they mean. A plus stays one: keys hold it.
pub(super) fn percent_decoded(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?}: behind % come two hexadecimal digits of UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next().ok_or_else(bad)?, rest.next().ok_or_else(bad)?];
        let byte = data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).map_err(|_| bad())?;
        bytes.extend(byte);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compose::Address, nix::SecretKey};

    fn key(name: &str) -> String {
        SecretKey::from_seed(name, &[7; 32]).expect("a key").public().to_string()
    }

    #[test]
    fn every_option_is_understood() {
        let (a, b) = (key("a-1"), key("b-1"));
        let text = format!(
            "nix+https://cache.example:8443/some/where/?trusted-public-keys={a}%20{b}&priority=30\
             &require-sigs=0&timeout=2.5&netrc=/etc/n%65trc&token-file=/t&foreign-urls=yes&attempts=2&traceparent=1"
        );
        let caches = parse_caches(&format!(" {text}\n nix+http://[::1]:1")).expect("legal");
        let options = CacheOptions {
            url: "https://cache.example:8443/some/where".to_owned(),
            public_keys: vec![a.parse().expect("a key"), b.parse().expect("a key")],
            require_signatures: false,
            priority: Some(30),
            foreign_urls: true,
            netrc_file: Some("/etc/netrc".into()),
            token_file: Some("/t".into()),
            attempts: Some(2),
            traceparent: true,
        };
        let timeout = Some(Duration::from_millis(2500));
        assert_eq!(caches[0], CacheAddress { options, timeout });
        assert_eq!(caches[1].options.url, "http://[::1]:1");
        assert!(caches[1].options.require_signatures && caches.len() == 2);
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("nix+ftp://x", "expected nix+http(s)://"),
            ("nix+https://", "expected nix+http(s)://"),
            ("nix+https://me@x", "expected nix+http(s)://"),
            ("nix+https://a grpc+http://b", "expected nix+http(s)://"),
            ("nix+https://a?trusted-public-keys=a", "\"a\": "),
            ("nix+https://a?require-sigs=maybe", "0 or 1"),
            ("nix+https://a?priority=high", "is no priority"),
            ("nix+https://a?netrc=x", "must be an absolute path"),
            ("nix+https://a?timeout=0", "is no time"),
            ("nix+https://a?netrc=%2", "two hexadecimal digits"),
            ("nix+https://a?colour=red", "\"colour=red\" is unknown"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
