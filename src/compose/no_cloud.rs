//! What `cloud.rs` is in a build without the feature `cloud`: its addresses are known, and refused.

use std::fmt;

use super::{Error, Kind, opener::Opener, source::Source};

/// Where a service in a cloud would be. There is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudAddress {}

const MISSING: &str = "this lazystore was built without the feature \"cloud\", which object stores and \
                       Bigtable need: build it with --features cloud";

/// Refuses what comes after `objectstore+`.
pub(super) fn bucket(_: &str) -> Result<CloudAddress, String> {
    Err(MISSING.to_owned())
}

/// Refuses what comes after `bigtable:`.
pub(super) fn bigtable(_: &str) -> Result<CloudAddress, String> {
    Err(MISSING.to_owned())
}

impl CloudAddress {
    pub(super) fn kind(&self) -> &'static str {
        match *self {}
    }

    pub(super) fn holds(&self, _: Kind) -> bool {
        match *self {}
    }

    pub(super) fn is_read_only(&self) -> bool {
        match *self {}
    }
}

impl fmt::Display for CloudAddress {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl Opener<'_> {
    pub(super) fn cloud(&self, address: &CloudAddress) -> Result<Source, Error> {
        match *address {}
    }
}
