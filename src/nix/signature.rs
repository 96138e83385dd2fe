//! Signatures and the keys for them, as Nix writes them: `<name of the key>:<base64>`.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

/// A signature with the name of the key that made it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    key_name: Box<str>,
    bytes: [u8; 64],
}

/// A key that verifies signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: Box<str>,
    key: VerifyingKey,
}

/// A key that signs. Never shown by `Debug`.
#[derive(Clone)]
pub struct SecretKey {
    name: Box<str>,
    key: SigningKey,
}

/// Why something is no signature or no key. Tells the name of the key, never what follows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No colon ends the name.
    #[error("expected <name of the key>:<base64>")]
    NoColon,
    /// The name is empty.
    #[error("a key must have a name")]
    NameEmpty,
    /// The name holds something that would end it in a text.
    #[error("the name {name:?} of a key contains {character:?}")]
    Name {
        /// The name.
        name: String,
        /// The colon, space or control character.
        character: char,
    },
    /// What follows the name is not base64.
    #[error("what follows {name:?} is not canonical base64")]
    Base64 {
        /// The name of the key.
        name: String,
    },
    /// Too few or too many bytes.
    #[error("what follows {name:?} should be {expected} bytes, not {len}")]
    Length {
        /// The name of the key.
        name: String,
        /// The length it should have, in bytes.
        expected: usize,
        /// The length it has, in bytes.
        len: usize,
    },
    /// The bytes of a public key that are no point of the curve.
    #[error("{name:?} is no public key")]
    PublicKey {
        /// The name of the key.
        name: String,
    },
    /// The public half of a secret key does not belong to the secret one.
    #[error("the two halves of the secret key {name:?} do not belong together")]
    SecretKey {
        /// The name of the key.
        name: String,
    },
}

/// Names stand in lines and lists: a colon, white space or a control character would let one pass for another.
fn check_key_name(name: &str) -> Result<Box<str>, SignatureError> {
    if name.is_empty() {
        return Err(SignatureError::NameEmpty);
    }
    match name.chars().find(|c| *c == ':' || c.is_whitespace() || c.is_control()) {
        Some(character) => Err(SignatureError::Name { name: name.to_owned(), character }),
        None => Ok(name.into()),
    }
}

fn check_len<const N: usize>(name: &str, bytes: &[u8]) -> Result<[u8; N], SignatureError> {
    bytes.try_into().map_err(|_| SignatureError::Length {
        name: name.to_owned(),
        expected: N,
        len: bytes.len(),
    })
}

fn parse<const N: usize>(text: &str) -> Result<(Box<str>, [u8; N]), SignatureError> {
    let (name, base64) = text.split_once(':').ok_or(SignatureError::NoColon)?;
    let name = check_key_name(name)?;
    let bytes = BASE64
        .decode(base64.as_bytes())
        .map_err(|_| SignatureError::Base64 { name: name.to_string() })?;
    let bytes = check_len(&name, &bytes)?;
    Ok((name, bytes))
}

impl Signature {
    /// Puts a signature together.
    pub fn new(key_name: &str, bytes: &[u8]) -> Result<Self, SignatureError> {
        let key_name = check_key_name(key_name)?;
        let bytes = check_len(&key_name, bytes)?;
        Ok(Signature { key_name, bytes })
    }

    /// The name of the key that made it. A claim, until it is verified.
    pub fn key_name(&self) -> &str {
        &self.key_name
    }

    /// The ed25519 signature.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let (key_name, bytes) = parse(text)?;
        Ok(Signature { key_name, bytes })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key_name, BASE64.encode(&self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PublicKey {
    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this key, under this name, made the signature of `message`.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        signature.key_name == self.name && self.key.verify_strict(message, &bytes).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let (name, bytes) = parse(text)?;
        let key = VerifyingKey::from_bytes(&bytes)
            .map_err(|_| SignatureError::PublicKey { name: name.to_string() })?;
        Ok(PublicKey { name, key })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SecretKey {
    /// Makes a key from 32 random bytes.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, SignatureError> {
        Ok(SecretKey { name: check_key_name(name)?, key: SigningKey::from_bytes(seed) })
    }

    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature { key_name: self.name.clone(), bytes: self.key.sign(message).to_bytes() }
    }
}

impl FromStr for SecretKey {
    type Err = SignatureError;

    /// Reads the name and 64 bytes: the secret half, then the public one.
    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let (name, bytes) = parse(text)?;
        let key = SigningKey::from_keypair_bytes(&bytes)
            .map_err(|_| SignatureError::SecretKey { name: name.to_string() })?;
        Ok(SecretKey { name, key })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `nix-store --generate-binary-cache-key`.
    const SECRET: &str = "test-1:D6969oa2anv3Scw/lFSenK95ubj5FgbIvPceg+UlOmIyoR0xhhhcp5UC68KS5+u30/TaW/WyFL+iS2UniRIrlw==";
    const PUBLIC: &str = "test-1:MqEdMYYYXKeVAuvCkufrt9P02lv1shS/oktlJ4kSK5c=";

    #[test]
    fn the_halves_of_a_key_pair_find_each_other() {
        let secret: SecretKey = SECRET.parse().expect("a key");
        let public: PublicKey = PUBLIC.parse().expect("a key");
        assert_eq!(secret.public(), public);
        assert_eq!(public.to_string(), PUBLIC);
        let signature = secret.sign(b"message");
        assert_eq!(signature.to_string().parse(), Ok(signature.clone()));
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"massage", &signature));
    }

    #[test]
    fn a_signature_under_another_name_is_not_verified() {
        let secret: SecretKey = SECRET.parse().expect("a key");
        let stranger = Signature::new("test-2", secret.sign(b"m").as_bytes()).expect("legal");
        assert!(!secret.public().verify(b"m", &stranger));
        let seed = SecretKey::from_seed("test-1", &[7; 32]).expect("legal");
        assert!(!secret.public().verify(b"m", &seed.sign(b"m")));
        assert!(seed.public().verify(b"m", &seed.sign(b"m")));
    }

    #[test]
    fn a_secret_key_is_not_shown() {
        let secret: SecretKey = SECRET.parse().expect("a key");
        assert_eq!(format!("{secret:?}"), "SecretKey(test-1)");
        let error = format!("{SECRET}=").parse::<SecretKey>().expect_err("no base64");
        assert_eq!(error, SignatureError::Base64 { name: "test-1".to_owned() });
    }

    #[test]
    fn each_illegal_form_has_its_error() {
        let parse = |text: &str| text.parse::<Signature>();
        let name = || "a".to_owned();
        assert_eq!(parse("a"), Err(SignatureError::NoColon));
        assert_eq!(parse(":AAAA"), Err(SignatureError::NameEmpty));
        assert_eq!(parse("a:%"), Err(SignatureError::Base64 { name: name() }));
        assert_eq!(
            parse("a:AAAA"),
            Err(SignatureError::Length { name: name(), expected: 64, len: 3 })
        );
        for character in [' ', '\n', ':', '\0', '\u{2028}'] {
            let name = format!("a{character}b");
            assert_eq!(
                Signature::new(&name, &[0; 64]),
                Err(SignatureError::Name { name: name.clone(), character })
            );
        }
        assert_eq!(
            "a:AAAA".parse::<PublicKey>(),
            Err(SignatureError::Length { name: name(), expected: 32, len: 3 })
        );
        let no_point = [&[2][..], &[0; 31]].concat();
        assert_eq!(
            format!("a:{}", BASE64.encode(&no_point)).parse::<PublicKey>(),
            Err(SignatureError::PublicKey { name: name() })
        );
        assert_eq!(
            format!("a:{}", BASE64.encode(&[1; 64])).parse::<SecretKey>().err(),
            Some(SignatureError::SecretKey { name: name() })
        );
    }
}
