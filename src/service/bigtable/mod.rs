//! What the two Bigtable backends share: a table of an instance, in which each row holds one cell.
//!
//! A row's key is a digest in lower-case hex, and so is the qualifier of its one column; the cell's value is the message
//! that the digest stands for. Programs of the castore community lay their tables out in the same way, and read ours.
//!
//! | module | holds |
//! | --- | --- |
//! | `table` | what is asked and written, a row or many rows at a time |
//! | `call` | one call, however often it is tried, within its deadline |
//! | `decode` | rows from the pieces in which they travel |
//! | `requests` | the messages that are sent |
//! | `family` | whether the column family is there at all: if not, all reads find nothing |
//!
//! Deliberately absent: creating tables. Who keeps the data decides about its place, its copies and its price.

mod call;
mod decode;
mod family;
mod requests;
mod table;

use std::{sync::Arc, time::Duration};

pub use table::{BigtableTable, CELL_LEN_MAX};
pub(crate) use table::{Inserted, ROWS_ASKED_MAX, Row, RowKey};

/// An answer is waited for this long, unless the address says otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// How many connections are held to the service, unless the address says otherwise.
pub const CHANNELS_DEFAULT: usize = 4;

/// Where a table is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BigtableOptions {
    /// The project that the instance belongs to.
    pub project: String,
    /// The instance.
    pub instance: String,
    /// The table.
    pub table: String,
    /// The column family.
    pub family: String,
    /// The application profile, which says how requests are routed. Empty for the default one.
    pub app_profile: String,
    /// How many connections are held.
    pub channels: usize,
    /// How long a call may take, however often it is tried: to its answer, or to the first message of a stream. A
    /// stream that stands still for as long ends.
    pub deadline: Duration,
    /// Whether nothing may be written. Then a credential that may only read is enough.
    pub is_read_only: bool,
    /// Where an emulator listens, as `host:port`. Otherwise the service itself is asked, with the credentials that the
    /// environment or the instance metadata offer.
    pub emulator: Option<String>,
    /// Whether nobody may be asked: every call is [`crate::service::Error::Offline`] at once.
    pub is_offline: bool,
}

impl BigtableOptions {
    /// The table as errors name it.
    fn endpoint(&self) -> Arc<str> {
        let BigtableOptions { project, instance, table, .. } = self;
        format!("bigtable://{instance}?project_id={project}&table_name={table}").into()
    }

    /// Whom spans name as the server.
    fn server(&self) -> &str {
        self.emulator.as_deref().unwrap_or("bigtable.googleapis.com:443")
    }

    /// What makes the table and its family, for those who find none.
    fn how_to_make(&self) -> String {
        let BigtableOptions { project, instance, table, family, .. } = self;
        format!(
            "`cbt -project {project} -instance {instance} createtable {table} families={family}:maxversions=1`"
        )
    }
}
