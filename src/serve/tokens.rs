//! Secrets that clients have to know.

use axum::http::{HeaderMap, header};
use data_encoding::BASE64;

/// The shortest token, in bytes. A shorter one could be guessed.
const TOKEN_LEN_MIN: usize = 16;

/// Secrets, one of which a client has to know. Only their hashes are kept, and all of them compared, each in a time that
/// does not depend on it: how long that takes tells nothing of the secrets.
#[derive(Debug)]
pub struct Tokens(Vec<blake3::Hash>);

/// Why a text holds no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// No line holds one.
    #[error("it holds no token")]
    Empty,
    /// A line that could be guessed.
    #[error("the token on line {line} has {len} bytes: {TOKEN_LEN_MIN} are needed at least")]
    Short {
        /// The line, counted from 1.
        line: usize,
        /// Its length, in bytes.
        len: usize,
    },
}

impl Tokens {
    /// Reads a text with a token on each line. Empty lines are read over.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let mut hashes = Vec::new();
        for (at, line) in text.lines().enumerate() {
            match line.trim() {
                "" => {}
                token if token.len() < TOKEN_LEN_MIN => {
                    return Err(TokensError::Short { line: at + 1, len: token.len() });
                }
                token => hashes.push(blake3::hash(token.as_bytes())),
            }
        }
        match hashes.is_empty() {
            true => Err(TokensError::Empty),
            false => Ok(Tokens(hashes)),
        }
    }

    /// Whether a request carries a token: as a bearer, or as the password of any user, as Nix sends what stands in a
    /// netrc file.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, credentials)) = value.and_then(|value| value.split_once(' ')) else {
            return false;
        };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.contain(credentials.as_bytes());
        }
        let decoded = BASE64.decode(credentials.as_bytes()).unwrap_or_default();
        let colon = decoded.iter().position(|byte| *byte == b':');
        scheme.eq_ignore_ascii_case("basic")
            && colon.is_some_and(|colon| self.contain(&decoded[colon + 1..]))
    }

    fn contain(&self, token: &[u8]) -> bool {
        let hash = blake3::hash(token);
        self.0.iter().fold(false, |found, known| found | (*known == hash))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_opens_in_either_form() {
        let tokens = Tokens::parse("\n first-token-of-two \nsecond-token-of-two\n").expect("two");
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        for (value, allowed) in [
            ("Bearer first-token-of-two".to_owned(), true),
            ("bearer second-token-of-two".to_owned(), true),
            (basic("anybody:first-token-of-two"), true),
            (basic(":second-token-of-two"), true),
            ("Bearer first-token-of-tw".to_owned(), false),
            ("Bearer ".to_owned(), false),
            ("first-token-of-two".to_owned(), false),
            ("Basic first-token-of-two".to_owned(), false),
            (basic("first-token-of-two"), false),
            (basic("first-token-of-two:"), false),
            ("Digest first-token-of-two".to_owned(), false),
        ] {
            let value = HeaderValue::try_from(&value).expect("legal");
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
            assert_eq!(tokens.allow(&headers), allowed, "{headers:?}");
        }
        assert!(!tokens.allow(&HeaderMap::new()));
    }

    #[test]
    fn what_protects_nothing_is_refused() {
        assert_eq!(Tokens::parse(" \n\n").err(), Some(TokensError::Empty));
        let short = TokensError::Short { line: 2, len: 15 };
        assert_eq!(Tokens::parse("\n123456789012345").err(), Some(short));
    }
}
