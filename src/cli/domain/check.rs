//! `qis domain check`.

use crate::cli::{Failure, output};
use crate::domain::file::Domain;
use crate::domain::schema::{FeatureKind, Missing};
use crate::domain::view::Metric;
use crate::domain::{Purpose, Table, TableError};
use crate::limits::SLOTS;
use crate::packet::Id;
use miette::Diagnostic;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Rows with problems that are shown; the others are counted.
const SHOWN_MAX: usize = 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// The domain file
    file: PathBuf,
    /// A table to read whole as the domain describes it; - is standard input
    #[arg(long, value_name = "TABLE")]
    data: Option<PathBuf>,
    /// Do not ask for outcomes, action, site, record and time: the table holds questions
    #[arg(long, requires = "data")]
    questions: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let domain = match Domain::load(&arguments.file) {
        Ok(domain) => domain,
        Err(error) => {
            if arguments.json {
                let problems: Vec<_> = error
                    .problems()
                    .iter()
                    .map(|p| json!({ "line": p.line, "column": p.column, "message": p.message, "help": p.help }))
                    .collect();
                output::json(&json!({ "ok": false, "error": error.to_string(), "problems": problems }));
            }
            return Err(error.into());
        }
    };
    if !arguments.json {
        print_domain(&domain);
    }
    let read = match &arguments.data {
        None => None,
        Some(path) => {
            let purpose = if arguments.questions { Purpose::Questions } else { Purpose::Evidence };
            Some(read(Table::open(path, &domain, purpose)?)?)
        }
    };
    if arguments.json {
        output::json(&describe(&domain, read.as_ref()));
    }
    match read {
        None => Ok(()),
        Some(read) => {
            if !arguments.json {
                print_read(&domain, &read);
            }
            match read.problem_rows {
                0 => Ok(()),
                count => Err(Failure::diagnosed(BadRows { file: read.file, count, rows: read.rows })),
            }
        }
    }
}

#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{file}: {count} of {rows} rows cannot be used")]
struct BadRows {
    file: String,
    count: u64,
    rows: u64,
}

/// What a whole table gave.
struct Read {
    file: String,
    rows: u64,
    problem_rows: u64,
    problems: Vec<TableError>,
    clipped: Vec<u64>,
    /// Per feature.
    missing: Vec<u64>,
    /// Per outcome: how many are known, and the sum of their values in the outcome's unit.
    known: Vec<(u64, f64)>,
    /// Per action, the last one is none.
    actions: Vec<u64>,
    /// At most [`SITES_MAX`] are told apart.
    sites: BTreeMap<String, u64>,
}

/// Sites that are counted apart: memory stays bounded on any table.
const SITES_MAX: usize = 100_000;

fn read(mut table: Table) -> Result<Read, Failure> {
    let schema = table.schema().clone();
    let mut read = Read {
        file: table.file().into(),
        rows: 0,
        problem_rows: 0,
        problems: Vec::new(),
        clipped: Vec::new(),
        missing: vec![0; schema.features.len()],
        known: vec![(0, 0.0); schema.outcomes.len()],
        actions: vec![0; schema.actions.len() + 1],
        sites: BTreeMap::new(),
    };
    for row in &mut table {
        match row {
            Ok(row) => {
                read.rows += 1;
                for (count, value) in read.missing.iter_mut().zip(&row.values) {
                    *count += u64::from(*value == crate::domain::Value::Missing);
                }
                for ((count, sum), number) in read.known.iter_mut().zip(&row.outcome_numbers) {
                    if let Some(number) = number {
                        *count += 1;
                        *sum += number;
                    }
                }
                read.actions[row.action.map_or(schema.actions.len(), usize::from)] += 1;
                if let Some(site) = row.site
                    && (read.sites.len() < SITES_MAX || read.sites.contains_key(&site))
                {
                    *read.sites.entry(site).or_default() += 1;
                }
            }
            Err(error) if error.is_of_one_row() => {
                read.rows += 1;
                read.problem_rows += 1;
                if read.problems.len() < SHOWN_MAX {
                    read.problems.push(error);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    read.clipped = table.clipped().to_vec();
    Ok(read)
}

fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn kind_text(kind: &FeatureKind) -> String {
    match kind {
        FeatureKind::Numeric { thermometer, .. } if thermometer.is_empty() => "numeric".into(),
        FeatureKind::Numeric { thermometer, .. } => format!("numeric, {} thresholds", thermometer.len()),
        FeatureKind::Categorical { levels } => format!("categorical, {} levels", levels.len()),
        FeatureKind::Ordinal { levels } => format!("ordinal, {} levels", levels.len()),
        FeatureKind::Boolean => "boolean".into(),
        FeatureKind::Hashed { slots: 0 } => "categorical, any levels".into(),
        FeatureKind::Hashed { slots } => format!("categorical, hashed to {slots}"),
    }
}

fn metric_text(metric: &Metric) -> &'static str {
    match metric {
        Metric::Identity => "identity",
        Metric::Diagonal { .. } => "diagonal",
        Metric::Full { .. } => "full",
    }
}

fn print_domain(domain: &Domain) {
    let schema = &domain.schema;
    output::line(&format!(
        "domain {}: {}",
        domain.name,
        if domain.about.is_empty() { "no description" } else { &domain.about }
    ));
    output::line(&format!("schema {}", hex(&schema.id())));
    let (starts, total) = schema.layout();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);

    table.set_header(["feature", "kind", "unit", "weight", "missing", "slots"]);
    for (feature, start) in schema.features.iter().zip(&starts) {
        let slots = match start {
            None => "exact".into(),
            Some(start) => match feature.slots() {
                1 => format!("{start}"),
                n => format!("{start} to {}", start + n - 1),
            },
        };
        table.add_row([
            feature.name.clone(),
            kind_text(&feature.kind),
            feature.unit.clone(),
            feature.weight.to_string(),
            match feature.missing {
                Missing::Slot => "slot".into(),
                Missing::Refuse => "refuse".into(),
            },
            slots,
        ]);
    }
    output::line(&table.to_string());
    output::line(&format!("{total} of {SLOTS} slots, {} levels a slot", schema.levels));
    for outcome in &schema.outcomes {
        let unit = if outcome.unit.is_empty() { String::new() } else { format!(" {}", outcome.unit) };
        output::line(&format!(
            "outcome {}: {:?}, {} to {}{unit}, better: {:?}",
            outcome.name, outcome.kind, outcome.low, outcome.high, outcome.direction
        ));
    }
    if !schema.actions.is_empty() {
        output::line(&format!("actions: {}", schema.actions.join(", ")));
    }
    for view in &domain.views {
        let address = view.addressing;
        let cases = view.prior.cases();
        output::line(&format!("view {} {}", view.name, hex(&view.id())));
        output::line(&format!(
            "  metric {}, kernel reaches distance {:.0}, prior {cases} cases, {}% intervals",
            metric_text(&view.metric),
            reach(view),
            view.level
        ));
        if address.bits == 0 {
            output::line("  address: one mailbox per scope");
        } else {
            output::line(&format!(
                "  address: {} tables of {} bits, {} probes each",
                address.tables, address.bits, address.probes
            ));
        }
    }
}

/// The smallest embedding distance from which on packets are skipped.
fn reach(view: &crate::domain::View) -> f64 {
    let used = view.kernel.table.iter().rposition(|&weight| weight > 0).map_or(0, |last| last + 1);
    ((used as f64) * f64::from(1u32 << view.kernel.shift)).sqrt()
}

fn print_read(domain: &Domain, read: &Read) {
    output::line(&format!("\n{}: {} rows", read.file, read.rows));
    for (feature, &missing) in domain.schema.features.iter().zip(&read.missing) {
        if missing > 0 {
            output::line(&format!("  feature {}: {missing} missing", feature.name));
        }
    }
    for ((outcome, &(count, sum)), &clipped) in
        domain.schema.outcomes.iter().zip(&read.known).zip(&read.clipped)
    {
        let mean = if count > 0 { format!(", mean {:.4}", sum / count as f64) } else { String::new() };
        let clipped = if clipped > 0 { format!(", {clipped} clipped") } else { String::new() };
        output::line(&format!("  outcome {}: {count} known{mean}{clipped}", outcome.name));
    }
    if !domain.schema.actions.is_empty() {
        let names = domain.schema.actions.iter().map(String::as_str).chain(["no action"]);
        for (name, &count) in names.zip(&read.actions) {
            if count > 0 {
                output::line(&format!("  action {name}: {count} rows"));
            }
        }
    }
    if !read.sites.is_empty() {
        let more = if read.sites.len() == SITES_MAX { " or more" } else { "" };
        output::line(&format!("  {}{more} sites", read.sites.len()));
    }
    for problem in &read.problems {
        output::note(&problem.to_string());
        if let Some(help) = problem.help() {
            output::note(&format!("  help: {help}"));
        }
    }
    let hidden = read.problem_rows - read.problems.len() as u64;
    if hidden > 0 {
        output::note(&format!("and {hidden} more rows with problems"));
    }
}

fn describe(domain: &Domain, read: Option<&Read>) -> serde_json::Value {
    let schema = &domain.schema;
    let (starts, total) = schema.layout();
    let features: Vec<_> = schema
        .features
        .iter()
        .zip(&starts)
        .map(|(feature, start)| {
            json!({
                "name": feature.name, "kind": kind_text(&feature.kind), "unit": feature.unit,
                "first_slot": start, "slots": start.map_or(0, |_| feature.slots()),
            })
        })
        .collect();
    let views: Vec<_> = domain
        .views
        .iter()
        .map(|view| {
            json!({
                "name": view.name, "id": hex(&view.id()), "index_id": hex(&view.index_id()),
                "metric": metric_text(&view.metric), "tables": view.addressing.tables,
                "bits": view.addressing.bits, "probes": view.addressing.probes, "level_percent": view.level,
            })
        })
        .collect();
    let outcomes: Vec<_> = schema.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    let data = read.map(|read| {
        json!({
            "file": read.file, "rows": read.rows, "problem_rows": read.problem_rows,
            "problems": read.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "clipped": read.clipped, "missing": read.missing, "sites": read.sites.len(),
            "known": read.known.iter().map(|known| known.0).collect::<Vec<_>>(),
        })
    });
    json!({
        "ok": read.is_none_or(|read| read.problem_rows == 0), "name": domain.name,
        "schema_id": hex(&schema.id()), "slots": total, "features": features, "outcomes": outcomes,
        "actions": schema.actions, "views": views, "data": data,
    })
}
