//! One binary cache: what it knows of a store path, and its archives.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::OnceCell;

use super::{
    cache_info::{CACHE_INFO_LEN_MAX, CACHE_INFO_NAME, CacheInfo},
    client::{ATTEMPTS_DEFAULT, Client, Credentials, CredentialsError, Download, Limits},
    fault::CacheFault,
};
use crate::{
    nix::{
        Compression, ContentClaim, NARINFO_LEN_MAX, NarInfoFile, NarUrlError, Origin, PathInfo,
        PublicKey, StorePathDigest,
    },
    service::{Error, Result},
};

/// Where a cache is, and what is believed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Where it is: `http(s)://host[:port][/prefix]`.
    pub url: String,
    /// Whose signatures are believed.
    pub public_keys: Vec<PublicKey>,
    /// Whether somebody must vouch for each path: one of those keys, or its content address.
    pub require_signatures: bool,
    /// In which order it is asked among others. `None` for what it says itself.
    pub priority: Option<u32>,
    /// Whether archives may be on other servers.
    pub foreign_urls: bool,
    /// Names and passwords. `None` for the usual files.
    pub netrc_file: Option<PathBuf>,
    /// A file with a token for it.
    pub token_file: Option<PathBuf>,
    /// How often a question is asked at most. `None` for the default.
    pub attempts: Option<u32>,
    /// Whether it is told to which traces questions belong. Those who do not know us need not know that.
    pub traceparent: bool,
}

/// Why a cache cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum CacheOptionsError {
    /// No URL of a server.
    #[error(transparent)]
    Url(#[from] NarUrlError),
    /// Nothing could ever be believed.
    #[error(
        "no trusted-public-keys are given, without which nothing of it can be believed: append \
         ?trusted-public-keys=NAME:BASE64, or ?require-sigs=0 if anybody is to be believed"
    )]
    NoKeys,
    /// A file with credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Client(#[from] Error),
}

/// A binary cache.
pub struct BinaryCache {
    client: Arc<Client>,
    origin: Origin,
    options: CacheOptions,
    info: OnceCell<CacheInfo>,
}

/// What a cache tells of a store path, as far as it is believed.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) file: NarInfoFile,
    /// What has to be found of the contents, since nobody else vouches for them.
    pub(super) claim: Option<ContentClaim>,
}

impl Told {
    /// What has to be found of the contents, as far as the hash of the archive does not tell.
    pub(super) fn unproven_claim(&self) -> Option<ContentClaim> {
        self.claim.filter(|claim| claim.holds_for(&self.file.info.nar).is_none())
    }
}

impl BinaryCache {
    /// Opens a cache. Nobody is asked yet. How long an answer may take is `deadline`; nobody is ever asked if `offline`.
    pub fn new(
        options: CacheOptions,
        deadline: Duration,
        offline: bool,
    ) -> std::result::Result<Self, CacheOptionsError> {
        if options.require_signatures && options.public_keys.is_empty() {
            return Err(CacheOptionsError::NoKeys);
        }
        let origin: Origin = options.url.parse()?;
        let (netrc, token) = (options.netrc_file.as_deref(), options.token_file.as_deref());
        let credentials = Credentials::read(netrc, token, &origin)?;
        let endpoint: Arc<str> = format!("nix+{}", options.url).into();
        let limits = Limits {
            deadline,
            attempts_max: options.attempts.unwrap_or(ATTEMPTS_DEFAULT),
            offline,
            tells_traces: options.traceparent,
        };
        let client = Client::new(endpoint, (&options.url, origin.clone()), credentials, limits)?;
        Ok(BinaryCache { client, origin, options, info: OnceCell::new() })
    }

    /// How it is called in errors.
    pub fn endpoint(&self) -> &Arc<str> {
        self.client.endpoint()
    }

    /// In which order it is asked among others, as far as that is known.
    pub(super) fn priority(&self) -> Option<u32> {
        self.options.priority.or_else(|| self.info.get().map(|info| info.priority))
    }

    pub(super) fn wrong(&self, fault: impl Into<CacheFault>) -> Error {
        Error::corrupt(self.endpoint(), fault.into())
    }

    /// Asks whether it is there. Returns in which order it wants to be asked among others.
    pub async fn reach(&self) -> Result<u32> {
        self.info().await.map(|info| info.priority)
    }

    /// What it says of itself. Asked for once; what goes wrong is not remembered.
    pub(super) async fn info(&self) -> Result<CacheInfo> {
        let ask = async || {
            let text = self.client.get(CACHE_INFO_NAME, CACHE_INFO_LEN_MAX).await?;
            let text = text.ok_or_else(|| self.wrong(CacheFault::NoCacheInfo))?;
            CacheInfo::parse(&text).map_err(|error| self.wrong(error))
        };
        self.info.get_or_try_init(ask).await.copied()
    }

    /// What it knows of the store path with this digest. `None` if it is absent.
    pub(super) async fn told(&self, digest: &StorePathDigest) -> Result<Option<Told>> {
        self.info().await?;
        let name = format!("{digest}.narinfo");
        let Some(text) = self.client.get(&name, NARINFO_LEN_MAX).await? else { return Ok(None) };
        let file = NarInfoFile::parse(&text)
            .map_err(|source| self.wrong(CacheFault::NarInfo { digest: *digest, source }))?;
        self.judge(digest, file).map(Some).map_err(|fault| self.wrong(fault))
    }

    /// Whether what is told is to be believed.
    fn judge(
        &self,
        asked: &StorePathDigest,
        file: NarInfoFile,
    ) -> std::result::Result<Told, CacheFault> {
        if file.store_path.digest() != *asked {
            return Err(CacheFault::OtherPath { asked: *asked, told: file.store_path });
        }
        let claim = match self.options.require_signatures {
            true => self.vouched(&file)?,
            false => None,
        };
        let (archive, nar) = (&file.archive, &file.info.nar);
        if archive.url.leaves(&self.origin) && !self.options.foreign_urls {
            let url = archive.url.to_string();
            return Err(CacheFault::Elsewhere { path: file.store_path, url });
        }
        if archive.compression == Compression::None
            && (archive.sha256.is_some_and(|sha256| sha256 != nar.sha256)
                || archive.size.is_some_and(|size| size != nar.size))
        {
            return Err(CacheFault::TwoHashes(file.store_path));
        }
        Ok(Told { file, claim })
    }

    /// Who vouches for what is told: a key that is trusted, or else the contents, if they are as is claimed.
    fn vouched(&self, file: &NarInfoFile) -> std::result::Result<Option<ContentClaim>, CacheFault> {
        let keys = &self.options.public_keys;
        if !file.valid_signatures(keys).is_empty() {
            return Ok(None);
        }
        if let Some(claim) = file.info.content_claim(&file.store_path) {
            return Ok(Some(claim));
        }
        let path = file.store_path.clone();
        let signatures = &file.info.signatures;
        let bad = signatures
            .iter()
            .find(|signature| keys.iter().any(|key| key.name() == signature.key_name()));
        Err(match bad {
            Some(bad) => CacheFault::BadSignature { path, signer: bad.key_name().to_owned() },
            None if signatures.is_empty() => CacheFault::Unsigned(path),
            None => {
                let signers: Vec<_> = signatures.iter().take(8).map(|s| s.key_name()).collect();
                CacheFault::Untrusted { path, signers: signers.join(", ") }
            }
        })
    }

    /// Whether it would be believed what is known of a path, as far as that can be told without its contents.
    pub(super) fn would_be_believed(&self, path_info: &PathInfo) -> bool {
        if !self.options.require_signatures {
            return true;
        }
        let Some(info) = path_info.nar_info() else { return false };
        let claim = || info.content_claim(&path_info.store_path);
        !path_info.valid_signatures(&self.options.public_keys).is_empty()
            || claim().is_some_and(|claim| claim.holds_for(&info.nar) == Some(true))
    }

    /// Where the archive is.
    pub(super) fn archive_url(&self, told: &Told) -> String {
        told.file.archive.url.resolve(self.client.base())
    }

    /// The file with the archive, which was told of.
    pub(super) async fn download(&self, told: &Told) -> Result<Download> {
        let url = self.archive_url(told);
        let download = self.client.download(&url).await?;
        download.ok_or_else(|| self.wrong(CacheFault::NoArchive(url)))
    }
}

impl fmt::Debug for BinaryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BinaryCache").field(self.endpoint()).finish()
    }
}
