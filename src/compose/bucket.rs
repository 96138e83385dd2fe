//! The addresses of buckets, and what is there.

use std::{sync::Arc, time::Duration};

use super::{
    Error, Opener,
    address::duration,
    nix_address::percent_decoded,
    source::{Place, Source},
};
use crate::{
    castore::SizeRule,
    service::{
        blob::backend::BucketBlobs,
        bucket::{BucketOptions, BucketUrl},
        directory::backend::BucketDirectories,
        grpc::DEADLINE_DEFAULT,
        pathinfo::backend::BucketPathInfos,
    },
};

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAddress {
    /// Where it is, and how it is spoken to.
    pub url: BucketUrl,
    /// How long an operation may take. `None` for the default.
    pub timeout: Option<Duration>,
    /// By which rule the sizes of directories are computed that are put there.
    pub size_rule: SizeRule,
}

/// Takes what comes after `objectstore+`.
pub(super) fn parse_bucket(text: &str) -> Result<BucketAddress, String> {
    let (url, query) = text.split_once('?').unwrap_or((text, ""));
    let mut url: BucketUrl = url.parse().map_err(|error| format!("objectstore+: {error}"))?;
    let (mut timeout, mut size_rule) = (None, SizeRule::Documented);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, "true"));
        let value = percent_decoded(value)?;
        match (key, &*value) {
            ("timeout", seconds) => timeout = Some(duration(seconds)?),
            ("sizes", "documented") => size_rule = SizeRule::Documented,
            ("sizes", "doubled") => size_rule = SizeRule::Doubled,
            ("sizes", _) => return Err("sizes are documented or doubled".to_owned()),
            (key, value) => {
                url = url.with_option(key, value).map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(BucketAddress { url, timeout, size_rule })
}

impl Opener<'_> {
    /// The services of a bucket. They check what they read themselves.
    pub(super) fn bucket(&self, address: &BucketAddress) -> Result<Source, Error> {
        let options = BucketOptions {
            deadline: address.timeout.unwrap_or(DEADLINE_DEFAULT),
            offline: self.common.offline,
        };
        let bucket = address.url.open(options).map_err(|source| Error::Bucket {
            address: format!("objectstore+{}", address.url),
            source: Box::new(source),
        })?;
        Ok(Source {
            blobs: Some(Arc::new(BucketBlobs::new(bucket.clone()))),
            directories: Some(Arc::new(BucketDirectories::new(bucket.clone(), address.size_rule))),
            path_infos: Some(Arc::new(BucketPathInfos::new(bucket))),
            nars: None,
            place: Place::Far,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::{Address, CloudAddress};

    #[test]
    fn every_option_is_understood() {
        let text = "objectstore+s3://bucket/some/where?endpoint=http%3A//host:9000&allow_http=true\
                    &region=eu&timeout=2.5&sizes=doubled";
        let Ok(Address::Cloud(CloudAddress::Bucket(bucket))) = text.parse() else {
            panic!("{text} is a bucket")
        };
        assert_eq!(bucket.url.to_string(), "s3://bucket/some/where");
        assert_eq!(bucket.timeout, Some(Duration::from_millis(2500)));
        assert_eq!(bucket.size_rule, SizeRule::Doubled);
        let other: Address = text.replace("eu", "us").parse().expect("legal");
        assert_ne!(Address::Cloud(CloudAddress::Bucket(bucket)), other);
        assert_eq!(other.to_string(), "objectstore+s3://bucket/some/where");
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("objectstore+ftp://x", "expected s3://"),
            ("objectstore+s3://b?colour=red", "\"colour\" is unknown to s3://"),
            ("objectstore+file:///b?region=x", "unknown to file://"),
            ("objectstore+s3://b?sizes=large", "documented or doubled"),
            ("objectstore+s3://b?timeout=0", "is no time"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains(text), "{text}: {error}");
        }
    }
}
