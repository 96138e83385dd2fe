//! The methods of the protocol under both package names.

use std::str::FromStr;

use tonic::codegen::http::uri::PathAndQuery;

/// Which package names a peer answers to. The messages are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The older names, `tvix.castore.v1` and `tvix.store.v1`.
    Tvix,
    /// The newer names, `snix.castore.v1` and `snix.store.v1`.
    Snix,
}

/// A word that names no dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no dialect: expected tvix or snix")]
pub struct DialectError(String);

impl FromStr for Dialect {
    type Err = DialectError;

    fn from_str(word: &str) -> Result<Self, DialectError> {
        match word {
            "tvix" => Ok(Dialect::Tvix),
            "snix" => Ok(Dialect::Snix),
            _ => Err(DialectError(word.to_owned())),
        }
    }
}

/// On which of the few connections a method travels: contents must not stand in the way of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Questions,
    Contents,
}

/// A method of the protocol.
#[derive(Debug)]
pub(crate) struct Method {
    tvix: &'static str,
    snix: &'static str,
    /// What [`crate::service::Error::Unsupported`] says of it.
    pub(super) cannot: &'static str,
    pub(super) name: &'static str,
    pub(super) lane: Lane,
}

impl Method {
    pub(super) fn path(&self, dialect: Dialect) -> PathAndQuery {
        PathAndQuery::from_static(match dialect {
            Dialect::Tvix => self.tvix,
            Dialect::Snix => self.snix,
        })
    }
}

macro_rules! methods {
    ($($constant:ident = $package:literal $name:literal on $lane:ident;)*) => {$(
        pub(crate) const $constant: Method = Method {
            tvix: concat!("/tvix.", $package, ".v1.", $name),
            snix: concat!("/snix.", $package, ".v1.", $name),
            cannot: concat!("answer ", $name),
            name: $name,
            lane: Lane::$lane,
        };
    )*};
}

methods! {
    BLOB_STAT = "castore" "BlobService/Stat" on Questions;
    BLOB_READ = "castore" "BlobService/Read" on Contents;
    BLOB_PUT = "castore" "BlobService/Put" on Contents;
    DIRECTORY_GET = "castore" "DirectoryService/Get" on Questions;
    DIRECTORY_PUT = "castore" "DirectoryService/Put" on Questions;
    PATH_INFO_GET = "store" "PathInfoService/Get" on Questions;
    PATH_INFO_PUT = "store" "PathInfoService/Put" on Questions;
    PATH_INFO_LIST = "store" "PathInfoService/List" on Questions;
    CALCULATE_NAR = "store" "PathInfoService/CalculateNAR" on Questions;
}

/// Our own, under one name.
pub(crate) const BLOB_RANGE_READ: Method = Method {
    tvix: "/lazystore.v1.BlobRangeService/Read",
    snix: "/lazystore.v1.BlobRangeService/Read",
    cannot: "answer BlobRangeService/Read",
    name: "BlobRangeService/Read",
    lane: Lane::Contents,
};
