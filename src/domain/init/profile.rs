//! One pass over a table in bounded memory: what each column holds, and a sample of rows.

use super::InitError;
use crate::domain::source::same;
use crate::domain::table::{Records, canonical};
use csv::ByteRecord;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Most columns that are profiled; more than a hundred do not fit a signal anyway.
pub(super) const COLUMNS_MAX: usize = 4_096;
/// Different values of a column that are remembered.
const DISTINCT_MAX: usize = 512;
/// Bytes of a value that can be a level; a longer one makes the column free text.
const LEVEL_BYTES_MAX: usize = 64;
/// Cells of the sample, all columns together, and rows of it.
const SAMPLE_CELLS_MAX: usize = 1 << 20;
const SAMPLE_ROWS_MAX: usize = 4_096;
/// The sample is the same on every run.
const SEED: u64 = 1;

/// Texts of an otherwise numeric column that are remembered.
const STRAY_TEXTS_MAX: usize = 4;
/// A longer record is sampled with its cells cut, at this length.
const SAMPLE_RECORD_BYTES_MAX: usize = 1 << 16;

/// Spellings that mean a missing value in every table that is known to use them.
const MISSING_MARKS: [&str; 8] = ["NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "?"];

/// What a column holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) missing: u64,
    pub(super) marks: BTreeMap<&'static str, u64>,
    /// Present cells that are finite numbers, and those that are not.
    pub(super) numbers: u64,
    pub(super) texts: u64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Whether all numbers are whole.
    pub(super) whole: bool,
    /// Whether each number is larger than the one before: a row number or a key.
    pub(super) ascending: bool,
    last: f64,
    /// The first different texts that are no numbers.
    pub(super) strays: std::collections::BTreeSet<String>,
    /// Value -> rows; `None` once there were too many, or too long ones.
    pub(super) distinct: Option<BTreeMap<String, u64>>,
}

impl Column {
    fn new(name: String) -> Column {
        Column {
            name,
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            last: f64::NEG_INFINITY,
            whole: true,
            ascending: true,
            distinct: Some(BTreeMap::new()),
            ..Column::default()
        }
    }

    fn add(&mut self, text: &str) {
        if let Some(mark) = MISSING_MARKS.iter().find(|mark| **mark == text) {
            *self.marks.entry(mark).or_default() += 1;
        }
        if text.is_empty() || MISSING_MARKS.contains(&text) {
            self.missing += 1;
            return;
        }
        match text.parse::<f64>() {
            Ok(x) if x.is_finite() => {
                self.numbers += 1;
                self.low = self.low.min(x);
                self.high = self.high.max(x);
                self.whole &= x.fract() == 0.0;
                self.ascending &= x > self.last;
                self.last = x;
            }
            _ => {
                self.texts += 1;
                if self.strays.len() < STRAY_TEXTS_MAX && text.len() <= LEVEL_BYTES_MAX {
                    self.strays.insert(text.into());
                }
            }
        }
        let Some(distinct) = &mut self.distinct else { return };
        if let Some(count) = distinct.get_mut(text) {
            *count += 1;
        } else if distinct.len() < DISTINCT_MAX && text.len() <= LEVEL_BYTES_MAX {
            distinct.insert(text.into(), 1);
        } else {
            self.distinct = None;
        }
    }

    /// Present cells.
    pub(super) fn present(&self) -> u64 {
        self.numbers + self.texts
    }

    /// Whether every present cell is a number.
    pub(super) fn is_numeric(&self) -> bool {
        self.texts == 0 && self.numbers > 0
    }

    /// Whether nearly all present cells are numbers and the others have few spellings: these are
    /// marks for missing values then.
    pub(super) fn is_numeric_with_marks(&self) -> bool {
        self.texts > 0 && self.strays.len() < STRAY_TEXTS_MAX && self.numbers >= 9 * self.texts
    }

    /// The different values: numbers in ascending order where all are, and each number once.
    pub(super) fn values(&self) -> Option<Vec<String>> {
        let mut values: Vec<String> = self.distinct.as_ref()?.keys().cloned().collect();
        if self.is_numeric() {
            let number = |text: &String| text.parse::<f64>().unwrap_or(0.0);
            values.sort_by(|a, b| number(a).total_cmp(&number(b)));
        }
        // Other forms of one number are one value; equal ones need not be neighbours among texts.
        let mut once: Vec<String> = Vec::with_capacity(values.len());
        for value in values {
            if !once.iter().any(|earlier| same(&value, earlier)) {
                once.push(value);
            }
        }
        Some(once)
    }
}

/// A table in figures.
pub(super) struct Profile {
    pub(super) rows: u64,
    pub(super) columns: Vec<Column>,
    /// Joined values of the action columns -> rows; `None` once there were too many.
    pub(super) actions: Option<BTreeMap<String, u64>>,
    /// Rows drawn evenly, cells trimmed.
    pub(super) sample: Vec<ByteRecord>,
}

impl Profile {
    /// Reads all records once. `actions` are the columns of the action.
    pub(super) fn read(file: &str, records: &mut Records, actions: &[usize]) -> Result<Profile, InitError> {
        let names = records.columns.clone();
        if names.len() > COLUMNS_MAX {
            let (file, columns) = (file.into(), names.len());
            return Err(InitError::TooManyColumns { file, columns, columns_max: COLUMNS_MAX });
        }
        let mut profile = Profile {
            rows: 0,
            columns: names.iter().map(|name| Column::new(name.clone())).collect(),
            actions: Some(BTreeMap::new()),
            sample: Vec::new(),
        };
        let sample_rows = (SAMPLE_CELLS_MAX / names.len().max(1)).min(SAMPLE_ROWS_MAX);
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let mut record = ByteRecord::new();
        while let Some(line) = records.next(&mut record, &names)? {
            profile.add(file, line, &record, actions)?;
            // Algorithm R: after n rows each is in the sample with the same chance.
            if profile.sample.len() < sample_rows {
                profile.sample.push(shortened(&record));
            } else {
                let place = random.random_range(0..profile.rows);
                if let Some(slot) = usize::try_from(place).ok().and_then(|i| profile.sample.get_mut(i)) {
                    *slot = shortened(&record);
                }
            }
        }
        if profile.rows == 0 {
            return Err(crate::domain::TableError::Empty { file: file.into() }.into());
        }
        Ok(profile)
    }

    fn add(
        &mut self,
        file: &str,
        line: u64,
        record: &ByteRecord,
        actions: &[usize],
    ) -> Result<(), InitError> {
        use crate::domain::TableError;
        self.rows += 1;
        if record.len() != self.columns.len() {
            let (found, expected) = (record.len(), self.columns.len());
            return Err(TableError::FieldCount { file: file.into(), line, found, expected }.into());
        }
        for (column, cell) in self.columns.iter_mut().zip(record) {
            let text = std::str::from_utf8(cell).map_err(|_| TableError::NotUtf8 {
                file: file.into(),
                line,
                column: column.name.clone(),
            })?;
            column.add(&canonical(text));
        }
        if let (Some(seen), false) = (&mut self.actions, actions.is_empty()) {
            let parts: Vec<_> = actions
                .iter()
                .map(|&index| canonical(std::str::from_utf8(record.get(index).unwrap_or(b"")).unwrap_or("")))
                .map(|part| if MISSING_MARKS.contains(&&*part) { "".into() } else { part })
                .collect();
            if parts.iter().any(|part| !part.is_empty()) {
                *seen.entry(parts.join("/")).or_default() += 1;
            }
            if seen.len() > DISTINCT_MAX {
                self.actions = None;
            }
        }
        Ok(())
    }

    /// The numbers of a column in the sample, ascending.
    pub(super) fn sorted_numbers(&self, column: usize) -> Vec<f64> {
        let mut numbers: Vec<f64> = self
            .sample
            .iter()
            .filter_map(|row| std::str::from_utf8(row.get(column)?).ok()?.trim().parse::<f64>().ok())
            .filter(|x| x.is_finite())
            .collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    }

    /// Different values of a column in the sample by present cells of it, 0 to 1.
    pub(super) fn uniqueness(&self, column: usize) -> f64 {
        let cells: Vec<&[u8]> = self.sample.iter().filter_map(|row| row.get(column)).collect();
        let present = cells.iter().filter(|cell| !cell.is_empty()).count().max(1);
        let distinct: std::collections::BTreeSet<&[u8]> =
            cells.into_iter().filter(|cell| !cell.is_empty()).collect();
        distinct.len() as f64 / present as f64
    }
}

fn shortened(record: &ByteRecord) -> ByteRecord {
    if record.as_slice().len() <= SAMPLE_RECORD_BYTES_MAX {
        return record.clone();
    }
    record.iter().map(|cell| &cell[..cell.len().min(LEVEL_BYTES_MAX)]).collect()
}
