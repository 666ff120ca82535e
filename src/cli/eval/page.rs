//! The page of `--report`.

use super::summary::{Summary, Table};
use crate::cli::{Failure, data};
use crate::domain::OutcomeKind;
use crate::eval::report::{Line, Report, Table as PageTable, html};
use crate::eval::statistics::mean;
use crate::eval::{Field, Split, mean_and_error};
use crate::run::files::{Readers, replace};
use std::collections::BTreeMap;
use std::path::Path;

/// The swarm's estimates beside what came: of the binary outcomes as probabilities, or where there is none,
/// of the first outcome in its unit.
pub fn reliability(field: &Field, split: &Split) -> Vec<(f64, f64)> {
    let outcomes = &field.ground.schema.outcomes;
    let binary = outcomes.iter().any(|outcome| outcome.kind == OutcomeKind::Binary);
    let mut pairs = vec![];
    for (row, truths) in split.methods[0].rows.iter().zip(field.truths()) {
        for (index, outcome) in outcomes.iter().enumerate() {
            let wanted = if binary { outcome.kind == OutcomeKind::Binary } else { index == 0 };
            let (Some(found), Some(truth)) = (row[index], truths[index]) else { continue };
            if wanted {
                let unit = |x: f64| if binary { (x - outcome.low) / (outcome.high - outcome.low) } else { x };
                pairs.push((unit(found.estimate), unit(truth)));
            }
        }
    }
    pairs
}

/// Writes the page in one piece: there is the old one or the new one, whatever happens.
pub fn write(path: &Path, summary: &Summary) -> Result<(), Failure> {
    replace(path, html(&report(summary)).as_bytes(), Readers::All).map_err(|e| data::io(path, e))
}

fn report(summary: &Summary) -> Report {
    let measure = summary.headline();
    let table = summary.table();
    let cells = |heading: &str, about: &str, table: &Table, rows: Vec<Vec<String>>| PageTable {
        heading: heading.into(),
        about: about.into(),
        header: table.header().into_iter().map(String::from).collect(),
        rows,
    };
    let mut tables = vec![cells(
        "Quality",
        "Mean and standard error over splits; all methods predict the same rows from the same packets.",
        &table,
        table.cells(),
    )];
    let differences = table.difference_cells();
    if !differences.is_empty() {
        let about =
            "The swarm's figure minus the other's, paired by split, with the 95% interval of Student's t.";
        tables.push(cells("Differences", about, &table, differences));
    }
    if let Some(poison) = summary.poison {
        let [clean, lied] = summary.poisoned_tables();
        tables.push(cells("Without lies", &summary.poison_sentence(poison), &clean, clean.cells()));
        tables.push(cells("With lies", "The same rows.", &lied, lied.cells()));
    }
    let mut by_method: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (nodes, splits) in &summary.curve {
        for (name, splits) in Table::from(&splits[..]).0 {
            if let Some(value) = measure.of(&mean_and_error(&splits).0) {
                by_method.entry(name).or_default().push((f64::from(*nodes), value));
            }
        }
    }
    let curve = table.names().into_iter().filter_map(|name| by_method.remove_entry(&name)).collect();
    let scrambled = summary.scrambled();
    let points = |value: &dyn Fn(usize) -> Option<f64>| -> Vec<(f64, f64)> {
        (0..scrambled.len()).filter_map(|step| Some((scrambled[step].0, value(step)?))).collect()
    };
    let scramble = vec![("swarm".into(), points(&|step| measure.of(&mean_and_error(&scrambled[step].1).0)))];
    let verdicts = vec![
        ("answer".into(), points(&|step| Some(scrambled[step].2.answer))),
        ("thin".into(), points(&|step| Some(scrambled[step].2.thin))),
        ("conflict".into(), points(&|step| Some(scrambled[step].2.conflict))),
    ];
    let binary = summary.outcomes.iter().any(|outcome| outcome.kind == OutcomeKind::Binary);
    let unit = match summary.outcomes.first() {
        Some(outcome) if !binary && !outcome.unit.is_empty() => outcome.unit.clone(),
        Some(outcome) if !binary => outcome.name.clone(),
        _ => String::new(),
    };
    Report {
        title: format!("qis eval: {}", summary.data),
        about: vec![summary.sentence()],
        tables,
        curve,
        measure: measure.title().into(),
        reliability: summary.reliability.clone(),
        unit,
        levels: summary.levels.iter().map(|(view, splits)| levels(view, splits)).collect(),
        scramble,
        verdicts,
    }
}

/// Mean over splits of the share covered, by level.
fn levels(view: &str, splits: &[Vec<(u8, f64)>]) -> Line {
    let mut by_level: BTreeMap<u8, Vec<f64>> = BTreeMap::new();
    for &(level, share) in splits.iter().flatten() {
        by_level.entry(level).or_default().push(share);
    }
    let points =
        by_level.iter().filter_map(|(level, shares)| Some((f64::from(*level) / 100.0, mean(shares)?)));
    (view.to_string(), points.collect())
}
