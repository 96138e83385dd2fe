//! Rows from the pieces in which they travel.
//!
//! A cell may come in several pieces, a row in several cells, and either may go on in the next message. What was
//! begun of a row may be taken back. Nothing is allocated for what is announced, only for what has come.

use bigtable_rs::google::bigtable::v2::read_rows_response::{CellChunk, cell_chunk::RowStatus};

use super::table::CELL_LEN_MAX;

/// How many cells of a row are taken. One is right; a second tells that something is wrong.
pub(super) const ROW_CELLS_MAX: usize = 2;

/// One cell of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) family: String,
    pub(super) qualifier: Vec<u8>,
    /// When it was written, in microseconds: the version of the cell.
    pub(super) timestamp_micros: i64,
    pub(super) value: Vec<u8>,
}

/// A row that has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawRow {
    pub(super) key: Vec<u8>,
    pub(super) cells: Vec<Cell>,
}

/// Why pieces make no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row \"{}\": {what}", key.escape_ascii())]
pub(super) struct DecodeError {
    key: Vec<u8>,
    what: &'static str,
}

/// Puts pieces together, in the order in which they come.
#[derive(Debug, Default)]
pub(super) struct RowDecoder {
    /// The key of the last row that came to its end: the next is greater.
    last: Vec<u8>,
    row: Option<RawRow>,
    /// How many bytes the last cell of `row` will have, if more of it is to come.
    cell_len: Option<usize>,
}

impl RowDecoder {
    /// Takes the next piece. Returns the row that it ends, if it ends one.
    pub(super) fn add(&mut self, chunk: CellChunk) -> Result<Option<RawRow>, DecodeError> {
        let status = chunk.row_status;
        if status == Some(RowStatus::ResetRow(true)) {
            return self.reset(&chunk).map(|()| None);
        }
        self.begin_row(&chunk.row_key)?;
        self.add_piece(chunk)?;
        if status != Some(RowStatus::CommitRow(true)) {
            return Ok(None);
        }
        if self.cell_len.is_some() {
            return Err(self.wrong("it ends in the middle of a cell"));
        }
        let row = self.row.take();
        if let Some(row) = &row {
            self.last.clone_from(&row.key);
        }
        Ok(row)
    }

    /// Checks that nothing was begun and not ended.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.row {
            Some(_) => Err(self.wrong("the answer ends in the middle of it")),
            None => Ok(()),
        }
    }

    fn reset(&mut self, chunk: &CellChunk) -> Result<(), DecodeError> {
        if self.row.is_none() || !chunk.row_key.is_empty() || !chunk.value.is_empty() {
            return Err(self.wrong("it is taken back, but was not begun, or goes on"));
        }
        (self.row, self.cell_len) = (None, None);
        Ok(())
    }

    fn begin_row(&mut self, key: &[u8]) -> Result<(), DecodeError> {
        match &self.row {
            Some(row) if key.is_empty() || key == row.key => Ok(()),
            Some(_) => Err(self.wrong("another one begins in the middle of it")),
            None if key.is_empty() => Err(self.wrong("one without a key follows it")),
            None => {
                let key = key.to_vec();
                if key <= self.last {
                    let what = "it comes out of order, or twice";
                    return Err(DecodeError { key, what });
                }
                self.row = Some(RawRow { key, cells: Vec::new() });
                Ok(())
            }
        }
    }

    fn add_piece(&mut self, chunk: CellChunk) -> Result<(), DecodeError> {
        let more = usize::try_from(chunk.value_size)
            .map_err(|_| self.wrong("a cell has a negative length"))?;
        if self.cell_len.is_none() {
            self.begin_cell(chunk.family_name, chunk.qualifier, chunk.timestamp_micros)?;
        } else if chunk.family_name.is_some() || chunk.qualifier.is_some() {
            return Err(self.wrong("a cell begins in the middle of another"));
        }
        let announced = self.cell_len.or((more > 0).then_some(more));
        let cell = self.row.as_mut().and_then(|row| row.cells.last_mut());
        let Some(cell) = cell else { return Err(self.wrong("a value has no cell")) };
        cell.value.extend_from_slice(&chunk.value);
        let len = cell.value.len();
        if len > announced.unwrap_or(CELL_LEN_MAX).min(CELL_LEN_MAX) {
            return Err(self.wrong("a cell is longer than it was said to be, or than any may be"));
        }
        if more == 0 && announced.is_some_and(|announced| announced != len) {
            return Err(self.wrong("a cell is shorter than it was said to be"));
        }
        self.cell_len = announced.filter(|_| more > 0);
        Ok(())
    }

    /// Begins a cell. What is not told is as it was in the cell before.
    fn begin_cell(
        &mut self,
        family: Option<String>,
        qualifier: Option<Vec<u8>>,
        timestamp_micros: i64,
    ) -> Result<(), DecodeError> {
        let before = self.row.as_ref().and_then(|row| row.cells.last());
        let (family, qualifier) = match (family, qualifier, before) {
            (Some(family), Some(qualifier), _) => (family, qualifier),
            (None, Some(qualifier), Some(before)) => (before.family.clone(), qualifier),
            (None, None, Some(before)) => (before.family.clone(), before.qualifier.clone()),
            (Some(_), None, _) | (None, _, None) => {
                return Err(self.wrong("a cell has no family or no qualifier"));
            }
        };
        match &mut self.row {
            Some(row) if row.cells.len() < ROW_CELLS_MAX => {
                row.cells.push(Cell { family, qualifier, timestamp_micros, value: Vec::new() });
                Ok(())
            }
            _ => Err(self.wrong("it has more cells than were asked for")),
        }
    }

    fn wrong(&self, what: &'static str) -> DecodeError {
        let key = self.row.as_ref().map_or(&self.last, |row| &row.key).clone();
        DecodeError { key, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(key: &str, value: &str, more: i32) -> CellChunk {
        CellChunk {
            row_key: key.into(),
            value: value.into(),
            value_size: more,
            ..CellChunk::default()
        }
    }

    fn first(key: &str, value: &str, more: i32) -> CellChunk {
        let names = (Some("cf".to_owned()), Some(b"q".to_vec()));
        CellChunk { family_name: names.0, qualifier: names.1, ..piece(key, value, more) }
    }

    fn ends(chunk: CellChunk) -> CellChunk {
        CellChunk { row_status: Some(RowStatus::CommitRow(true)), ..chunk }
    }

    fn taken_back() -> CellChunk {
        CellChunk { row_status: Some(RowStatus::ResetRow(true)), ..CellChunk::default() }
    }

    fn decode(chunks: Vec<CellChunk>) -> Result<Vec<RawRow>, DecodeError> {
        let mut decoder = RowDecoder::default();
        let mut rows = Vec::new();
        for chunk in chunks {
            rows.extend(decoder.add(chunk)?);
        }
        decoder.finish().map(|()| rows)
    }

    fn values(rows: &[RawRow]) -> Vec<(String, Vec<String>)> {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).expect("ASCII");
        let cells = |row: &RawRow| row.cells.iter().map(|cell| text(&cell.value)).collect();
        rows.iter().map(|row| (text(&row.key), cells(row))).collect()
    }

    #[test]
    fn rows_are_put_together_from_whole_and_cut_cells() {
        let rows = decode(vec![
            ends(first("a", "whole", 0)),
            first("b", "cut ", 11),
            piece("", "in ", 11),
            ends(piece("b", "half", 0)),
            first("c", "one", 0),
            ends(piece("", "two", 0)),
        ]);
        let rows = values(&rows.expect("they are legal"));
        let expected =
            [("a", vec!["whole"]), ("b", vec!["cut in half"]), ("c", vec!["one", "two"])];
        let expected = expected.map(|(key, cells)| {
            (key.to_owned(), cells.into_iter().map(str::to_owned).collect::<Vec<_>>())
        });
        assert_eq!(rows, expected);
    }

    #[test]
    fn what_is_taken_back_is_forgotten() {
        let rows = decode(vec![first("a", "half", 9), taken_back(), ends(first("a", "again", 0))]);
        assert_eq!(values(&rows.expect("legal")), [("a".to_owned(), vec!["again".to_owned()])]);
    }

    #[test]
    fn everything_else_is_refused() {
        let no_family = CellChunk { family_name: None, ..first("a", "x", 0) };
        let no_qualifier = CellChunk { qualifier: None, ..first("a", "x", 0) };
        let huge = CellChunk { value: vec![0; CELL_LEN_MAX + 1], ..first("a", "", 0) };
        let three = vec![first("a", "1", 0), piece("", "2", 0), ends(piece("", "3", 0))];
        for (what, chunks) in [
            ("without a key", vec![ends(first("", "x", 0))]),
            ("no family", vec![ends(no_family)]),
            ("no qualifier", vec![ends(no_qualifier)]),
            ("negative", vec![ends(first("a", "x", -1))]),
            ("middle of a cell", vec![ends(first("a", "x", 5))]),
            ("ends in the middle", vec![first("a", "x", 0)]),
            ("longer", vec![first("a", "x", 2), ends(piece("", "yz", 0))]),
            ("longer", vec![ends(huge)]),
            ("shorter", vec![first("a", "x", 9), ends(piece("", "yz", 0))]),
            ("middle of another", vec![first("a", "x", 9), ends(first("", "yz", 0))]),
            ("another one begins", vec![first("a", "x", 0), ends(first("b", "x", 0))]),
            ("out of order", vec![ends(first("b", "x", 0)), ends(first("a", "x", 0))]),
            ("twice", vec![ends(first("a", "x", 0)), ends(first("a", "x", 0))]),
            ("more cells", three),
            ("taken back", vec![taken_back()]),
        ] {
            let error = decode(chunks).expect_err(what).to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
