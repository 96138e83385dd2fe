//! What is asked of a table, and what is written to it.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use bigtable_rs::google::bigtable::v2::{
    CheckAndMutateRowRequest, ReadRowsRequest, ReadRowsResponse,
};
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use super::{
    BigtableOptions,
    call::{CHECK_AND_MUTATE_ROW, Connection, Failed, READ_ROWS, now_micros},
    decode::{RawRow, RowDecoder},
    family::Family,
};
use crate::{
    castore::Digest,
    nix::StorePathDigest,
    observe::event,
    service::{Error, Result, patience::Patience},
};

/// The longest value that a cell may have, in bytes: 10 MiB.
pub const CELL_LEN_MAX: usize = 10 << 20;

/// How many rows are asked for by their keys in one request.
pub(crate) const ROWS_ASKED_MAX: usize = 1024;
/// How many rows of a listing are asked for in one request.
const PAGE_ROWS: usize = 512;
/// Once so many bytes have come of an answer, the rest is asked for again later.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// What names a row: a digest in lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RowKey(Box<str>);

impl RowKey {
    /// How long the keys of path infos are, in bytes.
    pub(crate) const PATH_INFO_LEN: usize = 40;

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<&Digest> for RowKey {
    fn from(digest: &Digest) -> Self {
        RowKey(digest.to_hex().into())
    }
}

impl From<&StorePathDigest> for RowKey {
    fn from(digest: &StorePathDigest) -> Self {
        RowKey(data_encoding::HEXLOWER.encode(digest.as_bytes()).into())
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A row that has one cell, as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: RowKey,
    pub(crate) value: Bytes,
    /// When it was written: the version of the value.
    pub(crate) timestamp_micros: i64,
}

/// What became of a row that was to be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is there now.
    New,
    /// There was one before, which was left as it was.
    WasThere,
}

/// A table, in which services keep a row for each digest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BigtableTable {
    connection: Arc<Connection>,
    family: Arc<Family>,
}

impl BigtableTable {
    /// The table that `options` name. Connects when it is first used. Fails if the address of the emulator makes no
    /// sense.
    pub fn open(options: BigtableOptions) -> Result<Self> {
        if let Some(host) = &options.emulator {
            let is_socket = host.starts_with("unix:///");
            let url = format!("http://{host}");
            if host.is_empty()
                || !is_socket && tonic::transport::Endpoint::from_shared(url).is_err()
            {
                let what = format!("the emulator {host:?} is no address: expected host:port");
                return Err(Error::invalid(what));
            }
        }
        let connection = Arc::new(Connection::new(options));
        Ok(BigtableTable { connection, family: Arc::default() })
    }

    /// The table, as errors name it.
    pub fn endpoint(&self) -> &Arc<str> {
        self.connection.endpoint()
    }

    /// Begins to connect in the background, for whoever will soon ask and should not wait for that. Needs the context
    /// of a tokio runtime.
    pub fn connect_ahead(&self) {
        if !self.connection.options().is_offline {
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(error) = this.family.check(&this.connection).await {
                    tracing::warn!(event = event::CALL_FAILED, %error, "the table cannot be used");
                }
            });
        }
    }

    /// An error about the row `key`, which holds something wrong.
    pub(crate) fn corrupt(&self, key: &RowKey, what: impl fmt::Display) -> Error {
        let family = &self.connection.options().family;
        let what = format!(
            "row {key}, family {family}: {what}; if nothing can mend it, remove it with `cbt deleterow {} {key}` and store it again",
            self.connection.options().table
        );
        self.connection.corrupt(what)
    }

    /// An error if nothing may be written.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.connection.options().is_read_only {
            true => Err(Error::Unsupported {
                endpoint: self.endpoint().clone(),
                what: "be written to: its address says is_read_only",
            }),
            false => Ok(()),
        }
    }

    /// An error if `value`, which is `what`, is too long for a cell.
    pub(crate) fn check_len(&self, what: impl Fn() -> String, value: &[u8]) -> Result<()> {
        match value.len() {
            len if len > CELL_LEN_MAX => {
                let what = what();
                let error =
                    format!("{what} has {len} bytes, and a cell takes {CELL_LEN_MAX} at most");
                Err(Error::invalid(error))
            }
            _ => Ok(()),
        }
    }

    /// One row. `None` if it is absent.
    pub(crate) async fn get(&self, key: &RowKey) -> Result<Option<Row>> {
        Ok(self.get_some(std::slice::from_ref(key)).await?.0.pop())
    }

    /// The rows of up to [`ROWS_ASKED_MAX`] keys that are there, in the order of keys, as far as some megabytes hold
    /// them. The second is how many of the keys, in the order of keys, that answers; at least one.
    pub(crate) async fn get_some(&self, keys: &[RowKey]) -> Result<(Vec<Row>, usize)> {
        debug_assert!(keys.len() <= ROWS_ASKED_MAX && keys.is_sorted(), "as documented");
        if keys.is_empty() {
            // A request without keys would be for all rows.
            return Ok((Vec::new(), 0));
        }
        let asked: HashSet<&[u8]> = keys.iter().map(RowKey::as_bytes).collect();
        let request = self.connection.names.read_keys(keys.iter());
        let page = self.read("read rows", &request).await?;
        let is_asked = |key: &[u8]| asked.contains(key);
        let rows = self.checked(page.rows, is_asked)?;
        if rows.is_empty() {
            self.family.check(&self.connection).await?;
        }
        let answered = match rows.last().filter(|_| page.is_cut) {
            Some(last) => keys.partition_point(|key| *key <= last.key),
            None => keys.len(),
        };
        Ok((rows, answered))
    }

    /// The rows that follow `after`, in the order of keys, whose keys are `key_len` hex digits. None if there are no
    /// more.
    pub(crate) async fn page(&self, after: Option<&RowKey>, key_len: usize) -> Result<Vec<Row>> {
        let after = after.map_or(&b""[..], RowKey::as_bytes);
        let request = self.connection.names.read_page(after, key_len, PAGE_ROWS);
        let page = self.read("list rows", &request).await?;
        let follows = |key: &[u8]| {
            key > after
                && key.len() == key_len
                && key.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let rows = self.checked(page.rows, follows)?;
        if rows.is_empty() {
            self.family.check(&self.connection).await?;
        }
        Ok(rows)
    }

    /// Puts a row, unless there is one already. `value` must have been checked for its length.
    pub(crate) async fn insert(&self, key: &RowKey, value: &[u8]) -> Result<Inserted> {
        let request = self.connection.names.insert(key, value);
        match self.change("put a row", &request).await? {
            true => Ok(Inserted::WasThere),
            false => Ok(Inserted::New),
        }
    }

    /// Puts another value in place of `old`. `false` if that is no longer what is there.
    pub(crate) async fn replace(&self, old: &Row, value: &[u8]) -> Result<bool> {
        let names = &self.connection.names;
        let request = names.replace(&old.key, old.timestamp_micros, now_micros(), value);
        self.change("replace a row", &request).await
    }

    /// Makes a change that depends on what is there. Tells whether its condition was met.
    async fn change(&self, what: &'static str, request: &CheckAndMutateRowRequest) -> Result<bool> {
        let connection = &self.connection;
        let call = |mut client: bigtable_rs::bigtable::BigTable, deadline: Instant| async move {
            let request = connection.routed(request.clone())?;
            let answer = client.get_client().check_and_mutate_row(request);
            let answer = timeout_at(deadline, answer).await.map_err(|_| Failed::TimedOut)??;
            Ok(answer.into_inner().predicate_matched)
        };
        let was_met = connection.attempt((CHECK_AND_MUTATE_ROW, what), call).await?;
        self.family.is_known();
        Ok(was_met)
    }

    async fn read(&self, what: &'static str, request: &ReadRowsRequest) -> Result<Page> {
        let connection = &self.connection;
        let call = |mut client: bigtable_rs::bigtable::BigTable, deadline: Instant| async move {
            let began = Instant::now();
            let request = connection.routed(request.clone())?;
            let answer = async {
                let mut messages = client.get_client().read_rows(request).await?.into_inner();
                let first = messages.message().await?;
                Ok::<_, Failed>((first, messages))
            };
            let answer = timeout_at(deadline, answer).await;
            let (first, messages) = answer.map_err(|_| Failed::TimedOut)??;
            let patience = connection.options().deadline;
            Page::collect(first, messages, patience, began.elapsed()).await
        };
        connection.attempt((READ_ROWS, what), call).await
    }

    /// Refuses rows that were not asked for, or are not laid out as ours.
    fn checked(&self, rows: Vec<RawRow>, is_asked: impl Fn(&[u8]) -> bool) -> Result<Vec<Row>> {
        let row = |row: RawRow| {
            let Ok(key) = std::str::from_utf8(&row.key).map(|key| RowKey(key.into())) else {
                let key = row.key.escape_ascii();
                return Err(self
                    .connection
                    .corrupt(format!("the row \"{key}\" was not asked for")));
            };
            if !is_asked(&row.key) {
                return Err(self.connection.corrupt(format!("the row {key} was not asked for")));
            }
            let mut cells = row.cells;
            let Some(cell) = cells.pop().filter(|_| cells.is_empty()) else {
                return Err(self.corrupt(&key, "it has more than one cell, or none"));
            };
            if cell.family != self.connection.options().family {
                let what = format!("a cell of the family {:?} was not asked for", cell.family);
                return Err(self.corrupt(&key, what));
            }
            if cell.qualifier != row.key {
                let got = cell.qualifier.escape_ascii();
                return Err(
                    self.corrupt(&key, format!("its column is \"{got}\" instead of its key"))
                );
            }
            let timestamp_micros = cell.timestamp_micros;
            Ok(Row { key, value: Bytes::from(cell.value), timestamp_micros })
        };
        let rows: Vec<Row> = rows.into_iter().map(row).collect::<Result<_>>()?;
        if !rows.is_empty() {
            self.family.is_known();
        }
        Ok(rows)
    }
}

/// What has come of an answer.
pub(super) struct Page {
    pub(super) rows: Vec<RawRow>,
    /// Whether there is more.
    is_cut: bool,
}

impl Page {
    /// Reads on until some megabytes are there, or the end.
    async fn collect(
        mut next: Option<ReadRowsResponse>,
        mut messages: Streaming<ReadRowsResponse>,
        patience: Duration,
        spent: Duration,
    ) -> Result<Page, Failed> {
        let arrived = Arc::new(AtomicU64::new(0));
        let mut patience = Patience::new(patience, spent, arrived.clone());
        let mut decoder = RowDecoder::default();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(message) = next {
            arrived.fetch_add(message.encoded_len() as u64, Relaxed);
            for chunk in message.chunks {
                bytes += chunk.value.len();
                let row = decoder.add(chunk).map_err(|error| Failed::Wrong(error.to_string()))?;
                rows.extend(row);
            }
            if bytes >= PAGE_BYTES_MAX && !rows.is_empty() {
                return Ok(Page { rows, is_cut: true });
            }
            next = patience.wait(messages.message()).await.ok_or(Failed::TimedOut)??;
        }
        decoder.finish().map_err(|error| Failed::Wrong(error.to_string()))?;
        Ok(Page { rows, is_cut: false })
    }
}
