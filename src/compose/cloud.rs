//! The addresses of object stores and tables of cloud providers: the feature `cloud`.
//!
//! `no_cloud.rs` stands in for this file in a build without the feature.

use std::fmt;

use super::{
    Error, Kind,
    bigtable::parse_bigtable,
    bucket::{BucketAddress, parse_bucket},
    opener::Opener,
    source::Source,
};
use crate::service::bigtable::BigtableOptions;

/// Where a service in a cloud is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudAddress {
    /// In a bucket.
    Bucket(BucketAddress),
    /// In a table of Bigtable: directories and path infos.
    Bigtable(BigtableOptions),
}

/// Takes what comes after `objectstore+`.
pub(super) fn bucket(text: &str) -> Result<CloudAddress, String> {
    parse_bucket(text).map(CloudAddress::Bucket)
}

/// Takes what comes after `bigtable:`.
pub(super) fn bigtable(rest: &str) -> Result<CloudAddress, String> {
    parse_bigtable(rest).map(CloudAddress::Bigtable)
}

impl CloudAddress {
    /// What kind of place it is, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            CloudAddress::Bucket(_) => "objectstore",
            CloudAddress::Bigtable(_) => "bigtable",
        }
    }

    /// Whether such things can be there at all.
    pub(super) fn holds(&self, kind: Kind) -> bool {
        match self {
            CloudAddress::Bucket(_) => true,
            CloudAddress::Bigtable(_) => kind != Kind::Blobs,
        }
    }

    /// Whether nothing can be written there.
    pub(super) fn is_read_only(&self) -> bool {
        match self {
            CloudAddress::Bucket(_) => false,
            CloudAddress::Bigtable(options) => options.is_read_only,
        }
    }
}

impl fmt::Display for CloudAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloudAddress::Bucket(bucket) => write!(f, "objectstore+{}", bucket.url),
            CloudAddress::Bigtable(options) => {
                let BigtableOptions { project, instance, table, .. } = options;
                write!(f, "bigtable://{instance}?project_id={project}&table_name={table}")
            }
        }
    }
}

impl Opener<'_> {
    /// The services that are there.
    pub(super) fn cloud(&self, address: &CloudAddress) -> Result<Source, Error> {
        match address {
            CloudAddress::Bucket(bucket) => self.bucket(bucket),
            CloudAddress::Bigtable(options) => self.bigtable(options),
        }
    }
}
