//! What several commands do with domains and tables, with the right exit codes.

use super::Failure;
use crate::distill::Case;
use crate::domain::{Direction, Domain, Purpose, Table, View, init};
use crate::mailbox::{Clock, SystemClock};
use std::fs::File;
use std::path::Path;

/// Loads a domain file; problems are shown with their lines.
pub fn load(path: &Path) -> Result<Domain, Failure> {
    Ok(Domain::load(path)?)
}

/// The named view, or the first.
pub fn view<'a>(domain: &'a Domain, name: Option<&str>) -> Result<&'a View, Failure> {
    domain.view(name).ok_or_else(|| {
        let known: Vec<&str> = domain.views.iter().map(|view| view.name.as_str()).collect();
        let name = name.unwrap_or_default();
        Failure::usage(format!("domain `{}` has no view `{name}`; it has {}", domain.name, known.join(", ")))
    })
}

/// Index of the named outcome.
pub fn outcome(domain: &Domain, name: &str) -> Result<usize, Failure> {
    let outcomes = &domain.schema.outcomes;
    outcomes.iter().position(|outcome| outcome.name == name).ok_or_else(|| {
        let known: Vec<&str> = outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
        Failure::usage(format!(
            "domain `{}` has no outcome `{name}`; it has {}",
            domain.name,
            known.join(", ")
        ))
    })
}

/// Opens a table; a file that is not there is a failure, one that does not fit is rejected.
pub fn open(path: &Path, domain: &Domain, purpose: Purpose) -> Result<Table, Failure> {
    Ok(Table::open(path, domain, purpose)?)
}

/// All cases of a table. Where the table has no time, all are observed at 0: what is computed from
/// them does not depend on the clock.
pub fn cases(path: &Path, domain: &Domain, purpose: Purpose) -> Result<Vec<Case>, Failure> {
    Ok(Case::read_all(open(path, domain, purpose)?, &domain.schema, 0)?)
}

/// What a drafted domain is about.
pub struct DraftOptions {
    pub outcome: String,
    pub action: Option<String>,
    pub site: Option<String>,
}

/// Drafts a domain from a table.
pub fn draft(path: &Path, options: &DraftOptions) -> Result<Domain, Failure> {
    let request = init::Request {
        name: "drafted".into(),
        outcomes: vec![options.outcome.clone()],
        action: options.action.clone().into_iter().collect(),
        site: options.site.clone(),
        exact: vec![],
        direction: Direction::Neutral,
        labels: false,
    };
    let text = init::draft(path, &request)?;
    let mut domain = Domain::parse("drafted.toml", &text)?;
    // Other tables of the same columns may be separated or packed otherwise.
    (domain.source.separator, domain.source.compression) = (None, None);
    Ok(domain)
}

/// All records of a table, for splitting one before a domain is drafted: names and rows.
pub fn records(path: &Path) -> Result<(Vec<String>, Vec<csv::ByteRecord>), Failure> {
    Ok(init::records(path)?)
}

/// Writes records as a comma-separated table.
pub fn write_records<'a>(
    path: &Path,
    header: &[String],
    rows: impl Iterator<Item = &'a csv::ByteRecord>,
) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let mut writer = csv::Writer::from_path(path)?;
        writer.write_record(header)?;
        for row in rows {
            writer.write_byte_record(row)?;
        }
        writer.flush()
    };
    write().map_err(|e| io(path, e))
}

/// Creates a file, or says which one could not be.
pub fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|e| io(path, e))
}

/// An I/O error with its path, exit code 1.
pub fn io(path: &Path, source: std::io::Error) -> Failure {
    Failure::failed(FileError { path: path.display().to_string(), source })
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
struct FileError {
    path: String,
    source: std::io::Error,
}

/// Unix milliseconds now; 0 for a clock before 1970.
pub fn now_ms() -> u64 {
    SystemClock.now_ms()
}

/// The asynchronous runtime that networking commands run in.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    crate::run::runtime().map_err(|e| io(Path::new("asynchronous runtime"), e))
}
