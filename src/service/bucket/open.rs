//! Addresses of buckets, and how they are opened.

use std::{fmt, io, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    http::HttpBuilder,
    local::LocalFileSystem,
    path::Path,
};

use super::{Bucket, traced::TracedConnector};
use crate::service::{crypto, grpc::DEADLINE_DEFAULT};

/// How long connecting may take.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// How often a request is tried again.
const RETRIES_MAX: usize = 5;

/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Ends what our own deadlines did not end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How a bucket is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketOptions {
    /// How long an operation may take, however often it is tried. A long object has more time.
    pub deadline: Duration,
    /// Whether it may not be asked at all.
    pub offline: bool,
}

impl Default for BucketOptions {
    fn default() -> Self {
        BucketOptions { deadline: DEADLINE_DEFAULT, offline: false }
    }
}

/// Where a bucket is: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///abs`, `http(s)://…`, and how it is to be
/// spoken to. Shown without its options, which may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketUrl {
    scheme: Scheme,
    /// The bucket, container or host; the folder of files.
    place: String,
    prefix: Path,
    options: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    S3,
    Google,
    Azure,
    File,
    Http,
    Https,
}

/// Why a bucket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The address is none of a bucket.
    #[error(
        "expected s3://bucket/prefix, gs://…, az://…, file:///abs/dir or http(s)://host/prefix"
    )]
    Form,
    /// The prefix cannot be part of an object's name.
    #[error("the prefix is not legal: {0}")]
    Prefix(#[from] object_store::path::Error),
    /// There is no such option.
    #[error("the option {key:?} is unknown to {scheme}://")]
    Option {
        /// Which one.
        key: String,
        /// Of what kind of store.
        scheme: &'static str,
    },
    /// The options, or what is in the environment, do not make a client.
    #[error("{0}")]
    Client(#[from] object_store::Error),
    /// The folder of files cannot be made.
    #[error("cannot make the folder {folder}: {source}")]
    Folder {
        /// Which one.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::S3 => "s3",
            Scheme::Google => "gs",
            Scheme::Azure => "az",
            Scheme::File => "file",
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Whether a client for this kind of store knows the option.
    fn knows(self, key: &str) -> bool {
        match self {
            Scheme::S3 => key.parse::<AmazonS3ConfigKey>().is_ok(),
            Scheme::Google => key.parse::<GoogleConfigKey>().is_ok(),
            Scheme::Azure => key.parse::<AzureConfigKey>().is_ok(),
            Scheme::Http | Scheme::Https => key.parse::<ClientConfigKey>().is_ok(),
            Scheme::File => false,
        }
    }
}

impl FromStr for BucketUrl {
    type Err = BucketError;

    /// Takes an address without options.
    fn from_str(url: &str) -> Result<Self, BucketError> {
        let (scheme, rest) = url.split_once("://").ok_or(BucketError::Form)?;
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" => Scheme::Azure,
            "file" => Scheme::File,
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(BucketError::Form),
        };
        let (place, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (place, prefix) = match scheme {
            // The whole path is a folder.
            Scheme::File if place.is_empty() && !prefix.is_empty() => (rest, ""),
            Scheme::File => return Err(BucketError::Form),
            _ if place.is_empty() || rest.contains(['#', ' ']) => return Err(BucketError::Form),
            _ => (place, prefix),
        };
        let prefix = Path::from_url_path(prefix)?;
        Ok(BucketUrl { scheme, place: place.to_owned(), prefix, options: Vec::new() })
    }
}

impl BucketUrl {
    /// Adds an option, as the `object_store` crate names it: `endpoint`, `region`, `allow_http` and so on.
    pub fn with_option(mut self, key: &str, value: &str) -> Result<Self, BucketError> {
        let key = key.to_ascii_lowercase();
        if !self.scheme.knows(&key) {
            return Err(BucketError::Option { key, scheme: self.scheme.name() });
        }
        self.options.push((key, value.to_owned()));
        Ok(self)
    }

    /// Opens it. Credentials come from the environment or from the machine that this runs on, if no option names
    /// them. Nothing is asked yet.
    pub fn open(&self, options: BucketOptions) -> Result<Bucket, BucketError> {
        let endpoint = format!("objectstore+{self}");
        if self.scheme == Scheme::File {
            let folder = PathBuf::from(&self.place);
            let failed = |source| BucketError::Folder { folder: folder.clone(), source };
            std::fs::create_dir_all(&folder).map_err(failed)?;
            let store = Arc::new(LocalFileSystem::new_with_prefix(&folder)?);
            let bucket = Bucket::new(&endpoint, store, Path::default(), options);
            return Ok(bucket.of_folder(folder));
        }
        crypto::choose();
        let store = self.client(options.deadline)?;
        Ok(Bucket::new(&endpoint, store, self.prefix.clone(), options))
    }

    fn client(&self, deadline: Duration) -> Result<Arc<dyn ObjectStore>, BucketError> {
        /// A client of a kind of store: its builder, the type of its options, and what one of HTTP is among them.
        macro_rules! client {
            ($builder:expr, $key:ty, $http:path) => {{
                let mut builder = $builder
                    .with_url(self.base())
                    .with_retry(retry(deadline))
                    .with_http_connector(TracedConnector::default());
                for (key, value) in self.http_options(deadline) {
                    builder = builder.with_config($http(key), value);
                }
                for (key, value) in &self.options {
                    builder = builder.with_config(key.parse::<$key>()?, value);
                }
                Arc::new(builder.build()?)
            }};
        }
        Ok(match self.scheme {
            Scheme::S3 => {
                client!(AmazonS3Builder::from_env(), AmazonS3ConfigKey, AmazonS3ConfigKey::Client)
            }
            Scheme::Google => client!(
                GoogleCloudStorageBuilder::from_env(),
                GoogleConfigKey,
                GoogleConfigKey::Client
            ),
            Scheme::Azure => {
                client!(MicrosoftAzureBuilder::from_env(), AzureConfigKey, AzureConfigKey::Client)
            }
            Scheme::Http | Scheme::Https => {
                client!(HttpBuilder::new(), ClientConfigKey, std::convert::identity)
            }
            Scheme::File => return Err(BucketError::Form),
        })
    }

    /// The address without prefix and options.
    fn base(&self) -> String {
        format!("{}://{}", self.scheme.name(), self.place)
    }

    /// A connection that is silent for half of the deadline is given up, so that there is time to try another.
    fn http_options(&self, deadline: Duration) -> Vec<(ClientConfigKey, String)> {
        let seconds = |time: Duration| format!("{}ms", time.as_millis());
        let mut options = vec![
            (ClientConfigKey::Timeout, seconds(REQUEST_TIMEOUT)),
            (ClientConfigKey::ConnectTimeout, seconds(CONNECT_TIMEOUT_MAX.min(deadline / 2))),
            (ClientConfigKey::ReadTimeout, seconds(deadline / 2)),
            (ClientConfigKey::PoolIdleTimeout, seconds(IDLE_MAX)),
        ];
        if self.scheme == Scheme::Http {
            options.push((ClientConfigKey::AllowHttp, "true".to_owned()));
        }
        options
    }
}

fn retry(deadline: Duration) -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: deadline / 8, ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: deadline }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base())?;
        match self.prefix.as_ref() {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

impl fmt::Debug for BucketUrl {
    /// Of values only that they differ.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        for (key, value) in &self.options {
            let hash = blake3::hash(value.as_bytes()).to_hex();
            write!(f, " {key}#{}", &hash[..16])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        for (text, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/some/where/", "s3://bucket/some/where"),
            ("gs://bucket/a%20b", "gs://bucket/a b"),
            ("az://container@account/x", "az://container@account/x"),
            ("file:///var/lib/bucket", "file:///var/lib/bucket"),
            ("http://[::1]:8000/x", "http://[::1]:8000/x"),
            ("https://host", "https://host"),
        ] {
            let url: BucketUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "expected s3://"),
            ("ftp://host", "expected s3://"),
            ("s3://", "expected s3://"),
            ("s3:///x", "expected s3://"),
            ("file://host/x", "expected s3://"),
            ("file://", "expected s3://"),
            ("s3://bucket/a//b", "prefix is not legal"),
            ("s3://bucket/../b", "prefix is not legal"),
        ] {
            let error = text.parse::<BucketUrl>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn options_are_those_of_the_store_and_are_not_shown() {
        let s3: BucketUrl = "s3://bucket".parse().expect("legal");
        let s3 = s3.with_option("Secret_Access_Key", "hidden").expect("known");
        let s3 = s3.with_option("allow_http", "true").expect("known");
        assert!(!format!("{s3} {s3:?}").contains("hidden"));
        let other: BucketUrl = "s3://bucket".parse().expect("legal");
        let other = other.with_option("secret_access_key", "other").expect("known");
        assert_ne!(format!("{s3:?}"), format!("{other:?}"));
        for (url, key) in [
            ("s3://b", "colour"),
            ("gs://b", "access_key_id"),
            ("file:///b", "allow_http"),
            ("http://b", "region"),
        ] {
            let url: BucketUrl = url.parse().expect("legal");
            let error = url.with_option(key, "x").expect_err(key).to_string();
            assert!(error.contains(&format!("{key:?} is unknown to")), "{error}");
        }
    }

    #[tokio::test]
    async fn each_kind_opens_without_asking_anybody() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = format!("file://{}", folder.path().join("made/for/it").display());
        for (url, options) in [
            ("s3://bucket/p", vec![("region", "eu-west-1")]),
            ("s3://bucket/p", vec![("endpoint", "http://127.0.0.1:1"), ("allow_http", "true")]),
            ("gs://bucket", vec![("skip_signature", "true")]),
            ("az://container", vec![("account_name", "a"), ("skip_signature", "true")]),
            ("http://127.0.0.1:1/p", vec![]),
            ("https://127.0.0.1:1/p", vec![("connect_timeout", "1s")]),
            (&file, vec![]),
        ] {
            let mut parsed: BucketUrl = url.parse().expect("legal");
            for (key, value) in options {
                parsed = parsed.with_option(key, value).expect("known");
            }
            let bucket = parsed.open(BucketOptions::default()).expect(url);
            assert_eq!(**bucket.endpoint(), format!("objectstore+{url}"));
        }
    }
}
