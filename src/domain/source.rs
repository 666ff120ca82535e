//! How a table is read: the unhashed `[source]` part of a domain.

use std::collections::BTreeMap;

/// How a table is read. Nothing of it enters an id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// `None`: by the table's name, else by its first line.
    pub separator: Option<Separator>,
    /// Column names of a table without a header line; empty where it has one.
    pub header: Vec<String>,
    /// `None`: by the first bytes.
    pub compression: Option<Compression>,
    /// Spellings of a missing value, in every column; an empty cell is always missing.
    pub missing: Vec<String>,
    /// Column that names the node a row belongs to.
    pub site: Option<String>,
    /// Column that names a record for good.
    pub record: Option<String>,
    /// Column of the time of observation: Unix milliseconds, or an ISO 8601 date or time.
    pub time: Option<String>,
    /// By feature name.
    pub features: BTreeMap<String, FeatureSource>,
    /// By outcome name.
    pub outcomes: BTreeMap<String, OutcomeSource>,
    pub action: ActionSource,
}

/// What stands between two cells of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// One ASCII character; cells may be quoted.
    Character(u8),
    /// Runs of spaces and tabs; cells may be quoted.
    Whitespace,
    /// No separator: each line is one JSON object.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

/// Where a feature's value stands and how it is spelled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureSource {
    /// `None`: the column of the feature's name.
    pub column: Option<String>,
    /// Spellings of a missing value in this column, beside those of all columns.
    pub missing: Vec<String>,
    /// Spelling in the table -> level of the schema.
    pub values: BTreeMap<String, String>,
}

/// Where an outcome's value stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutcomeSource {
    /// `None`: the column of the outcome's name.
    pub column: Option<String>,
    pub rule: OutcomeRule,
    /// Spellings of an unknown outcome, beside those of all columns.
    pub missing: Vec<String>,
}

/// From a cell to an outcome's value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OutcomeRule {
    /// The number itself.
    #[default]
    Number,
    /// The high end of the range where the number is larger than this, else the low end.
    Above(f64),
    /// The high end of the range where the cell is this text (or the same number), else the low end.
    Equals(String),
}

/// Which columns name the action.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionSource {
    /// Several are joined by `/`; empty: the column `action`.
    pub columns: Vec<String>,
    /// Joined spelling -> action of the schema.
    pub values: BTreeMap<String, String>,
}

/// Whether a cell is spelled as `mark`: the same text, or another form of the same number.
pub(super) fn same(cell: &str, mark: &str) -> bool {
    cell == mark
        || match (cell.parse::<f64>(), mark.parse::<f64>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        }
}

impl Source {
    /// Whether a trimmed cell is a missing value, by the marks of all columns and `own`.
    pub fn is_missing(&self, cell: &str, own: &[String]) -> bool {
        cell.is_empty() || self.missing.iter().chain(own).any(|mark| same(cell, mark))
    }
}
