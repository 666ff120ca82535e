//! Why a table, or one row of it, cannot be used.

use crate::domain::encode::ValueError;
use miette::Diagnostic;

/// Why a table, or one row of it, cannot be used. Lines are 1-based and count the header.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum TableError {
    /// The file is not there or may not be read.
    #[error("{file}: cannot be opened: {source}")]
    Open {
        file: String,
        #[source]
        source: std::io::Error,
    },
    /// Reading failed on the way, or the compressed data are damaged. Nothing more comes.
    #[error("{file}:{line}: reading failed after this line: {source}")]
    Read {
        file: String,
        line: u64,
        #[source]
        source: std::io::Error,
    },
    /// The first bytes are those of another encoding.
    #[error("{file}: the text is {encoding}, not UTF-8")]
    #[diagnostic(help("save the table as UTF-8"))]
    Encoding { file: String, encoding: &'static str },
    /// A header and no row, or nothing at all.
    #[error("{file}: the table has no rows")]
    #[diagnostic(help("a header line and at least one row below it are expected"))]
    Empty { file: String },
    /// Columns that the domain reads are not there. Nothing more comes.
    #[error("{file}:{line}: missing {missing}")]
    #[diagnostic(help("columns of the table: {columns}. The domain's [source] says which columns are read"))]
    MissingColumns { file: String, line: u64, missing: String, columns: String },
    /// Two columns have the name of one that the domain reads. Nothing more comes.
    #[error("{file}:{line}: two columns are named `{column}`")]
    #[diagnostic(help("rename one, or give all names in [source] header"))]
    DuplicateColumn { file: String, line: u64, column: String },
    /// A row has more or fewer cells than there are columns.
    #[error("{file}:{line}: {found} fields, where the table has {expected} columns")]
    #[diagnostic(help("an unquoted separator inside a text, or another separator? See [source] separator"))]
    FieldCount { file: String, line: u64, found: usize, expected: usize },
    /// A record is longer than [`crate::limits::RECORD_BYTES_MAX`]. Nothing more comes.
    #[error("{file}:{line}: the record that begins here is longer than {bytes_max} bytes")]
    #[diagnostic(help("a quotation mark that is never closed?"))]
    RecordTooLong { file: String, line: u64, bytes_max: usize },
    /// A cell is not UTF-8.
    #[error("{file}:{line}: column `{column}` is not UTF-8")]
    #[diagnostic(help("save the table as UTF-8"))]
    NotUtf8 { file: String, line: u64, column: String },
    /// A line of a JSON table is no flat object.
    #[error("{file}:{line}: {problem}")]
    #[diagnostic(help("each line of a JSON table is one object: {{\"column\": value, ...}}"))]
    Json { file: String, line: u64, problem: String },
    /// A cell is no value of its feature or outcome.
    #[error("{file}:{line}: {}", in_column(.column, .error))]
    #[diagnostic(help("{}", remedy(.error)))]
    Value { file: String, line: u64, column: String, error: Box<ValueError> },
    /// The action is not one of the schema's.
    #[error("{file}:{line}: column `{column}`: \"{text}\" is not one of the actions {actions}")]
    #[diagnostic(help("add it to `actions`, or map the spelling in [source.action] values"))]
    UnknownAction { file: String, line: u64, column: String, text: String, actions: String },
    /// The time of observation cannot be read.
    #[error("{file}:{line}: column `{column}`: \"{text}\" is no time")]
    #[diagnostic(help("Unix milliseconds, 2024-05-31, or 2024-05-31T08:30:00Z; 1970 or later"))]
    Time { file: String, line: u64, column: String, text: String },
}

/// The problem with its column; a feature or outcome of the column's name is not named again.
fn in_column(column: &str, error: &ValueError) -> String {
    let text = error.to_string();
    let rest = text.strip_prefix("outcome ").unwrap_or(&text);
    match rest.strip_prefix(&format!("`{column}`")) {
        Some(rest) => format!("column `{column}`{rest}"),
        None => format!("column `{column}`: {text}"),
    }
}

fn remedy(error: &ValueError) -> &'static str {
    match error {
        ValueError::Missing { .. } => {
            "set missing = \"slot\" in its [[feature]] to accept missing values, or drop the row"
        }
        ValueError::NotANumber { .. } => {
            "is it a mark for a missing value? List it under `missing` in [source]"
        }
        ValueError::UnknownLevel { .. } => {
            "add it to the levels, map the spelling in [source.feature.NAME] values, or list it as missing"
        }
        ValueError::NotABool { .. } => {
            "map the spelling to \"true\" or \"false\" in [source.feature.NAME] values"
        }
        ValueError::OutsideRange { .. } => "widen `range`, or set outside = \"clip\", in its [[outcome]]",
        ValueError::WrongOutcome { .. } => {
            "another kind in its [[outcome]], or `above` or `equals` in [source.outcome.NAME]?"
        }
    }
}

impl TableError {
    /// Whether reading may go on with the next row: only this one cannot be used.
    pub fn is_of_one_row(&self) -> bool {
        matches!(
            self,
            TableError::FieldCount { .. }
                | TableError::NotUtf8 { .. }
                | TableError::Json { .. }
                | TableError::Value { .. }
                | TableError::UnknownAction { .. }
                | TableError::Time { .. }
        )
    }
}
