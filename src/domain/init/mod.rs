//! Drafts a domain file from a table: a start to be read and edited by who knows the data.

mod bandwidth;
mod draft;
mod features;
mod outcomes;
mod profile;

#[cfg(test)]
mod tests;

use super::schema::Direction;
use super::table::{Records, TableError, open_bytes};
use crate::domain::DomainError;
use csv::ByteRecord;
use miette::Diagnostic;
use profile::Profile;
use std::path::Path;

/// What to draft.
#[derive(Clone, Debug)]
pub struct Request {
    /// The domain's name.
    pub name: String,
    /// Columns of outcomes, at least one.
    pub outcomes: Vec<String>,
    /// Columns that name the action together; may be empty.
    pub action: Vec<String>,
    /// Column that names the node.
    pub site: Option<String>,
    /// Columns that must be equal in similar cases.
    pub exact: Vec<String>,
    /// Which way an outcome is better.
    pub direction: Direction,
    /// Make one binary outcome of each value, also of whole numbers.
    pub labels: bool,
}

/// Why no draft can be made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum InitError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Table(#[from] TableError),
    /// A column that was asked for is not there.
    #[error("{file}: no column `{column}`")]
    #[diagnostic(help("columns of the table: {columns}"))]
    NoColumn { file: String, column: String, columns: String },
    #[error("{file}: {columns} columns; at most {columns_max} can be described")]
    #[diagnostic(help("leave out columns that do not describe a case"))]
    TooManyColumns { file: String, columns: usize, columns_max: usize },
    #[error("{file}: {problem}")]
    #[diagnostic(help("{remedy}"))]
    Column { file: String, problem: String, remedy: String },
    /// The draft does not fit its own table: a mistake of this program or a very odd table.
    #[error("the draft for {file} does not pass its own check")]
    Draft {
        file: String,
        #[source]
        #[diagnostic_source]
        source: DomainError,
    },
}

/// All records of a table in memory, with the names of its columns: what a split into training and
/// test rows needs before a domain is drafted.
///
/// # Errors
/// The table cannot be read.
pub fn records(path: impl AsRef<Path>) -> Result<(Vec<String>, Vec<ByteRecord>), InitError> {
    let (_, mut records) = open(path.as_ref())?;
    let columns = records.columns.clone();
    let (mut rows, mut record) = (vec![], ByteRecord::new());
    while records.next(&mut record, &columns)?.is_some() {
        rows.push(record.clone());
    }
    Ok((columns, rows))
}

/// A table without a domain, with its name for messages.
fn open(path: &Path) -> Result<(String, Records), InitError> {
    let (file, bytes) = open_bytes(path)?;
    let mut records = Records::open(&file, bytes, None, None, &[])?;
    // The names of JSON lines stand in the lines; those of the first must be all.
    if records.is_json() {
        if path == Path::new("-") {
            return Err(InitError::Column {
                file,
                problem: "JSON lines cannot be drafted from a pipe".into(),
                remedy: "save them to a file first".into(),
            });
        }
        records.next(&mut ByteRecord::new(), &[])?;
        let names = records.columns.clone();
        let (_, bytes) = open_bytes(path)?;
        records = Records::open(&file, bytes, None, None, &names)?;
    }
    Ok((file, records))
}

/// Reads a table once (`-` is standard input) and gives the text of a domain file that describes it.
/// Memory is bounded whatever the table's size: counts per column and a sample of rows.
///
/// # Errors
/// The table cannot be read, a named column is not there, or a column cannot be what was asked.
pub fn draft(path: impl AsRef<Path>, request: &Request) -> Result<String, InitError> {
    let (file, mut records) = open(path.as_ref())?;
    let find = |column: &String| {
        records.columns.iter().position(|name| name == column).ok_or_else(|| InitError::NoColumn {
            file: file.clone(),
            column: column.clone(),
            columns: records.columns.join(", "),
        })
    };
    let roles = draft::Roles {
        outcomes: request.outcomes.iter().map(find).collect::<Result<_, _>>()?,
        action: request.action.iter().map(find).collect::<Result<_, _>>()?,
        site: request.site.iter().map(find).next().transpose()?,
        exact: request.exact.iter().map(find).collect::<Result<_, _>>()?,
    };
    let profile = Profile::read(&file, &mut records, &roles.action)?;
    draft::write(&file, request, &roles, &profile, records.separator)
}
