//! `qis eval`: what a swarm of nodes predicts for rows that no node has seen.

mod files;
mod flags;
mod page;
mod rows;
mod summary;

pub use flags::Arguments;

use super::{Failure, data, output};
use crate::domain::View;
use crate::eval::curve::Supply;
use crate::eval::{self, Field, Ground, Method, Nodes, poison, scramble};
use files::{Predictions, SplitsOut};
use rows::{Prepared, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use summary::{Summary, Table};

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let wanted = arguments.wanted()?;
    if let Some(path) = &arguments.report {
        // Before minutes of work are done for a folder that is not there.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::metadata(folder.unwrap_or(Path::new("."))).map_err(|e| data::io(path, e))?;
    }
    let engine = arguments.compute.engine()?;
    let seeds: Vec<u64> = match &arguments.data {
        Some(_) => (0..arguments.splits).map(|i| arguments.seed.wrapping_add(i)).collect(),
        None => vec![arguments.seed],
    };
    let mut predictions = arguments.predictions.as_deref().map(Predictions::create).transpose()?;
    let splits_out = arguments.splits_out.as_deref().map(SplitsOut::create).transpose()?;
    let mut source = Source::new(&arguments)?;
    let bar = output::progress(seeds.len() as u64, "splits");
    let mut summary = Summary { data: shown(&arguments), ..Summary::default() };
    for &seed in &seeds {
        let prepared = source.prepare(seed)?;
        let schema = Arc::new(prepared.domain.schema.clone());
        let outcome = match (&arguments.outcome, arguments.domain.as_str()) {
            (Some(name), domain) if domain != "auto" => Some(data::outcome(&prepared.domain, name)?),
            _ => None,
        };
        let ground = Ground { schema: &schema, engine: &engine, outcome };
        let supply = Supply::of(&prepared.cases, &prepared.train);
        let rows = (prepared.train.as_slice(), prepared.test.as_slice());
        let deal = |nodes| Field::new(ground, &prepared.cases, rows, nodes, seed).map_err(Failure::failed);
        let field = deal(arguments.nodes(&supply)?)?;
        let views = views(&arguments, &prepared)?;
        let alone = views[0].clone();
        let tuner = |field: &Field, view: &View| {
            let tuned = crate::tune::tune(&schema, view, &field.packets.concat(), &engine, |_| ());
            if std::env::var("QREPORT").is_ok() {
                tuned.report.iter().for_each(|line| output::note(line));
            }
            tuned.view
        };
        let tuner: Option<&eval::Tuner> = if arguments.tunes() { Some(&tuner) } else { None };
        let tuned = |field: &Field| -> Vec<View> {
            let first = tuner.map_or_else(|| alone.clone(), |tuner| tuner(field, &alone));
            std::iter::once(first).chain(views[1..].iter().cloned()).collect()
        };
        let views = tuned(&field);
        let split = eval::run(&field, &views, &alone, &wanted.methods);
        summary.rows = prepared.train.len() + prepared.test.len();
        summary.outcomes = schema.outcomes.clone();
        if let Some(predictions) = &mut predictions {
            predictions.write(&field, &split)?;
        }
        if let Some(folder) = &splits_out {
            folder.write(&arguments, &prepared.domain, &field, &split)?;
        }
        if arguments.report.is_some() {
            summary.reliability.extend(page::reliability(&field, &split));
            for view in &views {
                let found = eval::levels(&field, view, &eval::LEVELS);
                summary.levels.entry(view.name.clone()).or_default().push(found);
            }
        }
        summary.add(split);
        if let Some(poison) = wanted.poison {
            let methods = with_swarm(&wanted.methods);
            let found = poison::run(&field, &alone, tuner, &methods, poison).map_err(Failure::failed)?;
            summary.add_poisoned(found);
        }
        if let Some(steps) = arguments.scramble {
            summary.scramble.push(scramble::run(&field, &views[0], usize::from(steps)));
        }
        for &count in &arguments.curve {
            let Some(nodes) = supply.nodes(count as usize, wanted.rows, arguments.dirichlet) else {
                summary.left_out.insert(count);
                continue;
            };
            let field = deal(nodes)?;
            let found = eval::run(&field, &tuned(&field), &alone, &wanted.methods);
            summary.curve.entry(count).or_default().push(found);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(predictions) = predictions {
        predictions.finish()?;
    }
    // A point that only some splits allow would compare other splits than its neighbours.
    summary.curve.retain(|count, _| !summary.left_out.contains(count));
    let ran = engine.ran();
    output::note(&format!("computed on {ran}"));
    summary.poison = wanted.poison;
    if let Some(path) = &arguments.report {
        page::write(path, &summary)?;
        output::note(&format!("report: {}", path.display()));
    }
    if arguments.json {
        output::json(&summary.json());
    } else {
        summary.print();
    }
    Ok(())
}

/// The views that compete on a split, the first of them as the swarm's: those named, else the domain's first.
fn views(arguments: &Arguments, prepared: &Prepared) -> Result<Vec<View>, Failure> {
    if arguments.view.is_empty() {
        return Ok(vec![data::view(&prepared.domain, None)?.clone()]);
    }
    arguments.view.iter().map(|name| Ok(data::view(&prepared.domain, Some(name))?.clone())).collect()
}

fn with_swarm(methods: &[Method]) -> Vec<Method> {
    let others = methods.iter().copied().filter(|method| *method != Method::Swarm);
    std::iter::once(Method::Swarm).chain(others).collect()
}

/// The table's name for people.
fn shown(arguments: &Arguments) -> String {
    let path: Option<&PathBuf> = arguments.data.as_ref().or(arguments.test.as_ref());
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

impl Arguments {
    /// Whether the swarm's view is tuned on the training rows' packets.
    fn tunes(&self) -> bool {
        self.tune || self.domain == "auto"
    }

    /// The nodes of the main comparison: those asked for; with a curve of drawn nodes its largest point
    /// that the rows allow; else one per site.
    fn nodes(&self, supply: &Supply) -> Result<Nodes, Failure> {
        let rows = self.rows.map(|rows| rows as usize);
        match (self.nodes, rows) {
            (Some(count), _) => Ok(Nodes::Drawn { count: count as usize, rows, dirichlet: self.dirichlet }),
            (None, Some(_)) => {
                let fitting = |&count: &u32| supply.nodes(count as usize, rows, self.dirichlet);
                let mut counts = self.curve.clone();
                counts.sort_unstable();
                counts.iter().rev().find_map(fitting).ok_or_else(|| {
                    let (wanted, known) = (rows.unwrap_or(0), supply.rows);
                    Failure::usage(format!(
                        "--curve: no number of nodes with {wanted} rows each can be had from {known} training \
                         rows; ask for fewer nodes or rows"
                    ))
                })
            }
            (None, None) => Ok(Nodes::Sites),
        }
    }
}

/// Per name what splits found, in the order of the first one.
fn by_name<T: Clone>(splits: impl Iterator<Item = Vec<(String, T)>>) -> Vec<(String, Vec<T>)> {
    let mut order: Vec<String> = vec![];
    let mut lists: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (name, value) in splits.flatten() {
        if !lists.contains_key(&name) {
            order.push(name.clone());
        }
        lists.entry(name).or_default().push(value);
    }
    order
        .into_iter()
        .map(|name| {
            let list = lists.remove(&name).unwrap_or_default();
            (name, list)
        })
        .collect()
}

impl From<&[eval::Split]> for Table {
    fn from(splits: &[eval::Split]) -> Table {
        Table(by_name(
            splits.iter().map(|split| {
                split.methods.iter().map(|method| (method.name.clone(), method.metrics)).collect()
            }),
        ))
    }
}
