//! Whether the column family is there at all.
//!
//! The service answers reads of a family that does not exist as it answers reads of rows that do not: with nothing. So
//! before the first absent row is told to anybody, the family has to have shown itself: by a cell, or by a change that
//! names it and changes nothing. Who may not write looks whether the table has cells in other families only.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::time::timeout_at;

use super::call::{CHECK_AND_MUTATE_ROW, Connection, Failed, READ_ROWS};
use crate::service::{Error, Result};

/// Whether the family is known to be there.
#[derive(Debug, Default)]
pub(super) struct Family(AtomicBool);

/// What errors call each question.
const WHAT: &str = "look for the column family";

impl Family {
    /// It has shown itself.
    pub(super) fn is_known(&self) {
        self.0.store(true, Relaxed);
    }

    /// An error if there is no such family, or that cannot be found out.
    pub(super) async fn check(&self, connection: &Arc<Connection>) -> Result<()> {
        if self.0.load(Relaxed) {
            return Ok(());
        }
        match connection.options().is_read_only {
            true => look(connection).await?,
            false => name(connection).await?,
        }
        self.is_known();
        Ok(())
    }
}

/// Names the family in a change that changes nothing.
async fn name(connection: &Arc<Connection>) -> Result<()> {
    let request = &connection.names.probe_family();
    connection
        .attempt((CHECK_AND_MUTATE_ROW, WHAT), |mut client, deadline| async move {
            let request = connection.routed(request.clone())?;
            let answer = client.get_client().check_and_mutate_row(request);
            timeout_at(deadline, answer).await.map_err(|_| Failed::TimedOut)??;
            Ok(())
        })
        .await
}

/// Looks whether the table has cells, but none in the family.
async fn look(connection: &Arc<Connection>) -> Result<()> {
    if has_row(connection, true).await? || !has_row(connection, false).await? {
        return Ok(());
    }
    let family = &connection.options().family;
    let what = format!(
        "it has rows, but none in the column family {family:?}: name another family_name, or store something in it first"
    );
    Err(Error::unavailable(connection.endpoint(), what))
}

async fn has_row(connection: &Arc<Connection>, of_family: bool) -> Result<bool> {
    let request = &connection.names.read_any(of_family);
    connection
        .attempt((READ_ROWS, WHAT), |mut client, deadline| async move {
            let request = connection.routed(request.clone())?;
            let answer = async {
                let mut messages = client.get_client().read_rows(request).await?.into_inner();
                while let Some(message) = messages.message().await? {
                    if !message.chunks.is_empty() {
                        return Ok(true);
                    }
                }
                Ok::<_, Failed>(false)
            };
            timeout_at(deadline, answer).await.map_err(|_| Failed::TimedOut)?
        })
        .await
}
