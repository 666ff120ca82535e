//! `qis verify`: whether the answers of a proof are what its packets give.

use super::{Compute, Failure, output};
use crate::packet::hex;
use crate::proof::{Checked, Outcome, Proof, ProofError, check};
use serde_json::{Value as Json, json};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Exit codes: 0 equal, 1 forged, 3 not readable or not verifiable.

Example:
  qis ask --domain heart.toml --input new.csv --packets heart.qpk --proof answers.qpf
  qis verify answers.qpf")]
pub struct Arguments {
    /// Proof file, as `qis ask --proof` writes it
    file: PathBuf,
    #[command(flatten)]
    compute: Compute,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Why the exit code is not 0.
#[derive(Debug, thiserror::Error)]
enum NotEqual {
    #[error("{path}: forged: {why}")]
    Forged { path: String, why: String },
    #[error("{path}: not verifiable: {why}")]
    NotVerifiable { path: String, why: String },
    #[error("{path}: not readable: {source}")]
    NotReadable { path: String, source: ProofError },
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let path = arguments.file.display().to_string();
    let engine = arguments.compute.engine()?;
    let checked = match Proof::open(&arguments.file).and_then(|proof| check(&proof, &engine)) {
        Ok(checked) => checked,
        Err(source) => {
            let why = source.to_string();
            let unknown = matches!(source, ProofError::Finish { .. });
            if arguments.json {
                let outcome = if unknown { "not verifiable" } else { "not readable" };
                output::json(&json!({"file": path, "outcome": outcome, "why": why}));
            }
            return Err(Failure::rejected(match unknown {
                true => NotEqual::NotVerifiable { path, why },
                false => NotEqual::NotReadable { path, source },
            }));
        }
    };
    match arguments.json {
        true => output::json(&object(&path, &checked)),
        false => print(&checked),
    }
    match checked.outcome {
        Outcome::Equal => Ok(()),
        Outcome::Forged(why) => Err(Failure::failed(NotEqual::Forged { path, why })),
        Outcome::NotVerifiable(why) => Err(Failure::rejected(NotEqual::NotVerifiable { path, why })),
    }
}

fn print(checked: &Checked) {
    output::line(&format!(
        "{} of {}, domain {}, view {}: {}",
        output::count(checked.packets as u64, "packet"),
        output::count(checked.authors as u64, "author"),
        checked.domain,
        checked.view,
        output::count(checked.answers.len() as u64, "answer"),
    ));
    let rows = checked
        .answers
        .iter()
        .map(|(row, lineage, outcome)| [row.to_string(), hex(&lineage[..16]), outcome.name().to_string()]);
    output::table(["row", "lineage root", "recomputed"], rows);
}

fn object(path: &str, checked: &Checked) -> Json {
    let why = |outcome: &Outcome| match outcome {
        Outcome::Equal => None,
        Outcome::Forged(why) | Outcome::NotVerifiable(why) => Some(why.clone()),
    };
    let answers = checked.answers.iter().map(|(row, lineage, outcome)| {
        json!({"row": row, "lineage": hex(lineage), "outcome": outcome.name(), "why": why(outcome)})
    });
    json!({
        "file": path,
        "domain": checked.domain,
        "view": checked.view,
        "packets": checked.packets,
        "authors": checked.authors,
        "outcome": checked.outcome.name(),
        "why": why(&checked.outcome),
        "answers": answers.collect::<Vec<_>>(),
    })
}
