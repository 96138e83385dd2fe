//! The messages that are sent to the service.

use bigtable_rs::google::bigtable::v2::{
    CheckAndMutateRowRequest, Mutation, ReadRowsRequest, RowFilter, RowRange, RowSet,
    TimestampRange,
    mutation::{DeleteFromColumn, DeleteFromRow, Mutation as Kind, SetCell},
    row_filter::{Chain, Filter},
    row_range::StartKey,
};

use super::{decode::ROW_CELLS_MAX, table::RowKey};

/// The service chooses the time at which it writes.
const TIMESTAMP_OF_SERVICE: i64 = -1;

/// Timestamps are whole milliseconds, in microseconds.
const TIMESTAMP_STEP_MICROS: i64 = 1000;

/// The key of a row that nobody has, since it is no digest.
const NOBODYS_ROW: &[u8] = b"lazystore-probe";

/// The names that go into every request.
#[derive(Debug)]
pub(super) struct Names {
    /// In full, with project and instance.
    pub(super) table: String,
    pub(super) family: String,
    pub(super) app_profile: String,
}

fn filter(filter: Filter) -> RowFilter {
    RowFilter { filter: Some(filter) }
}

fn chain(filters: impl IntoIterator<Item = Filter>) -> RowFilter {
    filter(Filter::Chain(Chain { filters: filters.into_iter().map(self::filter).collect() }))
}

fn mutation(kind: Kind) -> Mutation {
    Mutation { mutation: Some(kind) }
}

impl Names {
    /// Matches the family and no other. Of what its name may contain only the dot means something else.
    fn of_family(&self) -> Filter {
        Filter::FamilyNameRegexFilter(self.family.replace('.', "\\."))
    }

    fn read(&self, rows: RowSet, limit: usize, filter: RowFilter) -> ReadRowsRequest {
        ReadRowsRequest {
            table_name: self.table.clone(),
            app_profile_id: self.app_profile.clone(),
            rows: Some(rows),
            filter: Some(filter),
            rows_limit: limit as i64,
            ..ReadRowsRequest::default()
        }
    }

    /// The rows with these keys, as far as they are there.
    pub(super) fn read_keys<'a>(&self, keys: impl Iterator<Item = &'a RowKey>) -> ReadRowsRequest {
        let row_keys = keys.map(|key| key.as_bytes().to_vec()).collect();
        let cells = Filter::CellsPerRowLimitFilter(ROW_CELLS_MAX as i32);
        let rows = RowSet { row_keys, ..RowSet::default() };
        self.read(rows, 0, chain([self.of_family(), cells]))
    }

    /// The next rows behind `after` whose keys are hex digits, `key_len` of them.
    pub(super) fn read_page(&self, after: &[u8], key_len: usize, limit: usize) -> ReadRowsRequest {
        let start_key = Some(StartKey::StartKeyOpen(after.to_vec()));
        let row_ranges = vec![RowRange { start_key, end_key: None }];
        let keys = Filter::RowKeyRegexFilter(format!("[0-9a-f]{{{key_len}}}").into_bytes());
        let cells = Filter::CellsPerRowLimitFilter(ROW_CELLS_MAX as i32);
        let rows = RowSet { row_ranges, ..RowSet::default() };
        self.read(rows, limit, chain([keys, self.of_family(), cells]))
    }

    /// A row that nobody has: costs the service next to nothing.
    pub(super) fn read_nothing(&self) -> ReadRowsRequest {
        let row_keys = vec![NOBODYS_ROW.to_vec()];
        let rows = RowSet { row_keys, ..RowSet::default() };
        self.read(rows, 1, filter(Filter::StripValueTransformer(true)))
    }

    /// Any one row, without its contents; one of the family if `of_family` is set.
    pub(super) fn read_any(&self, of_family: bool) -> ReadRowsRequest {
        let family = of_family.then(|| self.of_family());
        let rest = [Filter::CellsPerRowLimitFilter(1), Filter::StripValueTransformer(true)];
        self.read(RowSet::default(), 1, chain(family.into_iter().chain(rest)))
    }

    fn change(&self, key: &[u8], predicate: RowFilter) -> CheckAndMutateRowRequest {
        CheckAndMutateRowRequest {
            table_name: self.table.clone(),
            app_profile_id: self.app_profile.clone(),
            row_key: key.to_vec(),
            predicate_filter: Some(predicate),
            ..CheckAndMutateRowRequest::default()
        }
    }

    fn set_cell(&self, key: &RowKey, timestamp_micros: i64, value: &[u8]) -> Mutation {
        mutation(Kind::SetCell(SetCell {
            family_name: self.family.clone(),
            column_qualifier: key.as_bytes().to_vec(),
            timestamp_micros,
            value: value.to_vec(),
        }))
    }

    /// Writes the row's cell if the family has none in that row.
    pub(super) fn insert(&self, key: &RowKey, value: &[u8]) -> CheckAndMutateRowRequest {
        let cells = Filter::CellsPerRowLimitFilter(1);
        CheckAndMutateRowRequest {
            false_mutations: vec![self.set_cell(key, TIMESTAMP_OF_SERVICE, value)],
            ..self.change(key.as_bytes(), chain([self.of_family(), cells]))
        }
    }

    /// Writes the row's cell in place of the one of time `old_micros`, if that is still there. The new one is younger, so
    /// that a time stands for one value.
    pub(super) fn replace(
        &self,
        key: &RowKey,
        old_micros: i64,
        now_micros: i64,
        value: &[u8],
    ) -> CheckAndMutateRowRequest {
        let step = TIMESTAMP_STEP_MICROS;
        let next_micros = (old_micros / step).saturating_add(1).saturating_mul(step);
        let of_then = Filter::TimestampRangeFilter(TimestampRange {
            start_timestamp_micros: old_micros,
            end_timestamp_micros: next_micros,
        });
        let delete = mutation(Kind::DeleteFromColumn(DeleteFromColumn {
            family_name: self.family.clone(),
            column_qualifier: key.as_bytes().to_vec(),
            time_range: None,
        }));
        let new_micros = (now_micros / step * step).max(next_micros);
        CheckAndMutateRowRequest {
            true_mutations: vec![delete, self.set_cell(key, new_micros, value)],
            ..self.change(key.as_bytes(), chain([self.of_family(), of_then]))
        }
    }

    /// Changes nothing: sets a cell in a row that nobody has and deletes that row, in one step. Fails if there is no such
    /// family; deletions alone would not.
    pub(super) fn probe_family(&self) -> CheckAndMutateRowRequest {
        let set = mutation(Kind::SetCell(SetCell {
            family_name: self.family.clone(),
            column_qualifier: NOBODYS_ROW.to_vec(),
            ..SetCell::default()
        }));
        CheckAndMutateRowRequest {
            false_mutations: vec![set, mutation(Kind::DeleteFromRow(DeleteFromRow {}))],
            ..self.change(NOBODYS_ROW, filter(Filter::BlockAllFilter(true)))
        }
    }
}
