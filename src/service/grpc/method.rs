//! The methods of the protocol under both package names.

use std::{fmt, str::FromStr};

use tonic::codegen::http::uri::PathAndQuery;

/// Which package names a peer answers to. The messages are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The older names, `tvix.castore.v1` and `tvix.store.v1`.
    Tvix,
    /// The newer names, `snix.castore.v1` and `snix.store.v1`.
    Snix,
}

impl Dialect {
    /// The one that this is not.
    pub(super) fn other(self) -> Self {
        match self {
            Dialect::Tvix => Dialect::Snix,
            Dialect::Snix => Dialect::Tvix,
        }
    }
}

/// A word that names no dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no dialect: expected tvix or snix")]
pub struct DialectError(String);

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Tvix => "tvix",
            Dialect::Snix => "snix",
        })
    }
}

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

/// On which of the few connections a method travels: what takes long must not stand in the way of what need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Questions,
    Closures,
    Contents,
    Ranges,
}

/// How much a peer has to do before it can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// It looks something up. Who waits too long may ask a second time.
    Lookup,
    /// It has to read or write much. As long as it is connected, it is taken to work.
    Long,
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
    pub(super) effort: Effort,
}

impl Method {
    /// Whether its name tells dialects apart.
    pub(super) fn has_dialects(&self) -> bool {
        self.tvix != self.snix
    }

    pub(super) fn path(&self, dialect: Dialect) -> PathAndQuery {
        PathAndQuery::from_static(match dialect {
            Dialect::Tvix => self.tvix,
            Dialect::Snix => self.snix,
        })
    }
}

macro_rules! methods {
    ($($constant:ident = $package:literal $name:literal on $lane:ident, $effort:ident;)*) => {$(
        pub(crate) const $constant: Method = Method {
            tvix: concat!("/tvix.", $package, ".v1.", $name),
            snix: concat!("/snix.", $package, ".v1.", $name),
            cannot: concat!("answer ", $name),
            name: $name,
            lane: Lane::$lane,
            effort: Effort::$effort,
        };
    )*};
}

methods! {
    BLOB_STAT = "castore" "BlobService/Stat" on Questions, Lookup;
    BLOB_READ = "castore" "BlobService/Read" on Contents, Lookup;
    BLOB_PUT = "castore" "BlobService/Put" on Contents, Long;
    DIRECTORY_GET = "castore" "DirectoryService/Get" on Questions, Lookup;
    DIRECTORY_GET_CLOSURE = "castore" "DirectoryService/Get" on Closures, Lookup;
    DIRECTORY_PUT = "castore" "DirectoryService/Put" on Questions, Long;
    PATH_INFO_GET = "store" "PathInfoService/Get" on Questions, Lookup;
    PATH_INFO_PUT = "store" "PathInfoService/Put" on Questions, Long;
    PATH_INFO_LIST = "store" "PathInfoService/List" on Questions, Lookup;
    CALCULATE_NAR = "store" "PathInfoService/CalculateNAR" on Questions, Long;
}

/// Our own, under one name.
pub(crate) const BLOB_RANGE_READ: Method = Method {
    tvix: "/lazystore.v1.BlobRangeService/Read",
    snix: "/lazystore.v1.BlobRangeService/Read",
    cannot: "answer BlobRangeService/Read",
    name: "BlobRangeService/Read",
    lane: Lane::Ranges,
    effort: Effort::Lookup,
};
