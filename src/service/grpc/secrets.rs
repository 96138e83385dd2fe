//! What a client shows to a peer, and by what it knows it.

use std::fmt;

use tonic::{
    codegen::http::HeaderValue,
    transport::{Certificate, ClientTlsConfig, Identity},
};

/// A secret that a peer knows its clients by. Never shown.
#[derive(Clone)]
pub struct BearerToken(HeaderValue);

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it holds no token: one line of visible ASCII characters is expected")]
pub struct BearerTokenError;

impl BearerToken {
    /// Takes the token in `text`, which may have space around it.
    pub fn parse(text: &str) -> Result<Self, BearerTokenError> {
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BearerTokenError);
        }
        let mut header =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| BearerTokenError)?;
        header.set_sensitive(true);
        Ok(BearerToken(header))
    }

    /// The value of the header that shows it.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken")
    }
}

/// How a peer that speaks TLS is known, and what it is shown. All in PEM.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// The roots that its certificate may come from, in place of those of the system.
    pub roots: Option<Vec<u8>>,
    /// A certificate of ours and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl ClientTls {
    pub(super) fn config(&self) -> ClientTlsConfig {
        let config = match &self.roots {
            Some(roots) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

impl fmt::Debug for ClientTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("own_roots", &self.roots.is_some())
            .field("has_identity", &self.identity.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        let token = BearerToken::parse(" a-secret\n").expect("a token");
        assert_eq!(token.header(), "Bearer a-secret");
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
        for text in ["", " \n", "two words", "two\nlines", "gr\u{fc}n"] {
            assert_eq!(BearerToken::parse(text).err(), Some(BearerTokenError), "{text:?}");
        }
    }
}
