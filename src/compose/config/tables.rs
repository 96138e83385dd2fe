//! The tables of a configuration file, as they are written. `docs/configuration.md` describes each key.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) source: BTreeMap<String, Spanned<SourceTable>>,
    pub(super) cache: BTreeMap<String, Spanned<CacheTable>>,
    pub(super) store: BTreeMap<String, Spanned<StoreTable>>,
}

/// One place where things are. All but the first two keys are the options that an address takes behind its `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SourceTable {
    pub(super) address: Spanned<OneOrMore>,
    pub(super) verify: Option<VerifyWord>,
    pub(super) timeout: Option<Spanned<Scalar>>,
    pub(super) attempts: Option<Spanned<u32>>,
    pub(super) dialect: Option<Spanned<String>>,
    pub(super) sizes: Option<Spanned<String>>,
    pub(super) compress: Option<Spanned<String>>,
    pub(super) ca: Option<Spanned<String>>,
    pub(super) cert: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) insecure: Option<Spanned<bool>>,
    pub(super) trusted_public_keys: Option<Spanned<OneOrMore>>,
    pub(super) require_sigs: Option<Spanned<bool>>,
    pub(super) foreign_urls: Option<Spanned<bool>>,
    pub(super) priority: Option<Spanned<u32>>,
    pub(super) netrc: Option<Spanned<String>>,
    /// Those that only some kinds of address know.
    #[serde(default)]
    pub(super) options: BTreeMap<String, Spanned<Scalar>>,
}

/// A directory in which what comes from far is kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CacheTable {
    pub(super) dir: Spanned<PathBuf>,
    pub(super) size: Option<Spanned<Scalar>>,
}

/// A store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StoreTable {
    pub(super) read: Option<Spanned<OneOrMore>>,
    pub(super) write: Option<Spanned<String>>,
    pub(super) blobs: Option<Spanned<ServiceTable>>,
    pub(super) directories: Option<Spanned<ServiceTable>>,
    pub(super) path_infos: Option<Spanned<ServiceTable>>,
    pub(super) cache: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) sign_key_files: Vec<Spanned<PathBuf>>,
    pub(super) fetch_whole_up_to: Option<Spanned<Scalar>>,
    pub(super) absent_ttl: Option<Spanned<Scalar>>,
}

/// One service of a store that is elsewhere than the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ServiceTable {
    pub(super) read: Option<Spanned<OneOrMore>>,
    pub(super) write: Option<Spanned<String>>,
}

/// What is believed of a source without proof.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum VerifyWord {
    Source,
    Strict,
}

/// A word, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string, or an array of strings")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// What stands for a number or a word.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, a string or a boolean")]
pub(super) enum Scalar {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl OneOrMore {
    pub(super) fn words(&self) -> &[String] {
        match self {
            OneOrMore::One(word) => std::slice::from_ref(word),
            OneOrMore::More(words) => words,
        }
    }
}

impl Scalar {
    /// As it would stand in an address.
    pub(super) fn text(&self) -> String {
        match self {
            Scalar::Boolean(true) => "1".to_owned(),
            Scalar::Boolean(false) => "0".to_owned(),
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Text(text) => text.clone(),
        }
    }
}

/// An option of an address, with its value and the place where that stands.
pub(super) type AddressOption<'a> = (&'a str, String, Range<usize>);

impl SourceTable {
    /// All that is given besides the address.
    pub(super) fn address_options(&self) -> Vec<AddressOption<'_>> {
        let texts = [
            ("dialect", &self.dialect),
            ("sizes", &self.sizes),
            ("compress", &self.compress),
            ("ca", &self.ca),
            ("cert", &self.cert),
            ("key", &self.key),
            ("token-file", &self.token_file),
            ("netrc", &self.netrc),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| {
            value.as_ref().map(|value| (name, value.as_ref().clone(), value.span()))
        });
        let numbers = [("attempts", &self.attempts), ("priority", &self.priority)];
        let numbers = numbers.into_iter().filter_map(|(name, value)| {
            value.as_ref().map(|value| (name, value.as_ref().to_string(), value.span()))
        });
        let booleans = [
            ("insecure", &self.insecure),
            ("require-sigs", &self.require_sigs),
            ("foreign-urls", &self.foreign_urls),
        ];
        let booleans = booleans.into_iter().filter_map(|(name, value)| {
            let value = value.as_ref()?;
            let text = if *value.as_ref() { "1" } else { "0" };
            Some((name, text.to_owned(), value.span()))
        });
        let keys = self
            .trusted_public_keys
            .iter()
            .map(|keys| ("trusted-public-keys", keys.as_ref().words().join(" "), keys.span()));
        let timeout = self.timeout.iter().map(|value| ("timeout", value));
        let others = self.options.iter().map(|(name, value)| (name.as_str(), value));
        let scalars =
            timeout.chain(others).map(|(name, value)| (name, value.as_ref().text(), value.span()));
        texts.chain(numbers).chain(booleans).chain(keys).chain(scalars).collect()
    }
}
