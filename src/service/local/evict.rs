//! What goes when a cache is full: what was used longest ago, but nothing that is open or pinned.

use super::{Database, Durability, partials::Names};
use crate::{castore::Digest, service::Result};

/// How many candidates are looked at at once.
pub(super) const CANDIDATES_MAX: usize = 256;

/// Something that may be evicted.
#[derive(Debug)]
pub(super) enum Candidate {
    /// A blob that has a file.
    File(Digest),
    /// A pack, with all that is in it.
    Pack(u32),
    /// What is here of a blob that is not whole.
    Partial(Names),
}

/// Up to [`CANDIDATES_MAX`] candidates of which there are rows, each with when it was used, in milliseconds since 1970:
/// those that were used longest ago first, after the first `skipped`.
pub(super) fn candidates(database: &Database, skipped: usize) -> Result<Vec<(i64, Candidate)>> {
    database.read(|connection| {
        let mut query = connection.prepare_cached(
            "SELECT digest, NULL, used FROM kept_files
                 WHERE digest NOT IN (SELECT digest FROM pinned)
             UNION ALL
             SELECT NULL, packs.number, coalesce(used, 0) FROM packs
                 LEFT JOIN kept_packs ON kept_packs.number = packs.number
                 WHERE packs.number NOT IN (
                     SELECT pack FROM pinned JOIN packed_blobs USING (digest)
                 )
             ORDER BY 3 LIMIT ? OFFSET ?",
        )?;
        let mut rows = query.query((CANDIDATES_MAX as i64, skipped as i64))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (digest, number): (Option<Vec<u8>>, Option<u32>) = (row.get(0)?, row.get(1)?);
            let file = digest.and_then(|digest| Digest::try_from(&digest[..]).ok());
            let pack = number.map(Candidate::Pack);
            let used = row.get(2)?;
            found.extend(file.map(Candidate::File).or(pack).map(|candidate| (used, candidate)));
        }
        Ok(found)
    })
}

/// Takes out the rows of files that are gone.
pub(super) fn forget_files(database: &Database, files: &[Digest]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    database.write(Durability::Ordered, |transaction| {
        let mut delete = transaction.prepare_cached("DELETE FROM kept_files WHERE digest = ?")?;
        files.iter().try_for_each(|digest| delete.execute([digest.as_bytes()]).map(drop))
    })
}
