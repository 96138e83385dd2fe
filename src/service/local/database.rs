//! The database of directories, path infos and the places of packed blobs: its connections, and how long one waits
//! for them.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::{
    observe::event,
    service::{Error, Result},
};

/// How long one waits for another process that writes.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);

/// How many idle connections for reading are kept.
const IDLE_READERS_MAX: usize = 8;

/// The log is copied into the database once it has this many pages of 4 KiB.
const CHECKPOINT_PAGES: u32 = 4096;

/// The same in a cache, where the log counts too.
const CACHE_CHECKPOINT_PAGES: u32 = 1024;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS directories (digest BLOB PRIMARY KEY NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS path_infos (digest BLOB PRIMARY KEY NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY NOT NULL, len INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS packed_blobs (
        digest BLOB PRIMARY KEY NOT NULL, pack INTEGER NOT NULL, start INTEGER NOT NULL, len INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// The one that is created last.
const LAST_TABLE: &str = "packed_blobs";

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is ordered after what was committed before, but may be lost by a power cut together with what follows.
    Ordered,
    /// It is on disk, with all that was committed before.
    Flushed,
}

/// One SQLite database in WAL mode, shared with other processes.
#[derive(Debug)]
pub struct Database {
    endpoint: Arc<str>,
    path: PathBuf,
    /// Of a cache: the file that is made when the database is found to be damaged.
    marker: Option<PathBuf>,
    writer: Mutex<Connection>,
    /// Idle connections; one that reads takes one out and puts it back.
    readers: Mutex<Vec<Connection>>,
    /// How many ordered commits there were.
    committed: AtomicU64,
    /// How many of those are known to be on disk.
    flushed: Mutex<u64>,
}

impl Database {
    /// Opens the database of a cache, which is made if it is not there. One that is damaged, as far as is known, is set
    /// aside: what lies in the cache is then found out again, or fetched again. `schema` is that of the tables besides
    /// those of a store. The caller holds the lock on `staging/`.
    pub(super) fn open_of_cache(
        path: PathBuf,
        schema: &str,
        endpoint: Arc<str>,
    ) -> rusqlite::Result<Self> {
        let marker = path.with_extension("sqlite.damaged");
        let is_damaged = marker.exists();
        if !is_damaged {
            match Self::try_open(path.clone(), Some(schema), Some(marker.clone()), endpoint.clone())
            {
                Err(error) if is_damage(&error) => {}
                result => return result,
            }
        }
        tracing::warn!(
            event = event::CACHE_DAMAGED,
            path = %path.display(),
            "the cache's database was damaged; a new one is begun"
        );
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.clone().into_os_string();
            file.push(suffix);
            // One that stays is found out again.
            let _ = fs::remove_file(file);
        }
        let _ = fs::remove_file(&marker);
        Self::try_open(path, Some(schema), Some(marker), endpoint)
    }

    /// Opens the database, which is made if it is not there.
    pub(super) fn open(path: PathBuf, endpoint: Arc<str>) -> rusqlite::Result<Self> {
        Self::try_open(path, None, None, endpoint)
    }

    fn try_open(
        path: PathBuf,
        more: Option<&str>,
        marker: Option<PathBuf>,
        endpoint: Arc<str>,
    ) -> rusqlite::Result<Self> {
        let writer = connect(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
        if more.is_some() {
            // What goes makes the files shorter: they count. Only has an effect before there is a table.
            writer.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            writer.pragma_update(None, "journal_size_limit", CACHE_CHECKPOINT_PAGES * 4096)?;
        }
        writer.pragma_update(None, "journal_mode", "WAL")?;
        let checkpoint = if more.is_some() { CACHE_CHECKPOINT_PAGES } else { CHECKPOINT_PAGES };
        writer.pragma_update(None, "wal_autocheckpoint", checkpoint)?;
        // A database is asked about its tables with a read lock only; creating them would wait for writers.
        if !writer.table_exists(None, LAST_TABLE)? {
            writer.pragma_update(None, "synchronous", "FULL")?;
            writer.execute_batch(SCHEMA)?;
        }
        if let Some(more) = more {
            writer.execute_batch(more)?;
        }
        Ok(Database {
            endpoint,
            path,
            marker,
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            committed: AtomicU64::new(0),
            flushed: Mutex::new(0),
        })
    }

    /// Reads. The other readers and writers go on.
    pub fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let idle = self.readers.lock().pop();
        let attempt = || {
            let connection = match idle {
                Some(connection) => connection,
                None => {
                    let connection = connect(&self.path, OpenFlags::empty())?;
                    connection.pragma_update(None, "query_only", true)?;
                    connection
                }
            };
            let found = query(&connection)?;
            Ok((connection, found))
        };
        let (connection, found) = attempt().map_err(|error| self.failed(error))?;
        let mut readers = self.readers.lock();
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
        Ok(found)
    }

    /// Writes in one transaction. Blocks while others write, and for the disk if asked to.
    pub fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let attempt = || {
            let mut writer = self.writer.lock();
            let synchronous = match durability {
                Durability::Ordered => "NORMAL",
                Durability::Flushed => "FULL",
            };
            writer.pragma_update(None, "synchronous", synchronous)?;
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = change(&transaction)?;
            transaction.commit()?;
            self.committed.fetch_add(1, Ordering::SeqCst);
            Ok(done)
        };
        attempt().map_err(|error| self.failed(error))
    }

    /// Gives back to the disk what is free in the database of a cache.
    pub(super) fn shrink(&self) -> Result<()> {
        let writer = self.writer.lock();
        let shrink = || {
            let mut pragma = writer.prepare("PRAGMA incremental_vacuum")?;
            let mut steps = pragma.query(())?;
            while steps.next()?.is_some() {}
            Ok(())
        };
        shrink().map_err(|error| self.failed(error))
    }

    /// Whether [`Database::flush`] has nothing to do.
    pub fn is_flushed(&self) -> bool {
        // Taken for "no" while a flush is under way.
        let committed = self.committed.load(Ordering::SeqCst);
        self.flushed.try_lock().is_some_and(|flushed| *flushed == committed)
    }

    /// Brings everything committed to disk. Blocks.
    pub fn flush(&self) -> Result<()> {
        let mut flushed = self.flushed.lock();
        let committed = self.committed.load(Ordering::SeqCst);
        if *flushed == committed {
            return Ok(());
        }
        // What is no longer in the log was flushed when it was copied into the database. Only the log is opened
        // here: to close another descriptor of the database would drop SQLite's locks on it.
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        match File::open(log).and_then(|log| log.sync_data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::unavailable(&self.endpoint, error));
            }
            _ => *flushed = committed,
        }
        Ok(())
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        if is_damage(&error) {
            if let Some(marker) = &self.marker {
                // Whoever opens the cache next begins anew. If that cannot be said, it is found out again.
                let _ = fs::write(marker, error.to_string());
            }
            return Error::corrupt(&self.endpoint, error);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                let full = io::Error::from(rustix::io::Errno::NOSPC);
                Error::unavailable(&self.endpoint, full)
            }
            _ => Error::unavailable(&self.endpoint, error),
        }
    }
}

/// Whether the error says that the file does not hold what was written to it.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..) => true,
        error => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
    }
}

fn connect(path: &std::path::Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT_MAX)?;
    Ok(connection)
}
