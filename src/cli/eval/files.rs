//! What `qis eval` writes for programs: predictions, and splits for models that are fitted elsewhere.

use super::Arguments;
use crate::cli::{Failure, data};
use crate::domain::source::Separator;
use crate::domain::{Domain, FeatureKind, OutcomeKind};
use crate::eval::{Field, Row, Split};
use crate::run::files::{Readers, replace};
use serde_json::{Map, Value as Json, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Every prediction as one JSON object per line: split, row, method, node, and per outcome the estimate
/// with its interval (null where the method gives none).
pub struct Predictions {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl Predictions {
    pub fn create(path: &Path) -> Result<Predictions, Failure> {
        Ok(Predictions { path: path.into(), writer: BufWriter::new(data::create(path)?) })
    }

    pub fn write(&mut self, field: &Field, split: &Split) -> Result<(), Failure> {
        for method in &split.methods {
            for (query, row) in method.rows.iter().enumerate() {
                let outcomes = field.ground.schema.outcomes.iter().zip(row);
                let outcomes: Vec<Json> = outcomes
                    .filter_map(|(outcome, found)| {
                        let found = (*found)?;
                        let (lower, upper) = found.interval.unzip();
                        Some(json!({"name": outcome.name, "estimate": found.estimate, "lower": lower, "upper": upper}))
                    })
                    .collect();
                let line = json!({
                    "split": split.seed,
                    "row": field.cases[field.test[query]].row,
                    "method": method.name,
                    "node": field.askers[query],
                    "outcomes": outcomes,
                });
                writeln!(self.writer, "{line}").map_err(|e| data::io(&self.path, e))?;
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|e| data::io(&self.path, e))
    }
}

/// A folder with `split-SEED.json` per split. Rows are numbers from 1, without the header.
///
/// | field | content |
/// |---|---|
/// | `format` | 1 |
/// | `seed` | of the split |
/// | `tables` | paths of the table of the training rows and of that of the test rows, as they were named |
/// | `source` | `separator` (a character, `whitespace`, or null: to be guessed) and `header` (names, or null) |
/// | `train`, `test` | rows dealt to nodes; test rows |
/// | `nodes` | per training row its node |
/// | `columns` | per feature its column, `numeric` or `categorical`, and the spellings of a missing value |
/// | `outcomes` | name, kind, range and, for each training and test row, what came (null where unknown or not wanted) |
/// | `predictions` | per method, per test row, per outcome the estimate (null without one), in the outcome's unit |
pub struct SplitsOut {
    folder: PathBuf,
}

impl SplitsOut {
    pub fn create(folder: &Path) -> Result<SplitsOut, Failure> {
        std::fs::create_dir_all(folder).map_err(|e| data::io(folder, e))?;
        Ok(SplitsOut { folder: folder.into() })
    }

    pub fn write(
        &self,
        arguments: &Arguments,
        domain: &Domain,
        field: &Field,
        split: &Split,
    ) -> Result<(), Failure> {
        let mut dealt: Vec<(usize, usize)> = (0..field.dealt.len())
            .flat_map(|node| field.dealt[node].iter().map(move |&row| (row, node)))
            .collect();
        dealt.sort_unstable();
        let number = |row: usize| field.cases[row].row;
        let truth = |row: usize, outcome: usize| {
            let wanted = field.ground.outcome.is_none_or(|only| only == outcome);
            field.cases[row].truth.get(outcome).copied().flatten().filter(|_| wanted)
        };
        let outcomes: Vec<Json> = domain
            .schema
            .outcomes
            .iter()
            .enumerate()
            .map(|(index, outcome)| {
                json!({
                    "name": outcome.name,
                    "kind": match outcome.kind {
                        OutcomeKind::Binary => "binary",
                        OutcomeKind::Count => "count",
                        OutcomeKind::Real => "real",
                    },
                    "low": outcome.low,
                    "high": outcome.high,
                    "train": dealt.iter().map(|&(row, _)| truth(row, index)).collect::<Vec<_>>(),
                    "test": field.test.iter().map(|&row| truth(row, index)).collect::<Vec<_>>(),
                })
            })
            .collect();
        let estimates = |row: &Row| row.iter().map(|found| found.map(|f| f.estimate)).collect::<Vec<_>>();
        let predictions: Map<String, Json> = split
            .methods
            .iter()
            .map(|method| (method.name.clone(), json!(method.rows.iter().map(estimates).collect::<Vec<_>>())))
            .collect();
        let train = arguments.train.as_ref().or(arguments.data.as_ref());
        let test = arguments.test.as_ref().or(arguments.data.as_ref());
        let text = json!({
            "format": 1,
            "seed": split.seed,
            "tables": {"train": train, "test": test},
            "source": source(domain),
            "train": dealt.iter().map(|&(row, _)| number(row)).collect::<Vec<_>>(),
            "nodes": dealt.iter().map(|&(_, node)| node).collect::<Vec<_>>(),
            "test": field.test.iter().map(|&row| number(row)).collect::<Vec<_>>(),
            "columns": columns(domain),
            "outcomes": outcomes,
            "predictions": predictions,
        });
        let path = self.folder.join(format!("split-{}.json", split.seed));
        replace(&path, format!("{text}\n").as_bytes(), Readers::All).map_err(|e| data::io(&path, e))
    }
}

fn source(domain: &Domain) -> Json {
    let separator = match domain.source.separator {
        None => None,
        Some(Separator::Whitespace) => Some("whitespace".to_string()),
        Some(Separator::Json) => Some("json".to_string()),
        Some(Separator::Character(byte)) => Some(char::from(byte).to_string()),
    };
    let header = &domain.source.header;
    json!({"separator": separator, "header": (!header.is_empty()).then_some(header)})
}

fn columns(domain: &Domain) -> Vec<Json> {
    let source = &domain.source;
    let one = |feature: &crate::domain::Feature| {
        let own = source.features.get(&feature.name);
        let column = own.and_then(|own| own.column.as_ref()).unwrap_or(&feature.name);
        let missing = source.missing.iter().chain(own.iter().flat_map(|own| &own.missing));
        let numeric = matches!(feature.kind, FeatureKind::Numeric { .. });
        json!({
            "column": column,
            "kind": if numeric { "numeric" } else { "categorical" },
            "missing": missing.collect::<Vec<_>>(),
        })
    };
    domain.schema.features.iter().map(one).collect()
}
