//! `qis domain init`.

use crate::cli::{Failure, data, output};
use crate::domain::init::{Request, draft};
use crate::domain::schema::Direction;
use clap::ValueEnum;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// The table: CSV with any separator, or JSON lines, plain or gzip; - is standard input
    table: PathBuf,
    /// Column of an outcome; may be given several times
    #[arg(long, value_name = "COLUMN", required = true)]
    outcome: Vec<String>,
    /// Column that names the action; several are joined by /
    #[arg(long, value_name = "COLUMN")]
    action: Vec<String>,
    /// Column that names the site, one node each
    #[arg(long, value_name = "COLUMN")]
    site: Option<String>,
    /// Column that must be equal in cases that are compared; may be given several times
    #[arg(long, value_name = "COLUMN")]
    exact: Vec<String>,
    /// The domain's name [default: that of the table]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Which way the outcome is better
    #[arg(long, value_enum, default_value_t)]
    better: Better,
    /// Make one outcome of each value, also where the values are numbers
    #[arg(long)]
    labels: bool,
    /// File to write; it must not exist yet [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum Better {
    Higher,
    Lower,
    #[default]
    Neutral,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let request = Request {
        name: arguments.name.clone().unwrap_or_else(|| name_of(&arguments.table)),
        outcomes: arguments.outcome.clone(),
        action: arguments.action.clone(),
        site: arguments.site.clone(),
        exact: arguments.exact.clone(),
        direction: match arguments.better {
            Better::Higher => Direction::Higher,
            Better::Lower => Direction::Lower,
            Better::Neutral => Direction::Neutral,
        },
        labels: arguments.labels,
    };
    let text = draft(&arguments.table, &request)?;
    match &arguments.output {
        None => output::text(&text),
        Some(path) => {
            // A domain that somebody has edited is not written over.
            let mut file = std::fs::File::create_new(path).map_err(|e| data::io(path, e))?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| data::io(path, e))?;
            let path = path.display();
            output::note(&format!("wrote {path}; read it through, then: qis domain check {path}"));
        }
    }
    Ok(())
}

/// The table's file name up to its first dot.
fn name_of(path: &std::path::Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    match name.split('.').next() {
        Some(stem) if !stem.is_empty() && stem != "-" => stem.into(),
        _ => "domain".into(),
    }
}
